"""Released files of hybrids: what is read from them, and what is refused."""

import numpy as np
import pytest
import torch

from vitlab.errors import WeightsError
from vitlab.nn.grid import Grid, Size
from vitlab.nn.stem import ResNetStem
from vitlab.weights.load import load, load_with_report
from vitlab.weights.save import save

STEM = ResNetStem(depths=(1, 2), root_width=32, patch_size=Size(2, 2))
HYBRID = {"stem": STEM, "image_size": Size(32, 32)}


def test_a_hybrid_is_matched_completely_and_its_stem_known(make_npz, make_settings):
    loaded = load_with_report(make_npz(**HYBRID))
    assert loaded.model.settings == make_settings(**HYBRID)
    assert loaded.report.lines() == [f"{len(list(loaded.model.parameters()))} parameters matched"]


def test_norms_with_three_ones_before_the_channels_are_those_without(make_npz, make_arrays, make_settings):
    plain = make_arrays(make_settings(**HYBRID))
    norms = {
        name: array.reshape(1, 1, 1, -1) for name, array in plain.items() if "/gn" in name or name.startswith("gn")
    }
    assert len(norms) == 2 * (1 + 3 * 3 + 2)
    expected, model = load(make_npz(**HYBRID)), load(make_npz(norms, **HYBRID))
    assert all(torch.equal(value, expected.get_parameter(name)) for name, value in model.named_parameters())


def test_another_image_size_resizes_positions_and_nothing_else(make_npz):
    path = make_npz(**HYBRID)
    before, loaded = load(path), load_with_report(path, image_size=(64, 48))
    assert loaded.model.settings.grid == Grid(4, 3)
    assert loaded.report.resized == ["position.table 2×2 -> 4×3"]
    for name, parameter in loaded.model.named_parameters():
        assert name == "position.table" or torch.equal(parameter, before.get_parameter(name))
    assert loaded.model(torch.zeros(1, 3, 64, 48)).shape == (1, 3)


def test_a_hybrid_comes_back_from_our_file(make_model, tmp_path):
    model = make_model(**HYBRID)
    save(model, tmp_path / "model.safetensors")
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(load(tmp_path / "model.safetensors").eval()(images), model(images))


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        ({"conv_root/kernel": np.ones((7, 7, 3, 33), np.float32)}, "a root of 33 channels has no 32 groups"),
        ({"conv_root/kernel": np.ones((7, 7, 1, 32), np.float32)}, "images of 1 channels"),
        ({"conv_root/kernel": np.ones(7, np.float32)}, "is not a complete ViT"),
        ({"conv_root/kernel": None}, "images of 256 channels"),
        ({"block2/unit2/gn3/scale": None}, "'stem.stages.1.1.norm3.weight' is missing"),
        ({"block1/unit1/conv_proj/kernel": None}, "'stem.stages.0.0.conv_proj.weight' is missing"),
        ({"block2/unit1/conv2/kernel": np.ones((3, 3, 64, 32), np.float32)}, r"not \[3, 3, 64, 64\]"),
        ({"embedding/kernel": np.ones((0, 2, 256, 16), np.float32)}, "patch_size"),
    ],
    ids=range(8),
)
def test_a_file_that_is_no_whole_hybrid_is_refused_in_one_line(make_npz, arrays, what):
    with pytest.raises(WeightsError, match=what) as error:
        load(make_npz(arrays, **HYBRID))
    assert "\n" not in str(error.value)
