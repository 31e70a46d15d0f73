"""Several ranks: they tell each other the same, and train, check and evaluate one model as one process does."""

import os
import signal

import numpy as np
import pytest
import torch

from tests.train.conftest import SHAPE
from tests.train.together import Ended, agent, forked, together
from vitlab.data.digits import Digits
from vitlab.data.loader import Pieces, TrainBatches, load
from vitlab.data.transforms import Augment
from vitlab.errors import ImageError, SettingsError
from vitlab.evals.classify import Accuracy
from vitlab.models.classifier import build
from vitlab.nn.pooling import AttentionPool, Mean
from vitlab.ranks import ALONE, Ranks
from vitlab.studies.plan import Asked, plan_pretrain
from vitlab.studies.run import _check_ranks
from vitlab.train import heartbeat
from vitlab.train.heartbeat import heartbeat as watched
from vitlab.train.masked import MaskedPatches
from vitlab.train.objective import Sigmoid, Softmax, build_task
from vitlab.train.optimizer import SGD, Adam
from vitlab.train.replicas import Learner, has_unused
from vitlab.train.run import RunFolder
from vitlab.train.sharding import gathered
from vitlab.train.state import TrainState
from vitlab.train.step import train_step

STEPS = 6


class Small(Digits):
    """Forty-three digits: no number of ranks divides them."""

    def __len__(self):
        return 43

    @property
    def labels(self):
        return super().labels[:43] % 3


@pytest.fixture
def fit(make_training, tmp_path):
    """Return a function that trains on the ranks it is given, and returns the losses and all parameters as one list."""

    def run(ranks, folder=None, steps=STEPS, weights=None, labels=None, dropout=0.1, **changes):
        plain = {"steps": STEPS, "batch_size": 8, "micro_batch_size": 2, "lr": 0.1}
        if changes.get("parallel") == "sharded":
            plain |= {"lr": 0.003, "optimizer": Adam(eps=1e-3)}
        settings = make_training(**(plain | changes))
        model = make_model(dropout, settings)
        state = TrainState.start(model, settings, weights, ranks)
        size = settings.batch_size // settings.pieces
        known = Small().labels if labels is None else labels
        batches = TrainBatches(Small(), known, model.image_spec, Augment(), size, settings.seed)
        opened = opener(tmp_path, folder, ranks)
        if opened is not None:
            opened.restore_checkpoint(state)
        pieces = load(batches, Pieces(state.step, STEPS, settings.pieces, ranks))
        losses = []
        while state.step < steps:
            mine = [next(pieces) for _ in ranks.share(settings.pieces)]
            losses.append(train_step(state, mine, settings).read(state).loss)
        if opened is not None:
            opened.save_checkpoint(state)
            opened.finish_checkpoint()
            opened.close()
        return losses, torch.cat([tensor.flatten() for tensor in gathered(state.tensors()[0]).values()]).tolist()

    return run


def make_model(dropout, settings):
    masked = isinstance(settings.objective, MaskedPatches)
    shape = SHAPE.model_copy(update={"dropout": dropout, "num_classes": None if masked else 3})
    model = build(shape, seed=1, classes=() if masked else ("a", "b", "c"))
    torch.manual_seed(7)
    for parameter in () if masked else model.head.parameters():
        torch.nn.init.normal_(parameter, std=0.5)  # a fresh head is zero and hides the layers below it
    return model


def opener(path, name, ranks):
    """Return the run folder `name` as each rank has it, made where it is missing; None without a name."""
    if name is None:
        return None
    if not ranks.first:
        ranks.tell()
        return RunFolder.follow(path / name, ranks)
    there = (path / name / "config.json").exists()
    opened = RunFolder.reopen(path / name, ranks) if there else RunFolder.create(path / name, {}, {}, ranks)
    ranks.tell()
    return opened


def close(one, other):
    """Whether two trainings are the same to rounding, which Adam would blow up where a gradient is zero but for that."""
    np.testing.assert_allclose(one[0], other[0], rtol=1e-5)
    np.testing.assert_allclose(one[1], other[1], atol=1e-5)
    return True


@pytest.mark.parametrize("world", [2, 3, 4])
def test_what_ranks_tell_each_other(world):
    def work(ranks):
        told = ranks.tell({"a": [1, None]} if ranks.first else None)
        words = ranks.words([str(ranks.rank)] * ranks.rank)
        total = ranks.sum(torch.tensor([1.0 + ranks.rank])).item()
        rows = ranks.rows(torch.tensor([[ranks.rank]])).flatten().tolist()
        return told, words, total, rows, ranks.report(ranks.topic(), ranks.rank), list(ranks.share(12))

    answers = together(world, work)
    everyone = list(range(world))
    for rank, (told, words, total, rows, reported, share) in enumerate(answers):
        assert told == {"a": [1, None]} and words == [[str(each)] * each for each in everyone]
        assert total == sum(everyone) + world and rows == everyone
        assert reported == (everyone if rank == 0 else [])
        assert share == list(range(12 // world * rank, 12 // world * (rank + 1)))


@pytest.mark.parametrize("world", [2, 4])
def test_a_sum_across_ranks_has_the_bits_of_a_tree(world):
    values = torch.randn(world, 5, generator=torch.Generator().manual_seed(0))

    def work(ranks):
        mine = [values[ranks.rank, :2].clone(), values[ranks.rank, 2:].clone()]
        ranks.add_across(mine)
        return [tensor.tolist() for tensor in mine]

    sums = values
    while len(sums) > 1:
        sums = sums[::2] + sums[1::2]
    assert together(world, work) == [[sums[0, :2].tolist(), sums[0, 2:].tolist()]] * world


def test_ranks_that_are_started_again_hear_nothing_of_before():
    """The store of torchrun's agent keeps what was said there, and the number of ranks may be another."""
    with agent() as environment:
        for start, world in enumerate((2, 4, 2)):

            def work(ranks, start=start):
                return ranks.tell(start if ranks.first else None), ranks.words([f"{start}.{ranks.rank}"])

            words = [[f"{start}.{rank}"] for rank in range(world)]
            assert together(world, work, environment) == [[start, words]] * world


@pytest.mark.parametrize("parallel", ["data", "sharded"])
def test_more_ranks_follow_the_losses_of_one(fit, parallel):
    alone = fit(ALONE, parallel=parallel)
    assert abs(alone[0][0] - alone[0][-1]) > 1e-3, "nothing was learned"
    for world in (2, 4):
        for answer in together(world, lambda ranks: fit(ranks, parallel=parallel)):
            assert close(answer, alone)


def test_a_batch_in_pieces_is_the_update_of_the_whole_batch(fit):
    whole = fit(ALONE, micro_batch_size=None, dropout=0.0)  # dropout is drawn for each piece
    assert close(fit(ALONE, dropout=0.0), whole)
    assert close(together(2, lambda ranks: fit(ranks, micro_batch_size=4, dropout=0.0))[1], whole)


def test_an_exact_run_has_the_same_bits_on_any_number_of_ranks(fit):
    alone = [list(part) for part in fit(ALONE, exact=True)]
    for world in (2, 4):
        assert together(world, lambda ranks: fit(ranks, exact=True)) == [alone] * world


def test_clipping_looks_at_the_gradient_of_all_ranks(fit):
    small = {"clip_norm": 0.01, "parallel": "sharded", "lr": 0.1}
    assert close(together(2, lambda ranks: fit(ranks, **small))[0], fit(ALONE, **small))


@pytest.mark.parametrize("parallel", ["data", "sharded"])
@pytest.mark.parametrize("worlds", [(4, 2), (1, 4), (2, 1)])
def test_a_checkpoint_is_resumed_on_another_number_of_ranks(fit, parallel, worlds):
    straight = fit(ALONE, parallel=parallel)
    for world, steps in zip(worlds, (3, STEPS), strict=True):

        def work(ranks, steps=steps):
            return fit(ranks, "run", steps, parallel=parallel)

        losses, parameters = work(ALONE) if world == 1 else together(world, work)[0]
    assert len(losses) == STEPS - 3
    assert close((losses, parameters), (straight[0][3:], straight[1]))


def test_momentum_in_parts_makes_the_updates_of_the_whole(fit):
    momentum = {"optimizer": SGD(), "parallel": "sharded"}
    assert close(together(2, lambda ranks: fit(ranks, **momentum))[0], fit(ALONE, **momentum))


KINDS = {
    "class weights": {"objective": Softmax(), "weights": np.array([1.0, 5.0, 0.2])},
    "several labels": {
        "objective": Sigmoid(),
        "labels": np.stack([np.arange(43) % 3, np.where(np.arange(43) % 2, -1, (np.arange(43) + 1) % 3)], 1),
    },
    "masked patches": {"objective": MaskedPatches()},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_task_is_shared(fit, kind):
    assert close(together(2, lambda ranks: fit(ranks, **KINDS[kind]))[0], fit(ALONE, **KINDS[kind]))


@pytest.mark.parametrize("world", [2, 3])
def test_evaluation_counts_every_example_once(world):
    source, model = Small(), build(SHAPE.model_copy(update={"num_classes": 10}), seed=1, classes=Digits().classes)

    def count(ranks):
        evaluator = Accuracy(source, batch_size=5, ranks=ranks)
        values = evaluator(model)
        return [dict(values), len(evaluator.last.labels)]

    alone = count(ALONE)
    assert alone[1] == 43
    for values, size in together(world, count):
        assert values == pytest.approx(alone[0]) and size == alone[1]


@pytest.mark.parametrize("world", [3, 8])
def test_ranks_that_cannot_share_a_batch_are_refused(world):
    asked = Asked(data="digits", steps=4, batch_size=8, changes=("train.micro_batch_size=2",), device="cpu")
    settings = plan_pretrain(asked).settings
    with pytest.raises(SettingsError, match=f"^--processes: {world} cannot share batches of 4 pieces .*use 1, 2, 4"):
        _check_ranks(settings, Ranks(0, world))


def lose(ranks, number, who=1):
    """Add up with the others for ever; the rank `who` sends itself the signal `number` on the way."""
    with watched(ranks) as beat:
        for step, _ in enumerate(beat.watch(iter(int, 1))):
            ranks.sum(torch.ones(1))
            if ranks.rank == who and step == 20:
                os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("number", "words"), [(signal.SIGKILL, "does not answer"), (signal.SIGSTOP, "has not answered for")]
)
def test_a_lost_rank_is_named_by_the_others(monkeypatch, number, words):
    monkeypatch.setattr(heartbeat, "SILENT_SECONDS", 3.0)
    monkeypatch.setattr(heartbeat, "_GONE_SECONDS", 1.0)
    with agent() as environment:
        pids, folder = forked(3, lambda ranks: lose(ranks, number), environment)
        try:
            codes = [os.waitstatus_to_exitcode(os.waitpid(pids[rank], 0)[1]) for rank in (0, 2)]
        finally:
            os.kill(pids[1], signal.SIGKILL)
            os.waitpid(pids[1], 0)
    assert codes == [1, 1]
    for rank in (0, 2):
        said = (folder / f"{rank}.err").read_text().strip().splitlines()[-1]
        assert f"rank 1 (process {pids[1]} on " in said and words in said and said.endswith("go on with --resume")


def test_a_rank_that_fails_says_why_to_the_others():
    def fail(ranks):
        with watched(ranks):
            for step in range(10**6):
                ranks.sum(torch.ones(1))
                if ranks.rank == 1 and step == 20:
                    raise ImageError("dog/7.png", "PNG file is truncated", "repair it")

    with agent() as environment, pytest.raises(Ended) as caught:
        together(2, fail, environment)
    said = caught.value.said[0].strip().splitlines()[-1]
    assert "RankError: rank 1 (process " in said
    assert said.endswith("): dog/7.png: PNG file is truncated; repair it; go on with --resume")


@pytest.mark.parametrize(
    ("changes", "unused"),
    [({}, False), ({"pool": Mean()}, False), ({"pool": Mean(norm="mean")}, True), ({"pool": AttentionPool()}, True),
     ({"representation_dim": 8}, True)],
)  # fmt: skip
def test_what_gets_no_gradient_is_known(changes, unused):
    """Ranks that wait for such a gradient fail, and torch warns of those that look for what is not there."""
    model = build(SHAPE.model_copy(update={"num_classes": None, **changes}), seed=1)
    learner = Learner(model, build_task(MaskedPatches(), model.settings))
    learner(
        torch.zeros(2, 3, *model.settings.image_size, dtype=torch.uint8), torch.zeros(2, dtype=torch.long)
    ).sum().backward()
    assert any(parameter.grad is None for parameter in learner.parameters()) == unused == has_unused(learner)
