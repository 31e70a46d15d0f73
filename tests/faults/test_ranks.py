"""An exact run that is killed, and resumed on any number of ranks, ends bit for bit as one process alone."""

import signal

import pytest

EXACT = {
    "checkpoint_every": 4,
    "eval_every": 8,
    "seed": 3,
    "batch_size": 16,
    "changes": ("train.exact=true", "train.micro_batch_size=2"),
}
SAME = ("model.safetensors", "metrics.jsonl", "config.json")


def contents(folder, steps):
    """Return the bytes of what must not depend on who computed it."""
    last = f"checkpoints/step-{steps:06d}"
    names = (*SAME, f"{last}/model.safetensors", f"{last}/optimizer.safetensors", f"{last}/progress.json")
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def alone(runs, tmp_path_factory):
    """Return what one process leaves that nobody disturbs, for a number of steps."""
    known = {}

    def run(steps):
        if steps not in known:
            folder = tmp_path_factory.mktemp("alone") / "run"
            assert runs("start", folder, steps=steps, **EXACT)[0] == 0
            known[steps] = contents(folder, steps)
        return known[steps]

    return run


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_an_exact_run_on_several_ranks_leaves_the_bytes_of_one(runs, alone, tmp_path, world):
    assert runs("start", tmp_path / "run", world=world, steps=16, **EXACT)[0] == 0
    assert contents(tmp_path / "run", 16) == alone(16)


@pytest.mark.slow
def test_without_exact_the_last_bits_differ(runs, tmp_path):
    """So the comparison can fail."""
    fast = EXACT | {"changes": ("train.micro_batch_size=2",)}
    for world in (1, 2):
        assert runs("start", tmp_path / str(world), world=world, steps=16, **fast)[0] == 0
    assert contents(tmp_path / "1", 16) != contents(tmp_path / "2", 16)


def check(runs, alone, folder, kills, steps, luck):
    ends, begun = runs.killed_often(folder, kills, luck, worlds=(1, 2, 4), steps=steps, **EXACT)
    assert ends.count(-signal.SIGKILL) >= 0.7 * kills
    assert len(set(begun)) > 1, "every run began at the same step: nothing was resumed"
    assert runs("resume", folder, world=2)[0] == 0
    assert contents(folder, steps) == alone(steps)


@pytest.mark.slow
def test_killed_and_resumed_on_other_numbers_of_ranks_it_ends_the_same(runs, alone, tmp_path):
    check(runs, alone, tmp_path / "run", kills=5, steps=40, luck=0)


@pytest.mark.slow
@pytest.mark.parametrize("luck", range(100, 103))
def test_killed_thirty_times_and_resumed_on_other_numbers_of_ranks_it_ends_the_same(runs, alone, tmp_path, luck):
    check(runs, alone, tmp_path / "run", kills=30, steps=240, luck=luck)
