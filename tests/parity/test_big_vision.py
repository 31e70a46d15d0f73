"""Every file that big_vision wrote of its ViTs and ResNets, through the one loader; and the names of its published sizes."""

import json
import math

import pytest
import torch

from vitlab.errors import WeightsError
from vitlab.models.catalog import settings_for
from vitlab.models.classifier import empty
from vitlab.models.vit import ViTSettings
from vitlab.nn.grid import Size
from vitlab.nn.patches import Patches
from vitlab.nn.pooling import AttentionPool, ClassToken, Mean
from vitlab.nn.position import Learned1D, SinCos2D
from vitlab.nn.resnet import PreActivation
from vitlab.weights.big_vision import contents_of
from vitlab.weights.layout import Beside
from vitlab.weights.load import load_with_report

FILES = [
    *(("vit_learn_gap", f"params{kind}") for kind in ("", "_scan", "_bf16", "_opt", "_bare", "_img", "_very_old")),
    *(("vit_learn_map", f"params{kind}") for kind in ("", "_old_map", "_scan")),
    *(("vit_learn_tok", f"params{kind}") for kind in ("", "_very_old")),
    ("vit_sincos_gap", "params"),
    ("vit_sincos_map_rep", "params"),
]
EXTRA = {"params_opt": ["opt/state/step"], "params_img": ["params/t"]}
RESNETS = [("bit_paper_d21_w05", "params"), ("bit_paper_d111_odd", "params"), ("bit_v1_d11_w05", "params")]
VARIANTS = ["Ti_16", "S_16", "B_16", "L_16", "H_14", "g_14", "G_14", "So400m_14"]
POOLS = {"gap": Mean(), "tok": ClassToken(), "map": AttentionPool()}


def load_case(case, role):
    """Load a file of a case, from which every parameter is taken; return the model and its io."""
    loaded = load_with_report(case.path(role), trained_size=tuple(case.config["image"]))
    assert loaded.report.extra == EXTRA.get(role, [])
    assert set(loaded.report.matched) == {name for name, _ in loaded.model.named_parameters()}
    return loaded.model.eval(), case.arrays("io")


def agree_to_a_hundred_thousandth(agree, case, logits, expected):
    """Compare to 1e-5 of the largest value; the tolerances of the index are wider."""
    agree(case, logits, expected, atol=1e-5 * float(abs(expected).max()))


def settings_of(config):
    """Return what the configuration of a case is in our words; a file without a class token needs no word for its row."""
    pool, representation = POOLS[config["pool_type"]], config["rep_size"]
    learned = Learned1D(class_token=config["pool_type"] != "tok")
    return ViTSettings(
        image_size=Size(*config["image"]),
        stem=Patches(patch_size=Size(*config["patch_size"])),
        width=config["width"],
        depth=config["depth"],
        num_heads=config["num_heads"],
        mlp_dim=config["mlp_dim"] or 4 * config["width"],
        position=learned if config["posemb"] == "learn" else SinCos2D(),
        pool=pool,
        representation_dim=config["width"] if representation is True else representation or None,
        num_classes=config["num_classes"],
    )


@pytest.mark.parametrize(("name", "role"), FILES)
def test_every_file_of_a_vit_gives_the_logits_of_big_vision(golden, agree, to_images, name, role):
    case = golden(f"big_vision/{name}")
    model, io = load_case(case, role)
    with torch.inference_mode():
        logits = model(to_images(io["input"]))
    agree_to_a_hundred_thousandth(agree, f"{case.name} {role}", logits, io["output"])
    if role != "params_very_old":  # whose class token has a row
        assert model.settings == settings_of(case.config)


def test_no_file_is_left_out(shared):
    """Every file of weights that the index names is read here or in the tests of the BiT code."""
    unpooled = [("vit_learn_pool0", "params"), ("vit_learn_nopool_nohead", "params")]
    released = [("bit_paper_d1111", "params_bit_tf_numbered")]
    cases = json.loads((shared / "golden/index.json").read_text())["cases"]
    models = {name: case for name, case in cases.items() if name.startswith("big_vision/") and "config" in case}
    found = {
        (name.removeprefix("big_vision/"), role)
        for name, case in models.items()
        for role in case["files"]
        if role.startswith("params")
    }
    assert found == {*FILES, *RESNETS, *unpooled, *released}


@pytest.mark.parametrize("name", ["vit_sincos_gap", "vit_learn_map"])
def test_a_file_that_does_not_tell_its_size_is_refused_with_what_to_do(golden, name):
    case = golden(f"big_vision/{name}")
    with pytest.raises(WeightsError, match=r"trained_size=\(height, width\)") as error:
        load_with_report(case.path("params"))
    assert "\n" not in str(error.value)


def test_the_first_patch_is_what_the_pool_0_of_big_vision_reads(golden, agree, to_images):
    """The file is that of averaged patches, arrays and names: it is read as such."""
    case = golden("big_vision/vit_learn_pool0")
    model, io = load_case(case, "params")
    with torch.inference_mode():
        first = model.encode(model.embed(to_images(io["input"])))[:, 0]
        agree_to_a_hundred_thousandth(agree, case.name, model.head(first), io["output"])


def test_the_encoded_tokens_are_what_a_model_without_pool_and_head_returns(golden, agree, to_images):
    case = golden("big_vision/vit_learn_nopool_nohead")
    model, io = load_case(case, "params")
    with torch.inference_mode():
        encoded = model.encode(model.embed(to_images(io["input"])))
    agree_to_a_hundred_thousandth(agree, case.name, encoded, io["output"])


@pytest.mark.parametrize(("name", "role"), RESNETS)
def test_every_file_of_a_resnet_gives_the_logits_of_big_vision(golden, agree, to_images, name, role):
    case = golden(f"big_vision/{name}")
    model, io = load_case(case, role)
    assert model.settings.depths == tuple(case.config["depth"])
    assert model.settings.root_width == 64 * case.config["width"]
    with torch.inference_mode():
        logits = model(to_images(io["input"]))
    agree_to_a_hundred_thousandth(agree, f"{case.name} {role}", logits, io["output"])


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("name", VARIANTS)
def test_names_and_shapes_are_those_of_big_vision(golden, tmp_path, name, pool):
    listing = golden(f"big_vision/listing_vit_{name}").json()
    arrays = listing["params_gap"] | listing.get({"tok": "extra_tok", "map": "extra_map"}.get(pool, ""), {})
    shapes = {f"params/{theirs}": tuple(shape) for theirs, shape in arrays.items()}
    contents = contents_of(tmp_path, shapes, Beside())
    dimensions = {key: value for key, value in listing["decoded"].items() if key != "patch_size"}
    assert {key: getattr(contents.settings, key) for key in dimensions} == dimensions
    assert contents.settings.stem.patch_size == tuple(listing["decoded"]["patch_size"])
    assert contents.settings.image_size == (listing["image"], listing["image"])
    assert contents.settings.pool == POOLS[pool]
    assert contents.missing == () and contents.extra == ()
    assert {piece.source: piece.shape for piece in contents.pieces.values()} == shapes
    count = sum(math.prod(parameter.shape) for parameter in empty(contents.settings).parameters())
    assert count == listing["num_params"][pool]


@pytest.mark.parametrize("name", ["R50x1", "R50x3", "R101x1", "R101x3", "R152x2", "R152x4"])
def test_names_and_shapes_of_resnets_are_those_of_big_vision(golden, tmp_path, name):
    listing = golden(f"big_vision/listing_bit_{name}").json()
    shapes = {theirs: tuple(shape) for theirs, shape in listing["params_big_vision"].items()}
    contents = contents_of(tmp_path, shapes, Beside())
    unit = PreActivation(padding="ignored")
    assert contents.settings == settings_for(f"BiT-{name}", listing["num_classes"]).model_copy(update={"unit": unit})
    assert contents.missing == () and contents.extra == ()
    for ours, piece in contents.pieces.items():
        assert shapes[piece.source] in (piece.shape, (1, 1, 1, *piece.shape)), ours
