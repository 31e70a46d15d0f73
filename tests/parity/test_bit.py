"""The ResNets against the BiT code (the released weights), and against big_vision's two ports of it."""

import pytest
import torch

import vitlab
from tests.parity.recipe import fill, input_of
from vitlab.models.catalog import settings_for
from vitlab.models.classifier import empty
from vitlab.nn.grid import Size
from vitlab.nn.resnet import PostActivation, PreActivation
from vitlab.weights import bit, official
from vitlab.weights.big_vision import resnet_table
from vitlab.weights.load import fit, read

OF_BIG_VISION = PreActivation(padding="ignored")
LISTED = ["R50x1", "R50x3", "R101x1", "R101x3", "R152x2", "R152x4"]


def load_case(case):
    return vitlab.load(case.path("params"), trained_size=tuple(case.config["image"])).eval()


def agree_with_stages(model, case, agree, to_images):
    """Compare every stage that big_vision stores; feature maps are of the first image, [1, h, w, c]."""
    io, stage = case.arrays("io"), f"{case.name} stages"
    with torch.inference_mode():
        images = to_images(io["input"])
        features = model.root(images)
        agree(stage, features[:1].permute(0, 2, 3, 1), io["stem"], **case.tolerance)
        for number, units in enumerate(model.stages, start=1):
            features = units(features)
            agree(stage, features[:1].permute(0, 2, 3, 1), io[f"stage{number}"], **case.tolerance)
        assert f"stage{number + 1}" not in io
        if model.norm is not None:
            agree(stage, model.norm(features)[:1].permute(0, 2, 3, 1), io["norm_pre_head"], **case.tolerance)
        agree(stage, model.feature_map(images)[:1].permute(0, 2, 3, 1), io["pre_logits_2d"], **case.tolerance)
        agree(stage, model.features(images), io["pre_logits"], **case.tolerance)
        agree(f"{case.name} logits", model(images), io["output"], **case.tolerance)


def test_a_file_of_numbered_convolutions_gives_the_logits_of_the_bit_code(golden, agree, to_images):
    case = golden("bit_original/bit_d1111")
    io, config = case.arrays("io"), case.config
    model = vitlab.load(case.path("params_bit_tf"), trained_size=tuple(config["image"])).eval()
    assert model.settings.depths == tuple(config["block_units"])
    assert model.settings.root_width == 64 * config["width_factor"]
    with torch.inference_mode():
        images = to_images(io["input"])
        features = model.root(images)
        agree(f"{case.name} stages", features, io["root"], **case.tolerance)
        for stage in model.stages:
            features = stage(features)
        agree(f"{case.name} stages", features, io["body"], **case.tolerance)
        agree(f"{case.name} stages", model.features(images), io["pre_logits"], **case.tolerance)
        agree(f"{case.name} logits", model(images), io["output"], **case.tolerance)
        agree(f"{case.name} float64", model.double()(images.double()), io["output_float64"], atol=1e-10, rtol=1e-10)


def test_the_same_file_gives_the_logits_of_big_vision_with_its_pool(golden, agree, to_images):
    case = golden("big_vision/bit_paper_d1111")
    path = case.path("params_bit_tf_numbered")
    contents = read(path, Size(*case.config["image"]))
    settings = contents.settings.model_copy(update={"unit": OF_BIG_VISION})
    model = fit(contents, path, settings, contents.image_spec, ()).model.eval()
    agree_with_stages(model, case, agree, to_images)


def test_the_released_r50x1_gives_the_logits_of_the_bit_code(golden, agree, to_images):
    case = golden("bit_original/bit_R50x1_recipe")
    recipe, io = case.json("recipe"), case.arrays("io")
    settings = settings_for("BiT-R50x1", case.config["num_classes"], tuple(case.config["image"]))
    model = fill(empty(settings), bit.name_table(settings), recipe, lambda _, array, shape: bit.to_ours(array, shape))
    with torch.inference_mode():
        features = model.features(to_images(input_of(recipe)))
        agree(case.name, features, io["pre_head"], **case.tolerance)
        agree(case.name, model.head(features), io["output"], **case.tolerance)
    assert sum(parameter.numel() for parameter in model.parameters()) == case.entry["num_params"]


# R101x1 shows 1.3e-5: both sides round in float32 (off a float64 reference by 2.5e-5 of the largest output there, by 2.0e-5 here).
@pytest.mark.parametrize("name", ["R50x1_128x128", "R101x1_96x64"])
def test_a_published_size_gives_the_logits_of_big_vision(golden, agree, to_images, name):
    case = golden(f"fullsize/BiT_{name}")
    recipe, io = case.json("recipe"), case.arrays("io")
    settings = settings_for(f"BiT-{name.split('_')[0]}", case.config["num_classes"], tuple(case.config["image"]))
    settings = settings.model_copy(update={"unit": OF_BIG_VISION})
    model = fill(empty(settings), resnet_table(settings), recipe, official.to_ours)
    with torch.inference_mode():
        images = to_images(input_of(recipe))
        root = model.root(images)
        agree(case.name, root.mean(dim=(2, 3)), io["stem"], **case.tolerance)
        first_unit = model.stages[0][0](root)
        agree(case.name, first_unit.mean(dim=(2, 3)), io["stage1_mean"], **case.tolerance)
        agree(case.name, model.features(images), io["pre_head"], **case.tolerance)
        agree(case.name, model(images), io["output"], **case.tolerance)
    assert sum(parameter.numel() for parameter in model.parameters()) == case.entry["num_params"]


@pytest.mark.parametrize("name", ["bit_paper_d21_w05", "bit_paper_d111_odd"])
def test_every_stage_is_that_of_big_vision(golden, agree, to_images, name):
    case = golden(f"big_vision/{name}")
    agree_with_stages(load_case(case), case, agree, to_images)


def test_the_pool_of_the_bit_code_is_not_that_of_big_vision(golden, to_images):
    """The tolerance of these tests tells the two kinds of padding apart."""
    case = golden("big_vision/bit_paper_d21_w05")
    contents, io = read(case.path("params"), Size(*case.config["image"])), case.arrays("io")
    assert contents.settings.unit == OF_BIG_VISION
    settings = contents.settings.model_copy(update={"unit": PreActivation()})
    model = fit(contents, case.path("params"), settings, contents.image_spec, ()).model.eval()
    with torch.inference_mode():
        difference = (model(to_images(io["input"])) - torch.from_numpy(io["output"])).abs().max()
    assert float(difference) == pytest.approx(case.entry["measured"]["cross_check_output_timm_f32"], rel=1e-2)


def test_the_post_activation_form_is_that_of_big_vision(golden, agree, to_images):
    case = golden("big_vision/bit_v1_d11_w05")
    model = load_case(case)
    assert model.settings.unit == PostActivation()
    agree_with_stages(model, case, agree, to_images)


@pytest.mark.parametrize("name", LISTED)
def test_names_and_shapes_are_those_of_the_released_files(golden, name):
    listing = golden(f"big_vision/listing_bit_{name}").json()
    settings = settings_for(f"BiT-{name}", listing["num_classes"])
    shapes = {ours: tuple(parameter.shape) for ours, parameter in empty(settings).named_parameters()}
    table = bit.name_table(settings)
    found = {table[ours]: list(bit.file_shape(shape)) for ours, shape in shapes.items()}
    assert found == listing["params_released_tf"]
    assert sum(parameter.numel() for parameter in empty(settings).parameters()) == listing["num_params"]
