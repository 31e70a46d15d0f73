"""Whole models at their published sizes; the weights come from the recipe in golden/README.md."""

import pytest
import torch

from tests.parity.recipe import fill, input_of
from vitlab.models.catalog import settings_for
from vitlab.models.classifier import empty
from vitlab.weights.official import LINEN, name_table, to_ours

SMALL = ["ViT-S_16_160x224", "ViT-B_32_224x224_i21k_rep", "R_ViT-Ti_16_224x224", "R26_ViT-S_32_224x224"]
LARGE = ["ViT-B_16_224x224", "R50_ViT-B_16_224x224", "ViT-L_32_224x224", "ViT-H_14_224x224"]


@pytest.mark.parametrize("name", [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
def test_a_published_size_gives_the_logits_of_the_official_code(golden, agree, to_images, name):
    case = golden(f"fullsize/{name}")
    recipe, io, config = case.json("recipe"), case.arrays("io"), case.config
    settings = settings_for(config["model_name"], config["num_classes"], tuple(config["image"]))
    settings = settings.model_copy(update={"representation_dim": config["representation_size"]})
    model = fill(empty(settings), name_table(settings, LINEN), recipe, to_ours)
    with torch.inference_mode():
        features = model.features(to_images(input_of(recipe)))
        agree(case.name, features, io["pre_head"], **case.tolerance)
        agree(case.name, model.head(features), io["output"], **case.tolerance)
    assert sum(parameter.numel() for parameter in model.parameters()) == case.entry["num_params"]
