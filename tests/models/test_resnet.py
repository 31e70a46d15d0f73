import pytest
import torch
from torch import nn
from torch.nn import functional

import vitlab
from vitlab.config import parse, to_json
from vitlab.errors import SettingsError
from vitlab.models.classifier import build, empty
from vitlab.models.resnet import ResNetSettings
from vitlab.nn.axial_resnet import AxialAttention, AxisAttention, resize_relative
from vitlab.nn.grid import Size
from vitlab.nn.resnet import PostActivation, PreActivation
from vitlab.weights.load import load_with_report
from vitlab.weights.save import save

KINDS = [PreActivation(), PostActivation(), AxialAttention()]
each_kind = pytest.mark.parametrize("unit", KINDS, ids=lambda unit: unit.type)


def small(**changes):
    shape = {"image_size": Size(32, 24), "depths": (1, 2), "root_width": 32, "num_classes": 3}
    return ResNetSettings(**{**shape, **changes})


@pytest.fixture
def make_resnet():
    """A small ResNet in which no parameter is zero, so that every part of it shows in the output."""

    def make(**changes):
        model, generator = build(small(**changes)), torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        return model.eval()

    return make


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 24, generator=torch.Generator().manual_seed(0))


@each_kind
def test_the_features_are_the_mean_of_the_last_map(make_resnet, images, unit):
    model = make_resnet(unit=unit)
    features = model.feature_map(images)
    assert features.shape == (2, 256, 4, 3)
    assert bool((features >= 0).all())
    torch.testing.assert_close(model.features(images), features.flatten(2).mean(dim=2))
    torch.testing.assert_close(model(images), model.head(model.features(images)))


@each_kind
def test_without_a_head_the_model_returns_features(make_resnet, images, unit):
    model = make_resnet(unit=unit, num_classes=None)
    assert torch.equal(model(images), model.features(images))
    assert model(images).shape == (2, 256)


@each_kind
def test_an_image_gives_the_same_logits_alone_and_in_a_batch(make_resnet, images, unit):
    model = make_resnet(unit=unit)
    torch.testing.assert_close(model(images)[1:], model(images[1:]), rtol=1e-4, atol=1e-5)


@each_kind
def test_gradients_reach_every_parameter(make_resnet, images, unit):
    model = make_resnet(unit=unit)
    functional.cross_entropy(model(images), torch.tensor([0, 2])).backward()
    assert all(bool((parameter.grad != 0).any()) for parameter in model.parameters())


def test_only_the_pre_activation_form_has_a_norm_before_its_mean(make_resnet, images):
    model = make_resnet()
    x = model.root(images)
    for stage in model.stages:
        x = stage(x)
    torch.testing.assert_close(model.feature_map(images), functional.relu(model.norm(x)))
    assert make_resnet(unit=PostActivation()).norm is None


@pytest.mark.parametrize("size", [(32, 24), (64, 64), (75, 53)])
def test_a_convolutional_model_takes_any_image(make_resnet, size):
    assert make_resnet()(torch.zeros(1, 3, *size)).shape == (1, 3)


@each_kind
def test_a_fresh_unit_adds_nothing_where_its_last_norm_precedes_the_sum(unit):
    model = build(small(unit=unit))
    last = 1.0 if isinstance(unit, PreActivation) else 0.0
    norms = {name: norm for name, norm in model.named_modules() if isinstance(norm, nn.GroupNorm)}
    assert sum(name.endswith("norm3") for name in norms) == 3
    for name, norm in norms.items():
        assert bool((norm.weight == (last if name.endswith("norm3") else 1.0)).all()), name
        assert bool((norm.bias == 0).all()), name


@each_kind
def test_a_fresh_head_is_zero_but_for_the_bias_asked_for(unit):
    model = build(small(unit=unit, head_bias=-10.0))
    assert torch.equal(model.head.weight, torch.zeros(3, 256))
    assert torch.equal(model.head.bias, torch.full((3,), -10.0))


def test_fresh_axial_attention_is_as_wide_as_its_channels_say():
    model = build(small(unit=AxialAttention(num_heads=2), root_width=64)).requires_grad_(False)
    for module in model.modules():
        if isinstance(module, AxisAttention):
            channels, dim = module.qkv.weight.shape[1], module.relative.shape[0] / 2
            assert float(module.qkv.weight.std()) == pytest.approx(1 / channels, rel=0.1)
            assert float(module.relative.std()) == pytest.approx(1 / dim, rel=0.15)


@each_kind
def test_the_same_seed_gives_the_same_values_and_another_seed_others(unit):
    first, again, other = (dict(build(small(unit=unit), seed=seed).named_parameters()) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["root.conv.weight"], other["root.conv.weight"])


@each_kind
def test_settings_survive_json(unit):
    settings = small(unit=unit, num_classes=None)
    assert parse(ResNetSettings, to_json(settings), "here") == settings


@each_kind
def test_a_model_comes_back_from_its_file(make_resnet, images, tmp_path, unit):
    model = make_resnet(unit=unit)
    save(model, tmp_path / "model.safetensors")
    assert torch.equal(vitlab.load(tmp_path / "model.safetensors").eval()(images), model(images))


@pytest.mark.parametrize("size", [(64, 40), (32, 48), (16, 8)])
def test_another_image_size_resizes_the_offsets_of_axial_attention_and_nothing_else(make_resnet, tmp_path, size):
    model, path = make_resnet(unit=AxialAttention()), tmp_path / "model.safetensors"
    save(model, path)
    loaded = load_with_report(path, image_size=size)
    lengths = {"stages.0.0": 4, "stages.1.0": 4, "stages.1.1": 8}
    for name, parameter in loaded.model.named_parameters():
        before = model.get_parameter(name)
        if name.endswith(".relative"):
            unit, axis, _ = name.rsplit(".", 2)
            before = resize_relative(before, size[axis == "columns"] // lengths[unit])
        assert torch.equal(parameter, before), name
    changed = [name.split(" ")[0] for name in loaded.report.resized]
    assert set(changed) <= {name for name, _ in model.named_parameters() if name.endswith(".relative")}
    assert len(changed) + len(loaded.report.matched) == len(list(model.parameters()))
    assert loaded.model.eval()(torch.zeros(1, 3, *size)).shape == (1, 3)


def test_another_image_size_changes_no_parameter_of_a_convolutional_model(make_resnet, tmp_path):
    model, path = make_resnet(), tmp_path / "model.safetensors"
    save(model, path)
    loaded = load_with_report(path, image_size=64)
    assert loaded.report.resized == []
    assert all(torch.equal(value, model.get_parameter(name)) for name, value in loaded.model.named_parameters())
    assert (loaded.model.image_spec.height, loaded.model.image_spec.width) == (64, 64)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("image_size", [7, 32], "image of 7×32 pixels is smaller than the stride of the model; use at least 8×8"),
        ("root_width", 48, "a root of 48 channels has no 32 groups; use 64"),
        ("root_width", 0, "root_width"),
        ("depths", [], "at least 1 item"),
        ("depths", [1] * 6, "at most 5 items"),
        ("depths", [1, 0], "depths"),
        ("num_classes", 0, "num_classes"),
        ("unit", {"type": "AxialAttention", "num_heads": 5}, "32 channels does not divide into 5 heads; use 4"),
        ("unit", {"type": "Bottleneck"}, "'unit' has no kind 'Bottleneck'"),
        ("head_bias", float("inf"), "head_bias"),
        ("width", 64, "unknown setting 'width'"),
    ],
)
def test_settings_that_cannot_be_are_refused_and_named(field, value, message):
    with pytest.raises(SettingsError, match=message) as error:
        parse(ResNetSettings, to_json(small()) | {field: value}, "config.json")
    assert "config.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_resnet_counts_its_convolutions_and_its_units():
    settings = ResNetSettings()
    assert "50 layers" in settings.describe()
    assert settings.num_layers == 16
    assert small(image_size=Size(64, 64)).floats_per_image > small().floats_per_image > 0


def test_axial_attention_says_which_size_it_was_built_for(make_resnet):
    model = make_resnet(unit=AxialAttention())
    with pytest.raises(ValueError, match=r"built for images of 32×24 pixels, not 24×32; give the size"):
        model(torch.zeros(1, 3, 24, 32))


def test_an_empty_model_has_the_shapes_of_a_built_one_without_memory():
    shapes = {name: parameter.shape for name, parameter in empty(small()).named_parameters()}
    assert shapes == {name: parameter.shape for name, parameter in build(small()).named_parameters()}
    assert all(parameter.is_meta for parameter in empty(small()).parameters())
