import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitlab.cost.memory import bytes_per_image
from vitlab.data.catalog import Catalogued
from vitlab.data.fractals import Fractals
from vitlab.errors import SettingsError
from vitlab.models.catalog import settings_for
from vitlab.nn.grid import Size
from vitlab.studies.recipe import MEMORY_BYTES, find_recipe, micro_batch_for, recipes, steps_for, transfer
from vitlab.train.config import TrainSettings
from vitlab.train.optimizer import SGD, Adam
from vitlab.train.schedule import Cosine, Linear

ADAPTING = [name for name, recipe in recipes().items() if recipe.adapts]


def test_transfer_is_the_papers_fine_tuning():
    """Table 4 and appendix B.1.1: SGD with momentum 0.9, batch 512, no weight decay, cosine, gradient norm clipped at 1."""
    train = transfer(500)
    assert train.optimizer == SGD(momentum=0.9) and train.optimizer.weight_decay == 0
    assert (train.batch_size, train.lr, train.clip_norm, train.steps) == (512, 0.003, 1.0, 500)
    assert isinstance(train.schedule, Cosine) and train.schedule.warmup_steps == 50
    assert transfer(20_000).schedule.warmup_steps == 500


def test_pretraining_has_the_papers_shape():
    """Table 3 and section 4.1: Adam 0.9 0.999, decay 0.1, linear to 1e-5 after a warm-up of 10,000 steps."""
    train = find_recipe("pretrain").training(1_000_000)
    assert train.optimizer == Adam(beta1=0.9, beta2=0.999, weight_decay=0.1)
    assert train.schedule == Linear(warmup_steps=10_000, end=1e-5)


def test_the_recipes_that_are_chosen_unasked_adapt():
    assert set(ADAPTING) == {"transfer", "scratch", "pretrain", "masked"}


@pytest.mark.parametrize("name", ADAPTING)
@pytest.mark.parametrize("steps", [1, 7, 500])
def test_a_warm_up_is_never_longer_than_a_tenth_of_the_run(name, steps):
    train = find_recipe(name).training(steps)
    assert train.steps == steps and train.schedule.warmup_steps <= steps / 10


@pytest.mark.parametrize("name", [name for name in recipes() if name not in (*ADAPTING, "bit")])
def test_a_published_recipe_keeps_its_schedule_whatever_the_length(name):
    recipe = find_recipe(name)
    assert recipe.training(10**7).schedule == recipe.train.schedule
    assert recipe.training(recipe.train.steps) == recipe.train


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_says_where_it_is_from_and_can_be_carried_out(name):
    recipe = find_recipe(name)
    assert recipe.name == name and recipe.source
    assert recipe.train.schedule.warmup_steps < recipe.train.steps or recipe.adapts
    assert not recipe.lrs or recipe.train.lr in recipe.lrs
    assert set(recipe.image_sizes) <= set(recipe.models)
    for model in recipe.models:
        settings = settings_for(model, 10, recipe.image_sizes.get(model) or recipe.image_size or 224)
        assert type(settings).model_validate(settings.model_dump() | dict(recipe.model))
        assert recipe.model_for(settings) == model


def test_a_recipe_knows_its_models_by_their_dimensions():
    recipe = find_recipe("jft/R50+B16")
    assert recipe.model_for(settings_for("R50+B/16", 3, 64)) == "R50+B/16"
    assert all(recipe.model_for(settings_for(name)) is None for name in ("B/16", "R50+B/32", "R50+L/16", "BiT-R50x1"))
    assert find_recipe("jft/R50x1").model_for(settings_for("ResNet-R50x1")) is None


def test_an_image_size_is_that_of_the_model_where_it_needs_its_own():
    recipe = find_recipe("imagenet-512")
    assert recipe.size_for(settings_for("H/14", 7, 28)) == Size(518, 518)
    assert recipe.size_for(settings_for("L/16", 7, 32)) == Size(512, 512)
    assert find_recipe("transfer").size_for(settings_for("L/16")) is None


def test_a_task_in_which_left_is_not_right_is_not_mirrored():
    vtab, size = find_recipe("vtab"), Size(384, 384)
    changed = [vtab.augment_for(Catalogued(f"vtab/{task}"), size) for task in ("dspr-loc", "snorb-azim", "clevr-count")]
    assert [(augment.flip, augment.crop.type) for augment in changed] == [
        (False, "NoCrop"),
        (False, "ResizeCrop"),
        (True, "NoCrop"),
    ]
    assert vtab.augment_for(Catalogued("vtab/pets"), size) == vtab.augment
    assert find_recipe("cifar10").augment_for(Catalogued("vtab/dspr-loc"), size).flip


def test_only_our_recipes_cut_less_out_of_small_images():
    small, large = Size(96, 96), Size(97, 97)
    ours, theirs = find_recipe("pretrain"), find_recipe("jft/B16")
    assert ours.augment_for(Fractals(), small).crop.area == (0.35, 1.0)
    assert (
        ours.augment_for(Fractals(), large).crop.area == theirs.augment_for(Fractals(), small).crop.area == (0.05, 1.0)
    )


def test_epochs_follow_the_data_and_steps_do_not(make_source):
    source = make_source(count=100)
    assert find_recipe("jft/B16").steps_on(source) == 1 and find_recipe("jft/B16-masked").steps_on(source) == 1_000_000


@pytest.mark.parametrize(("epochs", "steps"), [(1, 3), (2, 5), (0.1, 1), (0.0001, 1), (4, 10)])
def test_epochs_round_up_to_whole_steps(epochs, steps):
    assert steps_for(epochs, 10, 4) == steps == max(1, math.ceil(epochs * 10 / 4))


def piece_for(model, batch_size, world=1, **how):
    return micro_batch_for(model, TrainSettings(batch_size=batch_size, **how), world)


@pytest.mark.parametrize("name", ["Mini/4", "S/16", "B/16", "H/14"])
@pytest.mark.parametrize("batch_size", [1, 64, 512, 4096, 509])
def test_a_micro_batch_divides_the_batch_and_is_the_largest_that_fits(name, batch_size):
    model = settings_for(name, 10, 224)
    micro = piece_for(model, batch_size)
    if micro is None:
        assert estimate(model, batch_size) <= MEMORY_BYTES
        return
    assert batch_size % micro == 0 and (micro == 1 or estimate(model, micro) <= MEMORY_BYTES)
    larger = [size for size in range(micro + 1, batch_size + 1) if batch_size % size == 0]
    assert all(estimate(model, size) > MEMORY_BYTES for size in larger)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("name", ["B/16", "L/16", "H/14"])
def test_what_keeps_less_is_given_larger_pieces(name, exact):
    """Measured in tests/cost: half as much in bfloat16, and a block's input only where its layers are computed again."""
    model = settings_for(name, 10, 224)
    ways = [{}, {"precision": "bfloat16"}, {"remat": True}, {"remat": True, "precision": "bfloat16"}]
    pieces = [piece_for(model, 4096, exact=exact, **way) or 4096 for way in ways]
    assert pieces == sorted(pieces) and 4 * pieces[0] <= pieces[2] < pieces[3]
    for way, piece in zip(ways, pieces, strict=True):
        half, remat = way.get("precision") == "bfloat16", way.get("remat", False)
        taken = piece * bytes_per_image(model, half=half, remat=remat)
        assert taken <= MEMORY_BYTES < 2 * taken


def pieces_of(name, batch_size, **how):
    return batch_size // (piece_for(settings_for(name, 10, 224), batch_size, **how) or batch_size)


@given(st.sampled_from(["S/16", "L/16"]), st.integers(1, 600), st.integers(1, 9))
def test_every_process_gets_as_many_pieces_or_the_batch_is_refused(name, batch_size, world):
    if batch_size % world:
        with pytest.raises(SettingsError, match="--batch-size"):
            pieces_of(name, batch_size, world=world)
        return
    pieces = pieces_of(name, batch_size, world=world)
    assert pieces % world == 0 and batch_size % pieces == 0
    assert batch_size == pieces or estimate(settings_for(name, 10, 224), batch_size // pieces) <= MEMORY_BYTES


@pytest.mark.parametrize(("name", "batch_size"), [("Mini/4", 64), ("S/16", 512), ("B/16", 4096), ("H/14", 4096)])
def test_exact_pieces_are_the_same_on_any_power_of_two_of_processes(name, batch_size):
    counts = {pieces_of(name, batch_size, world=world, exact=True) for world in (1, 2, 4, 8)}
    (pieces,) = counts
    assert pieces >= 8 and pieces & (pieces - 1) == 0


@pytest.mark.parametrize(("batch_size", "pieces"), [(1, 1), (2, 2), (12, 4), (15, 1), (100, 4), (24, 8)])
def test_a_small_batch_has_as_many_exact_pieces_as_it_divides_into(batch_size, pieces):
    assert pieces_of("Mini/8", batch_size, exact=True) == pieces


@pytest.mark.parametrize(
    ("batch_size", "how", "words"),
    [
        (100, {"world": 8}, "100 images do not divide into equal pieces for 8 processes; use 96 or 104"),
        (4, {"world": 8}, "4 images do not divide into equal pieces for 8 processes; use 8"),
        (12, {"world": 8, "exact": True}, "use 8 or 16"),
        (4099, {"exact": True}, "4099 images do not divide .* that fit the memory; use 4096 or 4"),
        (64, {"world": 3, "exact": True}, "3 processes cannot make the same bits as one; use 2 or 4"),
    ],
)
def test_a_batch_that_cannot_be_divided_is_refused_with_the_nearest_that_can(batch_size, how, words):
    with pytest.raises(SettingsError, match=words):
        pieces_of("B/16", batch_size, **how)


def estimate(model, size):
    """Bytes of activations that the backward pass reads: tokens × layers × what a block keeps, in float32."""
    return 4 * size * (model.grid.cells + 1) * model.depth * (9 * model.width + 2 * model.mlp_dim)


def test_the_estimate_of_activations_is_of_the_right_size():
    """Measured with what autograd saves; within a factor of two, on the safe side more often than not."""
    from vitlab.models.catalog import build_named

    model = build_named("Mini/4", num_classes=10, image_size=32)
    saved = 0
    held = {parameter.data_ptr() for parameter in model.parameters()}

    def pack(tensor):
        nonlocal saved
        if tensor.data_ptr() not in held:
            held.add(tensor.data_ptr())
            saved += tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(torch.zeros(4, 3, 32, 32)).sum()
    assert 0.5 <= saved / estimate(model.settings, 4) <= 2
