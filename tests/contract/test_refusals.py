"""Combinations that cannot be are refused when settings are made, with the nearest value that works."""

import re

import pytest

from tests.contract.examples import SMALL, SQUARE
from tests.end_to_end.conftest import vitlab
from vitlab.config import parse, to_json
from vitlab.errors import SettingsError
from vitlab.models.resnet import ResNetSettings
from vitlab.models.vit import Axial, ViTSettings
from vitlab.nn.axial_resnet import AxialAttention
from vitlab.nn.pooling import Mean
from vitlab.nn.position import Learned1D, Learned2D, Relative, SinCos2D
from vitlab.nn.stem import ResNetStem

PATCHES = {"type": "Patches", "patch_size": 8}
HYBRID = {"type": "ResNetStem", "depths": (1, 1)}
AXIAL = {"attention": Axial(), "pool": Mean()}
SHALLOW = {"unit": {"type": "PreActivation", "padding": "same"}, "depths": (1,)}
NEVER_DIVIDED = {"type": "PostActivation", "std_eps": 0.0}


def refusal(family, changes):
    """Return the one line that refuses the small settings of `family` with `changes`."""
    base = SMALL[family] | {"image_size": SQUARE} | ({"stem": PATCHES} if family is ViTSettings else {})
    with pytest.raises(SettingsError) as error:
        parse(family, base | changes, "settings.json")
    assert "\n" not in str(error.value) and str(error.value).startswith("settings.json: ")
    return str(error.value)


def accepted(family, changes):
    base = SMALL[family] | {"image_size": SQUARE} | ({"stem": PATCHES} if family is ViTSettings else {})
    settings = parse(family, base | changes, "settings.json")
    return parse(family, to_json(settings), "settings.json")


# family, what is asked for, the remedy as the message says it, and the same as changes
CASES = [
    (ViTSettings, {"num_heads": 5}, "use num_heads 4", {"num_heads": 4}),
    (ViTSettings, {"num_heads": 99}, "use num_heads 16", {"num_heads": 16}),
    (ViTSettings, {"width": 30, "num_heads": 7}, "use num_heads 6", {"width": 30, "num_heads": 6}),
    (ViTSettings, {"position": Learned2D(), "width": 15, "num_heads": 3}, "use 12", {"width": 12}),
    (ViTSettings, {"position": Learned2D(), "width": 17, "num_heads": 1}, "use 16", {"width": 16}),
    (ViTSettings, {"position": SinCos2D(), "width": 18}, "use 16", {"width": 16}),
    (ViTSettings, {"position": SinCos2D(), "width": 2, "num_heads": 2}, "use 4", {"width": 4}),
    (ViTSettings, {"position": SinCos2D(), "width": 21, "num_heads": 3}, "use 24", {"width": 24}),
    (ViTSettings, {"image_size": 7}, "smaller than one patch; use at least 8×8", {"image_size": 8}),
    (ViTSettings, {"image_size": (7, 40)}, "smaller than one patch; use at least 8×8", {"image_size": (8, 40)}),
    (ViTSettings, {"stem": HYBRID, "image_size": 7}, "the stride of the stem; use at least 8×8", {"image_size": 8}),
    (ViTSettings, {"stem": HYBRID | {"patch_size": 4}, "image_size": 24}, "at least 25×25", {"image_size": 25}),
    (ViTSettings, {"stem": HYBRID | {"root_width": 40}}, "use 32", {"stem": HYBRID | {"root_width": 32}}),
    (ViTSettings, {"stem": HYBRID | {"root_width": 100}}, "use 96", {"stem": HYBRID | {"root_width": 96}}),
    (ViTSettings, {"stem": HYBRID | {"root_width": 1}}, "use 32", {"stem": HYBRID | {"root_width": 32}}),
    (ViTSettings, AXIAL | {"pool": {"type": "ClassToken"}}, "use pool Mean", {"pool": Mean()}),
    (ViTSettings, AXIAL | {"pool": Mean(class_token=True)}, "use pool.class_token false", {"pool": Mean()}),
    (ViTSettings, AXIAL | {"registers": 2}, "use registers 0", {"registers": 0}),
    (ViTSettings, AXIAL | {"position": Relative()}, "use position Learned2D", {"position": Learned2D()}),
    (ViTSettings, AXIAL | {"position": Learned1D(place="layers")}, "use place stem", {"position": Learned1D()}),
    (ViTSettings, AXIAL | {"position": Learned2D(place="shared")}, "use place stem", {"position": Learned2D()}),
    (ResNetSettings, {"root_width": 48}, "use 64", {"root_width": 64}),
    (ResNetSettings, {"root_width": 5}, "use 32", {"root_width": 32}),
    (ResNetSettings, {"image_size": (64, 7)}, "the stride of the model; use at least 8×8", {"image_size": (64, 8)}),
    (ResNetSettings, SHALLOW | {"image_size": (64, 4)}, "use at least 5×5", {"image_size": (64, 5)}),
    (ResNetSettings, {"unit": NEVER_DIVIDED}, "use std_eps 1e-5", {"unit": NEVER_DIVIDED | {"std_eps": 1e-5}}),
    (ViTSettings, {"stem": HYBRID | {"unit": NEVER_DIVIDED}}, "use std_eps 1e-5", {"stem": HYBRID}),
    (ResNetSettings, {"unit": AxialAttention(num_heads=5)}, "use 4", {"unit": AxialAttention(num_heads=4)}),
    (ResNetSettings, {"unit": AxialAttention(num_heads=99)}, "use 16", {"unit": AxialAttention(num_heads=16)}),
]


@pytest.mark.parametrize(("family", "asked", "remedy", "changes"), CASES)
def test_what_cannot_be_is_refused_with_what_can(family, asked, remedy, changes):
    message = refusal(family, asked)
    assert re.search(rf"{re.escape(remedy)}(?!\d)", message), message
    accepted(family, asked | changes)


@pytest.mark.parametrize("heads", [1, 3, 5, 7, 39])
@pytest.mark.parametrize("width", [12, 21])
@pytest.mark.parametrize("position", [Learned1D(), Learned2D(), SinCos2D()])
def test_advice_is_never_refused(position, width, heads):
    """Whoever follows the messages one after the other arrives, in two steps at most."""
    asked = {"position": position, "width": width, "num_heads": heads}
    for _ in range(2):
        try:
            accepted(ViTSettings, asked)
            return
        except SettingsError as error:
            number = int(re.search(r"use (?:num_heads )?(\d+)$", str(error))[1])
            asked["num_heads" if "num_heads" in str(error) else "width"] = number
    accepted(ViTSettings, asked)


def test_the_smallest_image_of_a_hybrid_is_the_one_that_is_named():
    for patch in (1, 2, 3):
        stem = ResNetStem(depths=(1, 1), patch_size=(patch, patch + 1))
        least = (8 * (patch - 1) + 1, 8 * patch + 1)
        least = (max(least[0], 8), max(least[1], 8))
        assert accepted(ViTSettings, {"stem": stem, "image_size": least}).grid.cells == 1
        refusal(ViTSettings, {"stem": stem, "image_size": (least[0], least[1] - 1)})
        refusal(ViTSettings, {"stem": stem, "image_size": (least[0] - 1, least[1])})


ON_THE_COMMAND_LINE = [
    ("Axial-B/16", "model.pool=ClassToken", "use pool Mean"),
    ("Axial-B/16", "model.pool.class_token=true", "use pool.class_token false"),
    ("Axial-B/16", "model.registers=4", "use registers 0"),
    ("Axial-B/16", "model.position=Relative", "use position Learned2D"),
    ("Axial-B/16", "model.position.place=layers", "use place stem"),
    ("B/16", "model.num_heads=13", "use num_heads 12"),
    ("AxialResNet-50", "model.unit.num_heads=9", "use 8"),
    ("BiT-R50x1", "model.root_width=50", "use 64"),
    ("R50+B/16", "model.stem.root_width=65", "use 64"),
]


@pytest.mark.parametrize(("model", "change", "remedy"), ON_THE_COMMAND_LINE)
def test_the_command_line_refuses_in_one_line(within, model, change, remedy):
    done = within("finetune", "digits", "--model", model, "--set", change)
    assert done.code == 2 and done.out == ""
    assert done.err.count("\n") == 1 and done.error.endswith(remedy)
    assert not re.search(r"model\.(ViT|ResNet)\b", done.error), "a setting is named as a person writes it"


def test_an_image_that_is_too_small_is_refused_on_the_command_line(within):
    for model, reason in (
        ("B/16", "one patch; use at least 16×16"),
        ("R50+B/16", "the stem; use at least 16×16"),
        ("BiT-R50x1", "the model; use at least 32×32"),
    ):
        done = within("finetune", "digits", "--model", model, "--image-size", "15")
        assert done.code == 2 and done.err.count("\n") == 1 and reason in done.error


def test_a_process_of_its_own_refuses_alike(tmp_path):
    done = vitlab("finetune", "digits", "--model", "Axial-B/16", "--set", "model.pool=ClassToken", cwd=tmp_path)
    assert done.code == 2 and done.out == ""
    assert done.err.count("\n") == 1 and "use pool Mean" in done.error
    assert list(tmp_path.iterdir()) == []
