import zipfile

import numpy as np
import pytest
import torch

from vitlab.errors import WeightsError
from vitlab.models.classifier import empty
from vitlab.models.resnet import ResNetSettings
from vitlab.nn.grid import Size
from vitlab.weights.bit import HEAD, ROOT, canonical, file_shape, is_bit, name_table, settings_of, to_ours
from vitlab.weights.load import load, load_with_report

SMALL = ResNetSettings(depths=(1, 2), root_width=32, num_classes=3)
FIRST, LAST = "resnet/block1/unit01", "resnet/block2/unit02"


def parameters(settings):
    return {name: tuple(parameter.shape) for name, parameter in empty(settings).named_parameters()}


def arrays_of(settings):
    """The arrays of a released file with random values."""
    rng, table = np.random.default_rng(0), name_table(settings)
    return {
        table[ours]: rng.normal(size=file_shape(shape)).astype(np.float32)
        for ours, shape in parameters(settings).items()
    }


@pytest.fixture
def make_npz(tmp_path):
    """A released file of a small BiT; `arrays` replaces some arrays, None leaves one out."""

    def make(arrays=None, settings=SMALL):
        path, content = tmp_path / "BiT.npz", arrays_of(settings) | (arrays or {})
        np.savez(path, **{name: array for name, array in content.items() if array is not None})
        return path

    return make


@pytest.mark.parametrize("settings", [SMALL, SMALL.model_copy(update={"num_classes": None})])
def test_every_parameter_has_one_name_in_the_file(settings):
    table = name_table(settings)
    assert set(table) == set(parameters(settings))
    assert len(set(table.values())) == len(table)


@pytest.mark.parametrize(
    "settings",
    [
        SMALL,
        SMALL.model_copy(update={"num_classes": None}),
        ResNetSettings(depths=(1,), root_width=64, num_classes=2),
        ResNetSettings(depths=(1, 1, 11), root_width=32, num_classes=2, image_size=Size(64, 96)),
    ],
)
def test_the_settings_come_back_from_the_shapes_of_the_file(settings, tmp_path):
    shapes = {name: array.shape for name, array in arrays_of(settings).items()}
    assert is_bit(shapes)
    size = None if settings.image_size == Size(224, 224) else settings.image_size
    assert settings_of(tmp_path, shapes, size) == settings


@pytest.mark.parametrize("number", ["", "_1", "_42"])
def test_the_numbers_of_convolutions_say_nothing(make_npz, tmp_path, number):
    plain, path = arrays_of(SMALL), tmp_path / "numbered.npz"
    numbered = {name.replace("standardized_conv2d/", f"standardized_conv2d{number}/"): plain[name] for name in plain}
    assert {canonical(name) for name in numbered} == set(plain)
    np.savez(path, **numbered)
    model, report = load(path), load_with_report(path).report
    assert report.lines() == [f"{len(plain)} parameters matched"]
    expected = load(make_npz())
    assert all(torch.equal(value, expected.get_parameter(name)) for name, value in model.named_parameters())


def test_kernels_are_transposed(make_npz):
    model, arrays = load(make_npz()).requires_grad_(False), arrays_of(SMALL)
    kernel = arrays[f"{LAST}/b/standardized_conv2d/kernel"]
    assert float(model.stages[1][1].conv2.weight[5, 7, 0, 2]) == kernel[0, 2, 7, 5]
    assert float(model.head.weight[2, 9]) == arrays[f"{HEAD}/kernel"][0, 0, 9, 2]
    gamma = arrays[f"{FIRST}/a/group_norm/gamma"]
    assert float(model.stages[0][0].norm1.weight[3]) == gamma[3]
    assert torch.equal(to_ours(kernel, model.stages[1][1].conv2.weight.shape), model.stages[1][1].conv2.weight)


def test_another_number_of_classes_replaces_the_head_and_nothing_else(make_npz):
    loaded = load_with_report(make_npz(), num_classes=5)
    assert loaded.report.replaced == ["head.weight", "head.bias"]
    assert torch.equal(loaded.model.head.weight, torch.zeros(5, 512 // 2))
    assert len(loaded.report.matched) == len(name_table(SMALL)) - 2


def test_any_image_size_will_do(make_npz):
    loaded = load_with_report(make_npz(), image_size=(40, 24))
    assert loaded.report.resized == []
    assert loaded.model.settings.image_size == Size(40, 24)
    assert loaded.model(torch.zeros(1, 3, 40, 24)).shape == (1, 3)


CONV = f"{FIRST}/a/standardized_conv2d/kernel"


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        ({ROOT: None}, "no model that is known here"),
        ({ROOT: np.float32(1)}, "is not a complete BiT"),
        ({ROOT: np.ones((7, 7, 3, 33), np.float32)}, "a root of 33 channels has no 32 groups"),
        ({ROOT: np.ones((7, 7, 1, 32), np.float32)}, rf"'{ROOT}' has shape \[7, 7, 1, 32\], not \[7, 7, 3, 32\]"),
        ({f"{HEAD}/kernel": np.float32(1)}, "is not a complete BiT"),
        ({f"{HEAD}/bias": np.ones(4, np.float32)}, "'resnet/head/conv2d/bias' has shape"),
        ({"resnet/group_norm/beta": None}, "'norm.bias' is missing"),
        ({f"{LAST}/c/group_norm/gamma": None}, "'stages.1.1.norm3.weight' is missing"),
        ({f"{LAST}/c/group_norm/gamma": np.full(64, np.nan, np.float32)}, "holds values that are not finite"),
        ({f"{FIRST}/a/proj/standardized_conv2d/kernel": None}, "'stages.0.0.conv_proj.weight' is missing"),
        ({name: None for name in arrays_of(SMALL) if "/block" in name}, "at least 1 item"),
        ({f"resnet/block{stage}/unit01/a/standardized_conv2d/kernel": np.ones(1) for stage in range(3, 9)}, "most 5"),
        ({CONV: np.ones((1, 1, 32, 32), complex)}, "holds no real numbers"),
        ({CONV: np.ones((32, 32), np.float32)}, r"has shape \[32, 32\], not \[1, 1, 32, 32\]"),
    ],
    ids=range(14),
)
def test_a_file_that_is_no_whole_bit_is_refused_in_one_line(make_npz, arrays, what):
    with pytest.raises(WeightsError, match=what) as error:
        load(make_npz(arrays))
    assert "BiT.npz" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_with_a_unit_between_left_out_is_refused(make_npz):
    gap = {name: None for name in arrays_of(SMALL) if name.startswith("resnet/block2/unit01")}
    with pytest.raises(WeightsError, match=r"which no model known here has|is missing"):
        load(make_npz(gap))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_refused_in_one_line(make_npz, share):
    path = make_npz()
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(WeightsError) as error:
        load(path)
    assert "\n" not in str(error.value)


def test_a_file_with_a_changed_byte_is_refused(make_npz):
    path = make_npz()
    with zipfile.ZipFile(path) as file:
        place = file.getinfo(f"{CONV}.npy").header_offset
    content = bytearray(path.read_bytes())
    content[place + 300] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(WeightsError) as error:
        load(path)
    assert "\n" not in str(error.value)


def test_an_image_smaller_than_the_stride_is_refused_in_one_line(make_npz):
    with pytest.raises(
        WeightsError, match="7×7 pixels is smaller than the stride of the model; use at least 8×8"
    ) as error:
        load(make_npz(), trained_size=7)
    assert "\n" not in str(error.value)
