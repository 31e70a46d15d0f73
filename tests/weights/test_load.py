import json

import numpy as np
import pytest
import safetensors.torch
import torch

from vitlab.config import to_json
from vitlab.data.preprocess import ImageSpec
from vitlab.errors import SettingsError, WeightsError
from vitlab.models.classifier import build
from vitlab.models.resnet import ResNetSettings
from vitlab.nn.grid import Grid, Size
from vitlab.nn.pooling import Mean
from vitlab.nn.position import Relative, resize_table
from vitlab.weights.convert import convert
from vitlab.weights.load import find, fit, load, load_with_report, read
from vitlab.weights.save import HEADER, Header, save


@pytest.fixture
def saved(tmp_path, make_model):
    def make(**changes):
        model = make_model(classes=("ant", "bee", "cat"), representation_dim=6, **changes)
        save(model, tmp_path / "model.safetensors")
        return model, tmp_path / "model.safetensors"

    return make


def altered(path, model, change, image_spec=None):
    """Write our file with its tensors changed."""
    tensors = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    change(tensors)
    header = Header(settings=model.settings, image_spec=image_spec or model.image_spec, classes=model.classes)
    path.write_bytes(safetensors.torch.save(tensors, {HEADER: json.dumps(to_json(header))}))
    return path


def test_a_released_file_is_matched_completely(make_npz, make_settings):
    model, report = load_with_report(make_npz()).model, load_with_report(make_npz()).report
    assert model.settings == make_settings()
    assert set(report.matched) == {name for name, _ in model.named_parameters()}
    assert report.lines() == [f"{len(report.matched)} parameters matched"]


def test_another_number_of_classes_replaces_the_head_and_drops_the_representation(make_npz):
    loaded = load_with_report(make_npz(representation_dim=6), num_classes=5)
    assert loaded.report.replaced == ["head.weight", "head.bias"]
    assert loaded.report.dropped == ["representation.weight", "representation.bias"]
    assert loaded.model.representation is None
    assert torch.equal(loaded.model.head.weight, torch.zeros(5, 16))
    assert torch.equal(loaded.model.head.bias, torch.zeros(5))
    assert "+ dropped  representation.bias" in loaded.report.lines()


def test_the_representation_layer_can_be_kept(make_npz):
    loaded = load_with_report(make_npz(representation_dim=6), num_classes=5, representation=True)
    assert loaded.report.dropped == []
    assert "representation.weight" in loaded.report.matched
    assert loaded.model.head.weight.shape == (5, 6)


def test_the_same_number_of_classes_keeps_the_head(saved):
    model, path = saved()
    loaded = load_with_report(path, num_classes=3)
    assert loaded.report.replaced == []
    assert torch.equal(loaded.model.head.weight, model.head.weight)
    assert loaded.model.classes == ("ant", "bee", "cat")


@pytest.mark.parametrize("count", [0, -1])
def test_a_head_of_no_classes_is_refused(saved, count):
    with pytest.raises(SettingsError, match=f"^num_classes: is {count}; a head has at least one class$"):
        load(saved()[1], num_classes=count)


@pytest.mark.parametrize("to", ["vitlab", "timm", "huggingface", "official"])
def test_the_caller_may_not_say_otherwise_than_the_file(make_model, tmp_path, to):
    out = convert(make_model(), tmp_path / "out", to)
    with pytest.raises(WeightsError, match=r"num_heads is 4, but 2 in the file; leave num_heads out$"):
        load(out, num_heads=4)
    size = (
        "4 positions, not the 4×4 of 16×16" if to == "official" else "trained_size is 16×16, but 8×8 in the file; leave"
    )
    with pytest.raises(WeightsError, match=size):
        load(out, trained_size=16)
    assert load(out, trained_size=8, num_heads=2).settings.num_heads == 2


def test_a_resnet_has_no_heads_for_the_caller_to_say(tmp_path):
    model = build(ResNetSettings(image_size=Size(8, 8), depths=(1,), root_width=32, num_classes=2))
    with pytest.raises(WeightsError, match="num_heads is 4, but none in the file"):
        load(convert(model, tmp_path / "out", "vitlab"), num_heads=4)


def test_what_the_caller_says_is_what_to_check(make_npz):
    with pytest.raises(WeightsError, match=r"smaller than one patch.*; check trained_size and num_heads, or get"):
        load(make_npz(), trained_size=3, num_heads=2)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_a_config_beside_a_file_that_needs_none_is_not_opened(saved, make_npz, tmp_path, name):
    (tmp_path / name).write_text("{")
    assert load(saved()[1]).classes == ("ant", "bee", "cat")
    assert load(make_npz()).settings.width == 16


def test_a_new_head_forgets_the_class_names_and_the_bias_it_started_from(saved):
    _, path = saved(head_bias=-10.0)
    model = load(path, num_classes=2)
    assert model.classes == ()
    assert torch.equal(model.head.bias, torch.zeros(2))


def test_a_head_whose_layer_before_it_is_dropped_is_new_in_every_way(saved):
    _, path = saved(head_bias=-10.0)
    loaded = load_with_report(path, representation=False)
    assert loaded.report.replaced == ["head.weight", "head.bias"]
    assert loaded.model.classes == () and loaded.model.settings.head_bias == 0.0
    assert torch.equal(loaded.model.head.bias, torch.zeros(3))


@pytest.mark.parametrize(("size", "grid"), [(12, Grid(3, 3)), ((8, 16), Grid(2, 4)), (8, Grid(2, 2))])
def test_another_image_size_resizes_positions_and_nothing_else(saved, size, grid):
    model, path = saved()
    loaded = load_with_report(path, image_size=size)
    assert loaded.model.settings.grid == grid
    assert (loaded.model.image_spec.height, loaded.model.image_spec.width) == tuple(loaded.model.settings.image_size)
    expected = resize_table(model.position.table, 1, Grid(2, 2), grid)
    torch.testing.assert_close(loaded.model.position.table, expected)
    assert loaded.report.resized == ([] if grid == Grid(2, 2) else [f"position.table 2×2 -> {grid}"])
    for name, parameter in loaded.model.named_parameters():
        assert name == "position.table" or torch.equal(parameter, model.get_parameter(name))


def test_a_size_with_the_same_grid_needs_no_resize(saved):
    _, path = saved()
    assert load_with_report(path, image_size=10).report.resized == []


def test_an_image_smaller_than_a_patch_is_refused(saved):
    _, path = saved()
    with pytest.raises(SettingsError, match="smaller than one patch"):
        load(path, image_size=3)


def test_an_array_inside_the_model_that_fits_nothing_is_refused(make_npz):
    stray = {"Transformer/encoderblock_0/LayerScale_0/scale": np.ones(16, np.float32)}
    with pytest.raises(WeightsError, match="has 'Transformer/encoderblock_0/LayerScale_0/scale', which no model"):
        load(make_npz(stray))


def test_arrays_that_fit_nothing_are_reported_as_extra(make_npz, saved):
    report = load_with_report(make_npz({"opt/step": np.zeros(3, np.float32)})).report
    assert report.extra == ["opt/step"]
    assert "+ extra    opt/step" in report.lines()
    model, path = saved()
    altered(path, model, lambda tensors: tensors.update(stray=torch.zeros(2)))
    assert load_with_report(path).report.extra == ["stray"]


NORM = "Transformer/encoderblock_1/LayerNorm_2/scale"
QUERY = "Transformer/encoderblock_1/MultiHeadDotProductAttention_1/query/kernel"


@pytest.mark.parametrize(
    ("name", "array", "what"),
    [
        (NORM, None, "'encoder.blocks.1.norm2.weight' is missing"),
        (NORM, np.ones(15, np.float32), f"'{NORM}' has shape \\[15\\], not \\[16\\]"),
        (NORM, np.ones((16, 1), np.float32), f"'{NORM}' has shape \\[16, 1\\], not \\[16\\]"),
        (NORM, np.full(16, np.nan, np.float32), "'encoder.blocks.1.norm2.weight' holds values that are not finite"),
        (NORM, np.full(16, np.inf, np.float32), "'encoder.blocks.1.norm2.weight' holds values that are not finite"),
        (QUERY, np.ones((16, 4, 4), np.float32), "MultiHeadDotProductAttention_1/query/kernel' has shape"),
        ("head/bias", np.zeros(4, np.float32), "'head/bias' has shape"),
        ("Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel", None, "is not a complete ViT"),
        ("embedding/kernel", np.ones((4, 4, 1, 16), np.float32), "1 channels"),
        ("embedding/kernel", np.ones((48, 16), np.float32), "is not a complete ViT"),
        ("Transformer/posembed_input/pos_embedding", np.ones((1, 7, 16), np.float32), "6 positions, not a square grid"),
        ("Transformer/encoder_norm/scale", None, "no model that is known here"),
    ],
    ids=lambda value: "" if isinstance(value, np.ndarray | None) else value[:40],
)
def test_a_released_file_that_is_no_whole_vit_is_refused(make_npz, name, array, what):
    with pytest.raises(WeightsError, match=what):
        load(make_npz({name: array}))


FIRST = "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel"


@pytest.mark.parametrize(
    ("name", "array"),
    [
        (FIRST, np.ones((16, 5, 3), np.float32)),
        (FIRST, np.ones((16, 0, 3), np.float32)),
        ("embedding/kernel", np.ones((0, 4, 3, 16), np.float32)),
        ("head/bias", np.array(["a", "b", "c"])),
        ("head/bias", np.zeros(3, np.complex64)),
        ("head/bias", np.zeros(3, "V3")),
    ],
    ids=["heads that do not divide", "no heads", "no patch", "words", "complex numbers", "bytes"],
)
def test_a_released_file_with_impossible_arrays_is_refused(make_npz, name, array):
    with pytest.raises(WeightsError):
        load(make_npz({name: array}))


def test_a_grid_that_is_not_square_is_read_with_the_trained_size(make_npz):
    path = make_npz(image_size=Size(8, 12))
    with pytest.raises(
        WeightsError, match=r"give trained_size=\(height, width\), or vitlab convert --trained-size HEIGHTxW"
    ):
        load(path)
    with pytest.raises(WeightsError, match=r"3×3 pixels is smaller than one patch.*check trained_size"):
        load(path, trained_size=3)
    with pytest.raises(WeightsError, match="6 positions, not the 2×2 of 8×8"):
        load(path, trained_size=8)
    assert load(path, trained_size=(8, 12)).settings.grid == Grid(2, 3)
    assert load(path, trained_size=(8, 12), image_size=16).settings.grid == Grid(4, 4)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda t: t.pop("encoder.norm.bias"), "'encoder.norm.bias' is missing"),
        (lambda t: t.update({"head.bias": torch.zeros(4)}), r"'head.bias' has shape \[4\], not \[3\]"),
        (lambda t: t["class_token"].fill_(float("nan")), "'class_token' holds values that are not finite"),
    ],
)
def test_our_file_with_a_bad_parameter_is_refused_and_the_parameter_named(saved, change, what):
    model, path = saved()
    with pytest.raises(WeightsError, match=what) as error:
        load(altered(path, model, change))
    assert str(path) in str(error.value)


def test_a_position_table_of_another_grid_is_refused_even_when_it_would_be_resized(saved):
    model, path = saved()
    altered(path, model, lambda tensors: tensors.update({"position.table": torch.zeros(1, 7, 16)}))
    for size in (None, 16):
        with pytest.raises(WeightsError, match=r"position\.table|table of 7 rows"):
            load(path, image_size=size)


@pytest.mark.parametrize(
    ("old", "new"),
    [({}, {"pool": Mean()}), ({"position": Relative(), "registers": 3}, {"position": Relative(), "registers": 0})],
    ids=["a row less", "fewer tokens"],
)
@pytest.mark.parametrize("size", [Size(8, 8), Size(12, 16)], ids=str)
def test_positions_that_do_not_fit_are_refused_at_any_size(saved, make_settings, old, new, size):
    _, path = saved(**old)
    other = make_settings(**new, image_size=size, representation_dim=6)
    with pytest.raises(WeightsError, match=r"'.*\.table' has shape"):
        fit(read(path), path, other, ImageSpec(), ())


def test_a_safetensors_file_of_another_library_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors.torch.save({"vit.embeddings.cls_token": torch.zeros(1, 1, 8)}))
    with pytest.raises(WeightsError, match=r"no model that is known here \(its arrays: vit\.embeddings\.cls_token"):
        load(path)


HEADERS = {
    "cut off": "{",
    "no object": "[1]",
    "a name": '"B/16"',
    "no settings": "{}",
    "a width below zero": '{"settings": {"width": -1}, "image_spec": {}, "classes": []}',
    "an unknown field": '{"settings": {"hidden": 8}, "image_spec": {}, "classes": []}',
    "too few class names": '{"settings": {"num_classes": 3}, "image_spec": {}, "classes": ["cat"]}',
    "a depth that no memory could hold": '{"settings": {"depth": 1000000000}, "image_spec": {}, "classes": []}',
}


@pytest.mark.parametrize("text", HEADERS.values(), ids=HEADERS.keys())
def test_a_header_that_does_not_describe_the_file_is_refused(tmp_path, text):
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors.torch.save({"head.bias": torch.zeros(3)}, {"vitlab": text}))
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        load(path)


def test_a_run_folder_is_a_name_for_its_model(saved):
    model, path = saved()
    assert find(path) == path
    assert find(path.parent) == path
    assert torch.equal(load(path.parent).head.weight, model.head.weight)


def test_a_folder_without_a_finished_model_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"holds no model\.safetensors.*--resume"):
        load(tmp_path)


def test_loading_draws_nothing_from_the_global_generator(saved):
    _, path = saved()
    state = torch.get_rng_state()
    load(path, num_classes=2, image_size=16)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_transform_of_a_released_file_is_the_papers_at_the_size_of_the_file(make_npz):
    assert to_json(load(make_npz()).image_spec) == to_json(ImageSpec(height=8, width=8))


def test_without_other_class_names_the_head_is_kept(saved):
    model, path = saved()
    contents = read(path)
    kept = fit(contents, path, model.settings, model.image_spec, ()).model
    fresh = fit(contents, path, model.settings, model.image_spec, ("ant", "bee", "dog")).model
    assert torch.equal(kept.head.weight, model.head.weight)
    assert fresh.classes == ("ant", "bee", "dog") and not fresh.head.weight.any()
