"""What the options add to a run (averages, the best weights, moments of 16 bits) survives kills and other numbers of ranks too."""

import pytest
import safetensors.torch
import torch

from tests.faults.test_ranks import EXACT, contents

OPTIONS = (
    "train.average=0.9",
    "train.patience=50",
    "train.layer_decay=0.8",
    "train.frozen=0",
    "train.optimizer.moment_dtype=bfloat16",
    "train.objective.mixup=0.3",
    "train.objective.cutmix=1",
    "augment.randaugment.magnitude=5",
    "augment.erasing.probability=0.5",
    "model.stochastic_depth=0.1",
)
ALL = EXACT | {"changes": (*EXACT["changes"], *OPTIONS)}
SHARDED = EXACT | {"changes": ("train.parallel=sharded", "train.micro_batch_size=2", "train.optimizer=SGD", *OPTIONS)}


@pytest.mark.slow
def test_killed_and_resumed_on_other_numbers_of_ranks_a_run_with_every_option_ends_the_same(runs, tmp_path):
    assert runs("start", tmp_path / "alone", steps=16, **ALL)[0] == 0
    ends, _ = runs.killed_often(tmp_path / "run", 2, 1, worlds=(1, 2), steps=16, **ALL)
    assert any(ends)
    assert runs("resume", tmp_path / "run", world=2)[0] == 0
    assert contents(tmp_path / "run", 16) == contents(tmp_path / "alone", 16)


def tensors(folder, steps):
    """Return everything of the last checkpoint, by its name; what several ranks wrote is put together."""
    files = sorted((folder / "checkpoints" / f"step-{steps:06d}").glob("*.safetensors"))
    return {name: tensor for file in files for name, tensor in safetensors.torch.load_file(file).items()}


@pytest.mark.slow
def test_a_sharded_run_keeps_what_one_rank_would_for_each_parameter(runs, tmp_path):
    """An evaluation before a checkpoint leaves the parameters as they were, in parts."""
    assert runs("start", tmp_path / "one", steps=16, **SHARDED)[0] == 0
    assert runs("start", tmp_path / "two", steps=16, world=2, **SHARDED)[0] == 0
    expected, found = tensors(tmp_path / "one", 16), tensors(tmp_path / "two", 16)
    assert found.keys() == expected.keys()
    assert {name.rpartition("/")[2] for name in found} >= {"average", "best", "momentum_buffer"}
    for name, tensor in found.items():
        close = {"rtol": 1e-2, "atol": 1e-4} if tensor.dtype == torch.bfloat16 else {"rtol": 1e-3, "atol": 1e-4}
        torch.testing.assert_close(tensor, expected[name], **close, msg=lambda said, name=name: f"{name}: {said}")
