import pytest
import torch

from tests.contract.checks import (
    POSITION,
    assert_same_parameters,
    check_file,
    check_resize,
    depend_on_size,
    parameters_of,
)
from tests.contract.examples import EXAMPLES, ODD, SQUARE, make
from vitlab.models.resnet import ResNet, ResNetSettings
from vitlab.models.vit import ViTSettings
from vitlab.nn.grid import Size
from vitlab.nn.position import Learned1D, Learned2D, Relative
from vitlab.nn.stem import ResNetStem
from vitlab.weights.load import load, load_with_report
from vitlab.weights.save import save


def test_a_file_gives_the_same_model_back(model, tmp_path):
    check_file(model, tmp_path)


def test_another_size_resizes_the_positions_and_nothing_else(model, size, tmp_path):
    check_resize(model, tmp_path, ODD if size == SQUARE else SQUARE)


def test_where_one_axis_stays_only_the_other_is_resized(example, tmp_path):
    check_resize(make(example.settings(SQUARE)), tmp_path, Size(32, 64))
    check_resize(make(example.settings(SQUARE)), tmp_path, Size(64, 32))


def test_a_size_with_the_same_grid_resizes_nothing(example, tmp_path):
    """Patches leave out what is too much; a ResNet rounds up."""
    model = make(example.settings(SQUARE))
    rounds_up = isinstance(getattr(model.settings, "stem", None), ResNetStem) or isinstance(model, ResNet)
    other = Size(31, 30) if rounds_up else Size(35, 39)
    assert depend_on_size(model, other) == []
    check_resize(model, tmp_path, other)


def test_the_size_of_the_file_changes_nothing(model, size, tmp_path):
    save(model, tmp_path / "model.safetensors")
    loaded = load_with_report(tmp_path / "model.safetensors", image_size=size)
    assert loaded.report.resized == []
    assert_same_parameters(parameters_of(loaded.model), parameters_of(model))


def test_there_and_back_over_a_grid_that_holds_the_first_is_where_it_was(example, tmp_path):
    """Every point of n lies on a point of 2n - 1."""
    if isinstance(getattr(example.settings(), "position", None), Relative):
        pytest.skip("half a row to the right is also a row less half a row to the left")
    model = make(example.settings(SQUARE))
    there = check_resize(model, tmp_path, Size(56, 56) if isinstance(model.settings, ViTSettings) else Size(60, 60))
    back = check_resize(there, tmp_path, SQUARE)
    for name, parameter in parameters_of(model).items():
        if isinstance(model, ResNet) and "stages.1.1." in name:
            continue  # 8 cells in the place of 4
        torch.testing.assert_close(parameters_of(back)[name], parameter, atol=1e-6, rtol=0)


def test_positions_that_are_alike_everywhere_stay_as_they_are(example, tmp_path):
    model = make(example.settings(SQUARE))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if POSITION.fullmatch(name):
                parameter.fill_(0.25)
    for name, parameter in parameters_of(check_resize(model, tmp_path, ODD)).items():
        if POSITION.fullmatch(name):
            torch.testing.assert_close(parameter, torch.full_like(parameter, 0.25))


def test_what_depends_on_the_size_is_known():
    """The kinds with a table; the others are computed for any grid or have none."""
    found = {example.name for example in EXAMPLES if depend_on_size(make(example.settings(SQUARE)), ODD)}
    without = {"ViT:position=SinCos2D", "ViT:position=NoPosition"}
    without |= {each.name for each in EXAMPLES if isinstance(each.settings(), ResNetSettings)}
    assert {example.name for example in EXAMPLES} - found == without - {"ResNet:unit=AxialAttention-4"}


@pytest.mark.parametrize("position", [Learned1D(), Learned2D(), Relative()])
def test_a_grid_turned_on_its_side_is_resized_though_it_has_as_many_cells(position, tmp_path):
    example = next(each for each in EXAMPLES if each.family is ViTSettings)
    settings = example.settings(Size(32, 48)).model_copy(update={"position": position})
    save(make(settings), tmp_path / "model.safetensors")
    report = load_with_report(tmp_path / "model.safetensors", image_size=(48, 32)).report
    names = {"Learned1D": ["position.table"], "Learned2D": ["position.columns", "position.rows"]}.get(
        position.type, [f"encoder.blocks.{layer}.attention.relative.table" for layer in range(2)]
    )
    assert report.resized == [f"{name} 4×6 -> 6×4" for name in names]


def test_other_classes_replace_the_head_and_nothing_else(example, tmp_path):
    model = make(example.settings())
    save(model, tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors", num_classes=7)
    assert loaded.settings.num_classes == 7 and loaded.classes == ()
    after = parameters_of(loaded)
    assert not after["head.weight"].any() and not after["head.bias"].any()
    kept = [n for n in parameters_of(model) if not n.startswith(("head.", "representation."))]
    assert [name for name in kept if not torch.equal(after[name], parameters_of(model)[name])] == []
    assert set(after) == {*kept, "head.weight", "head.bias"}
