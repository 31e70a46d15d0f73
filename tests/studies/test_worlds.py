"""What a study is made of at each scale: the recipes of table 3 and 4 at the paper's, and the same shape of world at all."""

import pytest

from vitlab.data.fractals import Fractals
from vitlab.errors import DataError
from vitlab.studies import world_paper, world_small
from vitlab.studies.work import in_order
from vitlab.studies.world import Task
from vitlab.studies.world_miniature import MINIATURE, SETS
from vitlab.studies.world_paper import PAPER
from vitlab.studies.world_small import SMALL

FEW = Fractals(num_classes=5, images_per_class=2000, image_size=8)


@pytest.fixture
def any_data(monkeypatch):
    """Fractals in the place of every data set that is not here."""
    for size in ("small", "medium", "large"):
        monkeypatch.setitem(world_paper.SETS, size, lambda: FEW)
    monkeypatch.setattr(world_paper, "named_task", lambda name: Task(FEW, FEW))
    monkeypatch.setattr(world_small, "named_task", lambda name: Task(FEW, FEW))
    monkeypatch.setattr(world_small, "named_set", lambda name: FEW)


@pytest.mark.parametrize(
    ("network", "data", "recipe", "lr", "weight_decay"),
    [
        ("B/16", "large", "jft/B16", 8e-4, 0.1),
        ("H/14", "large", "jft/H14", 3e-4, 0.1),
        ("BiT-R152x2", "large", "jft/R152x2", 6e-4, 0.1),
        ("R50+L/32", "large", "jft/R50+L32", 2e-4, 0.1),
        ("b/32", "large", "jft/B16", 8e-4, 0.1),  # of which table 3 has none: the closest
        ("BiT-R200x3", "large", "jft/R152x2", 6e-4, 0.1),
        ("BiT-R50x1", "medium", "jft/R50x1", 1e-3, 0.1),  # where it is trained as on JFT-300M
        ("L/16", "medium", "imagenet21k/L16", 1e-3, 0.03),
        ("B/32", "small", "imagenet/B32", 3e-3, 0.3),
    ],
)
def test_at_the_papers_scale_the_recipe_is_that_of_table_3(
    any_data, monkeypatch, network, data, recipe, lr, weight_decay
):
    monkeypatch.setattr(Fractals, "__len__", lambda self: 1_000_000)  # the warm-up of 10,000 steps must fit
    settings = PAPER.pretrained(network, data).settings
    assert settings.recipe == recipe and settings.model.num_classes == 5
    assert settings.train.lr == lr and settings.train.optimizer.weight_decay == weight_decay
    assert settings.train.batch_size == 4096 and settings.model.image_size == (224, 224)


def test_at_the_papers_scale_fine_tuning_is_that_of_table_4(any_data):
    settings = PAPER.finetuned(None, PAPER.networks["L/16"], "pets").settings
    assert (settings.recipe, settings.train.steps, settings.train.batch_size) == ("pets", 500, 512)
    assert settings.model.image_size == (384, 384) == (settings.image_spec.height, settings.image_spec.width)
    assert list(settings.evals) == ["test"] and settings.model.num_classes == 5


def test_data_that_are_not_here_are_named_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("VITLAB_DATA", str(tmp_path))
    with pytest.raises(DataError, match="JFT-300M: is needed, and was never published; put or link"):
        PAPER.pretrained()
    with pytest.raises(DataError, match="imagenet21k"):
        PAPER.pretrained(data="medium")
    with pytest.raises(DataError, match="cifar100"):
        SMALL.pretrained()


@pytest.mark.parametrize("world", [MINIATURE, SMALL, PAPER], ids=lambda world: world.scale)
def test_every_world_has_what_studies_ask_for(any_data, monkeypatch, world):
    monkeypatch.setattr(Fractals, "__len__", lambda self: 10_000_000)
    assert set(world.sets) == set(world.titles) == {"small", "medium", "large"}
    assert world.usual in world.networks and world.task in world.tasks
    pieces = [world.pretrained(network, data) for network in world.networks for data in world.sets]
    assert len({piece.name for piece in pieces}) == len({piece.digest for piece in pieces}) == len(pieces)
    tuned = [world.finetuned(pieces[0], world.networks[world.usual], task) for task in world.tasks]
    assert all(piece.start is pieces[0] for piece in tuned)
    assert all(warmup_fits(piece) for piece in (*pieces, *tuned))
    heads = [world.heads(piece) for piece in pieces]
    assert len(in_order(heads)) == 2 * len(pieces)


def warmup_fits(piece):
    train = piece.settings.train
    return train.schedule.warmup_steps < train.steps


def test_larger_sets_of_the_miniature_hold_the_smaller_ones():
    sizes = [len(SETS[name]) for name in ("small", "medium", "large")]
    assert sizes == sorted(set(sizes))
    small, large = SETS["small"], SETS["large"]
    assert (small.read(0).data == large.read(0).data).all()


def test_the_same_pretraining_in_two_studies_is_one_piece():
    model = MINIATURE.networks["Micro/4"]
    assert MINIATURE.pretrained().digest == MINIATURE.pretrained("Micro/4", "large", 0).digest
    assert MINIATURE.pretrained(seed=1).digest != MINIATURE.pretrained().digest
    assert MINIATURE.variant("slower", model, lr=1e-3).digest != MINIATURE.pretrained().digest
    assert MINIATURE.pretrained() == MINIATURE.variant("learned positions", model)
