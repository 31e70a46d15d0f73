import pytest
import torch

from vitlab.inspection.attention import attention_by_layer, attention_from, readout, rollout
from vitlab.nn.grid import Size
from vitlab.nn.pooling import AttentionPool, FirstPatch, Mean


@pytest.fixture
def images():
    return torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def wide(make_model):
    return lambda **changes: make_model(image_size=Size(8, 12), **changes)


def test_every_layer_gives_the_weights_of_its_own_input(wide, images):
    model = wide(depth=3)
    layers = list(attention_by_layer(model, images))
    assert [weights.shape for weights in layers] == [torch.Size([2, 2, 7, 7])] * 3
    with torch.inference_mode():
        tokens = model.embed(images)
        for weights, block in zip(layers, model.encoder.layers, strict=True):
            torch.testing.assert_close(weights, block.attention.weights(block.norm1(tokens)))
            tokens = block(tokens)


def test_one_layer_is_computed_at_a_time(wide, images):
    """The first weights come before anything above them is computed: here the layer above would fail."""
    model = wide()
    model.encoder.layers[1].forward = lambda *_: pytest.fail("the second layer was computed")
    next(attention_by_layer(model, images))


def test_inspection_sees_the_model_without_dropout(wide, images):
    model = wide(dropout=0.5).train()
    first, again = (torch.stack(list(attention_by_layer(model, images))) for _ in range(2))
    assert torch.equal(first, again)


@pytest.mark.parametrize("changes", [{}, {"pool": Mean()}, {"depth": 1}])
def test_rollout_is_a_map_on_the_grid_with_a_peak_of_one(wide, images, changes):
    maps = rollout(wide(**changes), images)
    assert maps.shape == (2, 2, 3)
    assert bool((maps >= 0).all())
    torch.testing.assert_close(maps.amax(dim=(1, 2)), torch.ones(2))


@pytest.mark.parametrize("changes", [{}, {"pool": Mean()}])
def test_even_attention_reaches_every_patch_alike(wide, images, changes):
    model = wide(**changes)
    with torch.no_grad():
        for block in model.encoder.layers:
            block.attention.query.weight.zero_()
            block.attention.query.bias.zero_()
    torch.testing.assert_close(rollout(model, images), torch.ones(2, 2, 3))


def test_rollout_of_one_layer_is_its_mean_attention_from_the_class_token(wide, images):
    model = wide(depth=1)
    weights = next(attention_by_layer(model, images)).mean(dim=1)[:, 0, 1:]
    expected = (weights / weights.amax(dim=1, keepdim=True)).unflatten(1, (2, 3))
    torch.testing.assert_close(rollout(model, images), expected)


def test_an_image_has_the_same_map_alone_and_in_a_batch(wide, images):
    model = wide()
    torch.testing.assert_close(rollout(model, images)[1:], rollout(model, images[1:]))


def test_attention_from_a_patch_is_its_row_in_every_layer_and_head(wide, images):
    model = wide(registers=2)
    found = attention_from(model, images, (1, 2))
    assert found.shape == (2, 2, 2, 2, 3)
    for layer, weights in enumerate(attention_by_layer(model, images)):
        torch.testing.assert_close(found[:, layer].flatten(2), weights[:, :, 3 + 5, 3:])


def test_the_output_looks_as_the_tokens_do_that_are_pooled(wide, images):
    for changes, rows in (({}, slice(0, 1)), ({"pool": FirstPatch(), "registers": 1}, slice(1, 2))):
        model = wide(**changes)
        prefix = model.settings.num_prefix
        for layer, weights in enumerate(attention_by_layer(model, images)):
            expected = weights[:, :, rows, prefix:].mean(dim=2)
            torch.testing.assert_close(attention_from(model, images)[:, layer].flatten(2), expected)
    for pool in (Mean(), AttentionPool()):
        model = wide(pool=pool)
        first = next(attention_by_layer(model, images)).mean(dim=2)
        torch.testing.assert_close(attention_from(model, images)[:, 0].flatten(2), first)
        assert readout(model).tolist() == pytest.approx([1 / 6] * 6)


def test_a_patch_outside_the_grid_is_refused(wide, images):
    for patch in ((2, 0), (0, 3), (-1, 0)):
        with pytest.raises(ValueError, match="no patch"):
            attention_from(wide(), images, patch)
