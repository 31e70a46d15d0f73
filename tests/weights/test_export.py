"""Our models as released files: written, and read back."""

import numpy as np
import pytest
import torch

from vitlab.data.preprocess import ImageSpec
from vitlab.errors import WeightsError
from vitlab.models.classifier import build
from vitlab.models.resnet import ResNetSettings
from vitlab.models.vit import Axial
from vitlab.nn.grid import Size
from vitlab.nn.patches import Patches
from vitlab.nn.pooling import AttentionPool, Mean
from vitlab.nn.position import Learned1D, Learned2D, NoPosition, Relative, SinCos2D
from vitlab.nn.resnet import PostActivation
from vitlab.nn.stem import ResNetStem
from vitlab.weights import official
from vitlab.weights.load import load, load_with_report

HELD = [
    {},
    {"representation_dim": 6},
    {"pool": Mean()},
    {"pool": Mean(), "position": Learned1D(class_token=False)},
    {"num_classes": None},
    {"stem": Patches(patch_size=Size(2, 4)), "num_heads": 4},
    {"stem": ResNetStem(depths=(1, 2), root_width=32, patch_size=Size(1, 2)), "image_size": Size(32, 64)},
    {"dropout": 0.1, "stochastic_depth": 0.1, "head_bias": -10.0},
]


@pytest.mark.parametrize("changes", HELD)
def test_a_model_comes_back_bit_by_bit(tmp_path, make_model, changes):
    model = make_model(**changes)
    (tmp_path / "out.npz").write_bytes(official.npz_bytes(official.export(model)))
    loaded = load_with_report(tmp_path / "out.npz", trained_size=tuple(model.settings.image_size))
    assert loaded.report.extra == []
    parameters = dict(loaded.model.named_parameters())
    assert set(parameters) == {name for name, _ in model.named_parameters()}
    assert all(torch.equal(parameter, parameters[name]) for name, parameter in model.named_parameters())
    unsaid = {"dropout": 0.0, "stochastic_depth": 0.0, "head_bias": 0.0, "position": Learned1D()}
    assert loaded.model.settings == model.settings.model_copy(update=unsaid)
    images = torch.randn(2, 3, *model.settings.image_size)
    assert torch.equal(loaded.model.eval()(images), model(images))


@pytest.mark.parametrize("changes", HELD)
def test_what_was_read_is_what_is_exported(make_npz, make_settings, changes):
    path = make_npz(**changes)
    exported = official.export(load(path, trained_size=tuple(make_settings(**changes).image_size)))
    with np.load(path) as file:
        assert set(exported) == set(file.files)
        for name, array in exported.items():
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, file[name], err_msg=name)


def test_a_written_file_is_the_same_bytes_each_time_and_readable_by_numpy(tmp_path, make_model):
    model = make_model()
    for name in ("one.npz", "two.npz"):
        (tmp_path / name).write_bytes(official.npz_bytes(official.export(model)))
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.npz", "two.npz"]
    with np.load(tmp_path / "one.npz") as file:
        assert set(file.files) == set(official.export(model))
        assert "Transformer/encoderblock_1/MlpBlock_3/Dense_0/kernel" in file.files


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"pool": AttentionPool()}, "pool .*AttentionPool"),
        ({"pool": Mean(class_token=True)}, "pool .*Mean"),
        ({"pool": Mean(norm="mean")}, "pool .*Mean"),
        ({"position": Learned1D(class_token=False)}, "position .*Learned1D"),
        ({"position": Learned1D(place="layers")}, "position .*Learned1D"),
        ({"position": Learned2D()}, "position .*Learned2D"),
        ({"position": SinCos2D()}, "position .*SinCos2D"),
        ({"position": Relative()}, "position .*Relative"),
        ({"position": NoPosition()}, "position .*NoPosition"),
        ({"pool": Mean(), "attention": Axial()}, "attention .*Axial"),
        ({"registers": 4}, "registers 4"),
        ({"activation": "gelu"}, "activation gelu"),
        ({"qkv_bias": False}, "qkv_bias False"),
        ({"norm_eps": 1e-12}, "norm_eps 1e-12"),
        ({"layer_scale": 0.1}, r"layer_scale 0\.1"),
        (
            {"stem": ResNetStem(depths=(1,), root_width=32, unit=PostActivation(norm_eps=1e-5)), "image_size": 32},
            "stem.unit .*PostActivation",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_released_file_cannot_hold_is_refused_in_one_line(make_model, changes, what):
    with pytest.raises(
        WeightsError, match=rf"released \.npz layout has no place for {what}.*; use vitlab convert --to vitlab$"
    ) as error:
        official.export(make_model(**changes))
    assert "\n" not in str(error.value)


def test_another_kind_of_model_or_image_is_refused(make_model):
    with pytest.raises(WeightsError, match=r"no place for a ResNet; use vitlab convert --to vitlab$"):
        official.export(build(ResNetSettings(depths=(1,), root_width=32, num_classes=3)))
    model = make_model()
    model.image_spec = ImageSpec(height=8, width=8, mean=(0.4, 0.4, 0.4))
    with pytest.raises(WeightsError, match="range of pixel values"):
        official.export(model)
