import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitlab.errors import SettingsError
from vitlab.models.classifier import build
from vitlab.models.resnet import ResNetSettings
from vitlab.nn.grid import Size
from vitlab.nn.patches import to_patches
from vitlab.train.masked import (
    COLOURS,
    MaskedLoss,
    MaskedPatches,
    MaskedTask,
    choose,
    colours,
    how_many,
    places_of,
)  # fmt: skip
from vitlab.train.state import TrainState
from vitlab.train.step import train_step

PATCH = Size(4, 4)
CPU = torch.device("cpu")


@pytest.fixture
def settings(make_settings):
    return make_settings(image_size=Size(16, 16), num_classes=None)


@pytest.fixture
def task(settings):
    return MaskedTask(MaskedPatches(), settings)


@pytest.mark.parametrize(
    ("colour", "label"),
    [((0, 0, 0), 0), ((255, 255, 255), 511), ((32, 0, 0), 64), ((31, 0, 0), 0), ((0, 64, 0), 16), ((0, 0, 224), 7)],
)
def test_a_colour_is_three_bits_a_channel(colour, label):
    patch = torch.tensor(colour, dtype=torch.uint8)[:, None].expand(3, 16).reshape(1, 48)
    assert colours(patch, PATCH, 1).tolist() == [[label]]
    assert colours(patch, PATCH, 4).tolist() == [[label] * 16]


def test_a_mean_colour_is_of_the_whole_patch_and_the_cells_are_in_raster_order():
    patch = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    patch[0, 0, 0, 1] = 255
    assert colours(patch.flatten(1), PATCH, 1).tolist() == [[0]]  # 255 / 16 is below 32
    assert colours(patch.flatten(1), PATCH, 4)[0].tolist() == [0, 7 * 64] + [0] * 14


@given(st.integers(1, 5), st.integers(1, 60), st.floats(0.01, 1))
def test_every_image_has_the_same_number_of_corrupted_patches(images, patches, share):
    chosen = choose(images, patches, share, CPU)
    assert chosen.sum(dim=1).tolist() == [max(1, round(share * patches))] * images


def test_of_the_corrupted_four_fifths_are_masked_a_tenth_replaced_and_the_rest_left(task):
    torch.manual_seed(0)
    embedded = torch.randn(400, 16, 16)
    corrupted = choose(400, 16, 0.5, CPU)
    tokens = task.corrupt(embedded, corrupted)
    same = (tokens == embedded).all(dim=2)
    masked = (tokens == task.mask_embedding).all(dim=2)
    assert bool(same[~corrupted].all())
    shares = [float(part[corrupted].float().mean()) for part in (masked, same, ~masked & ~same)]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.02)
    places = (~masked & ~same).nonzero()
    for image, patch in places[:50].tolist():  # what replaces is another patch of the same image
        assert bool((embedded[image] == tokens[image, patch]).all(dim=1).any())


def test_a_fresh_prediction_is_uniform_over_the_colours(task, settings):
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    losses = task(build(settings), images, torch.zeros(3, dtype=torch.int64))
    torch.testing.assert_close(losses, torch.full((3,), math.log(COLOURS)))


@pytest.mark.parametrize(("target", "outputs"), [("mean_colour", 512), ("colours", 8192), ("pixels", 48)])
def test_each_target_trains_the_model_the_mask_and_the_prediction(settings, make_training, make_batch, target, outputs):
    training = make_training(objective=MaskedPatches(target=target))
    state = TrainState.start(build(settings, seed=1), training)
    assert state.task.prediction.out_features == outputs
    before = {name: parameter.detach().clone() for name, parameter in state.named_parameters()}
    losses = [train_step(state, make_batch(0).pieces(training.pieces), training).read(state).loss for _ in range(8)]
    assert losses[-1] < losses[1]
    changed = {name for name, parameter in state.named_parameters() if not torch.equal(parameter, before[name])}
    assert {"task.mask_embedding", "task.prediction.weight", "stem.projection.weight", "position.table"} <= changed


def test_pixels_are_compared_in_the_models_range(settings):
    task = MaskedTask(MaskedPatches(target="pixels"), settings)
    patches = torch.full((2, 48), 255, dtype=torch.uint8)
    torch.testing.assert_close(task.losses(torch.ones(2, 48), patches), torch.zeros(2))
    torch.testing.assert_close(task.losses(torch.zeros(2, 48), patches), torch.ones(2))


def test_what_is_predicted_is_what_was_under_the_mask(settings):
    """A prediction that knows a patch's colour from its place alone has no loss, so output tokens and targets are in step."""
    task, model = MaskedTask(MaskedPatches(masked=1.0, replaced=0.0), settings), build(settings)
    images = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8)
    labels = colours(to_patches(images, PATCH)[0], PATCH, 1)[:, 0]
    with torch.no_grad():
        task.prediction.weight.zero_()[labels, torch.arange(16)] = 50.0
    model.encode = lambda tokens: torch.cat([tokens[:, :1], torch.eye(16)[None]], dim=1)
    assert float(task(model, images, torch.zeros(1, dtype=torch.int64)).detach()) < 1e-6


def test_the_same_seed_gives_the_same_training_bit_for_bit(settings, make_training, make_batch):
    def trained():
        training = make_training(objective=MaskedPatches())
        state = TrainState.start(build(settings, seed=1), training)
        for step in range(3):
            train_step(state, make_batch(step).pieces(training.pieces), training).read(state)
        return dict(state.named_parameters())

    first, second = trained(), trained()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_evaluation_gives_the_same_number_each_time_and_counts_every_image(task, settings, make_source):
    torch.manual_seed(0)
    torch.nn.init.normal_(task.prediction.weight)
    evaluate, model = MaskedLoss(make_source(count=7, side=16), task, batch_size=4), build(settings)
    first = evaluate(model)
    torch.manual_seed(99)
    assert evaluate(model) == first and first["count"] == 7


def test_a_model_without_whole_patches_is_refused(make_settings):
    with pytest.raises(SettingsError, match="needs patches to mask"):
        MaskedTask(MaskedPatches(), ResNetSettings())
    from vitlab.nn.stem import ResNetStem

    odd = make_settings(image_size=Size(36, 36), stem=ResNetStem(depths=(1, 1), root_width=32), num_classes=None)
    with pytest.raises(SettingsError, match="whole patches of 8×8; use --image-size 32x32"):
        MaskedTask(MaskedPatches(), odd)


def test_shares_that_are_more_than_all_are_refused():
    with pytest.raises(
        ValueError, match=r"masked 0\.9 and replaced 0\.2 are more than 1 together; use replaced 0\.1 at most"
    ):
        MaskedPatches(masked=0.9, replaced=0.2)


@given(st.integers(1, 5), st.integers(1, 60), st.floats(0.01, 1))
def test_the_places_of_the_corrupted_patches_are_in_raster_order(images, patches, share):
    chosen = choose(images, patches, share, CPU)
    places = places_of(chosen, how_many(patches, share))
    values = torch.arange(images * patches).view(images, patches)
    assert torch.equal(values.gather(1, places).flatten(), values[chosen])
