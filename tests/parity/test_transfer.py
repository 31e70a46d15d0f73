"""Adapting a checkpoint to another resolution and head against the official `load_pretrained`."""

import numpy as np
import pytest
import torch

from vitlab.nn.grid import Grid
from vitlab.nn.position import resize_table
from vitlab.weights.load import load_with_report
from vitlab.weights.official import LINEN, name_table, to_ours

CASES = {
    "finetune_64to96_dropheads": {"num_classes": 5, "image_size": 96},
    "finetune_56to84_keeprep": {"num_classes": 4, "image_size": 84, "representation": True},
    "finetune_gap_64to48": {"num_classes": 4, "image_size": 48},
}
RESIZES = ["14to24", "7to12", "14to10", "16to37", "24to14", "12to7", "14to14", "14to28", "4to32", "2to3", "14to1"]


@pytest.mark.parametrize("name", CASES)
def test_an_adapted_checkpoint_has_the_official_parameters(golden, agree, to_images, name):
    case = golden(f"official_vit/{name}")
    model = load_with_report(case.path("params_released_naming"), **CASES[name]).model.eval()
    io, table = case.arrays("io"), name_table(model.settings, LINEN)
    expected = {name.removeprefix("param:"): array for name, array in io.items() if name.startswith("param:")}
    assert set(table.values()) == set(expected)
    for ours, parameter in model.named_parameters():
        wanted = to_ours(ours, expected[table[ours]], tuple(parameter.shape))
        agree(f"{case.name} parameters", parameter, wanted, atol=1e-6 if ours == "position.table" else 0.0)
    with torch.inference_mode():
        features = model.features(to_images(io["input"]))
    agree(f"{case.name} features", features, io["pre_head"], **case.tolerance["pre_head"])


@pytest.mark.parametrize("name", RESIZES)
def test_positions_are_resized_as_the_official_code_does(golden, agree, name):
    case = golden(f"posemb/{name}")
    arrays = {name: torch.from_numpy(array) for name, array in case.arrays("npz").items()}
    old, new = (Grid(side, side) for side in (case.config["old_grid"], case.config["new_grid"]))
    without = resize_table(arrays["pos_embedding"], 0, old, new)
    agree(case.name, without, arrays["official"], atol=case.tolerance["atol"])
    with_token = resize_table(arrays["pos_embedding_with_cls"], 1, old, new)
    agree(case.name, with_token, arrays["official_with_cls"], atol=case.tolerance["atol"])
    assert torch.equal(with_token[:, 0], arrays["pos_embedding_with_cls"][:, 0])


@pytest.mark.parametrize("name", ["quirk_16to30", "quirk_24to22"])
def test_where_the_official_resize_returns_zeros_ours_interpolates(golden, agree, name):
    case = golden(f"posemb/{name}")
    arrays = {name: torch.from_numpy(array) for name, array in case.arrays("npz").items()}
    old, new = (Grid(side, side) for side in (case.config["old_grid"], case.config["new_grid"]))
    ours = resize_table(arrays["pos_embedding"], 0, old, new)
    agree(case.name, ours, arrays["align_corners_bilinear"], **case.tolerance["align_corners_bilinear"])
    assert not torch.allclose(ours, arrays["official"], atol=1e-3)


def test_no_pair_of_grids_leaves_zeros_at_the_border(golden):
    pairs = golden("posemb/scipy_zoom_bad_pairs").json()["pairs_old_new"]
    assert len(pairs) > 40
    for old, new in pairs:
        ones = resize_table(torch.ones(1, old * old, 2), 0, Grid(old, old), Grid(new, new))
        torch.testing.assert_close(ones, torch.ones(1, new * new, 2))


def interpolate(values, count):
    """Linear interpolation along the first axis with aligned ends, in float64."""
    places = np.linspace(0, len(values) - 1, count)
    below = np.minimum(places.astype(int), len(values) - 2)
    part = (places - below).reshape(-1, *[1] * (values.ndim - 1))
    return values[below] * (1 - part) + values[below + 1] * part


@pytest.mark.parametrize(("old", "new"), [((3, 5), (7, 4)), ((14, 14), (10, 18)), ((6, 2), (6, 9))])
def test_a_grid_that_is_not_square_is_resized_along_each_axis(agree, old, new):
    table = np.random.default_rng(0).normal(size=(*old, 6))
    expected = interpolate(interpolate(table, new[0]).swapaxes(0, 1), new[1]).swapaxes(0, 1).reshape(1, -1, 6)
    token = torch.full((1, 1, 6), 9.0)
    flat = torch.cat([token, torch.from_numpy(table.reshape(1, -1, 6)).float()], dim=1)
    resized = resize_table(flat, 1, Grid(*old), Grid(*new))
    assert torch.equal(resized[:, :1], token)
    agree(f"posemb (by hand) {old} -> {new}", resized[:, 1:], expected, atol=2e-6)
