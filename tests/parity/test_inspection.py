"""Attention, rollout, position similarity and filters against other people's code."""

import numpy as np
import pytest
import torch

from vitlab.inspection.attention import attention_by_layer, rollout
from vitlab.inspection.distance import attention_distance, patch_distances
from vitlab.inspection.embeddings import filter_components, position_similarity
from vitlab.inspection.relevance import relevance
from vitlab.weights.load import fit, read

CASES = ["rollout_7x7", "rollout_4x4"]


@pytest.fixture
def analysed(golden):
    """The case, its arrays and its model; these were computed with the exact GELU, which the file does not say."""

    def make(name):
        case = golden(f"analysis/{name}")
        path = case.path("params_released_naming")
        contents = read(path)
        settings = contents.settings.model_copy(update={"activation": "gelu"})
        return case, case.arrays("io"), fit(contents, path, settings, contents.image_spec, ()).model.eval()

    return make


def within(case):
    return {kind: case.tolerance[kind] for kind in ("atol", "rtol")}


@pytest.mark.parametrize("name", CASES)
def test_logits_and_attention_weights_of_every_layer_agree(analysed, agree, to_images, name):
    case, io, model = analysed(name)
    images = to_images(io["input"])
    with torch.inference_mode():
        agree(f"{case.name} logits", model(images), io["output"], **within(case))
    layers = torch.stack(list(attention_by_layer(model, images)), dim=1)
    agree(f"{case.name} attention", layers, io["attention"], **within(case))


@pytest.mark.parametrize("name", CASES)
def test_rollout_agrees(analysed, agree, to_images, name):
    case, io, model = analysed(name)
    maps = rollout(model, to_images(io["input"]))
    agree(f"{case.name} rollout", maps, io["cls_mask_maxnorm"], **within(case))
    agree(f"{case.name} rollout", maps, io["row_normalised_mean_0.0"], **within(case))


@pytest.mark.parametrize("name", CASES)
def test_position_similarity_agrees(analysed, agree, name):
    case, io, model = analysed(name)
    agree(f"{case.name} positions", position_similarity(model), io["posembed_cosine"], **within(case))


@pytest.mark.parametrize("name", CASES)
def test_filter_components_agree_up_to_sign(analysed, agree, name):
    case, io, model = analysed(name)
    expected = io["embedding_filters_top8_centred"]
    actual = filter_components(model, len(expected))
    signs = np.sign((actual * expected).sum(axis=(1, 2, 3), keepdims=True))
    agree(f"{case.name} filters", actual * signs, expected, **within(case))


@pytest.mark.parametrize("name", CASES)
def test_attention_distance_agrees(analysed, agree, to_images, name):
    case, io, model = analysed(name)
    distances = attention_distance(model, to_images(io["input"]))
    agree(f"{case.name} distance", distances, io["attention_distance_raw"], **case.tolerance["attention_distance"])
    between = patch_distances(model.settings.grid, model.settings.stem.cell)
    agree(f"{case.name} between patches", between, io["distance_matrix_pixels"], **within(case))


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_attention_give_the_relevance_that_other_code_has(analysed, agree, to_images, name):
    """Their gradient of a logit for every layer's attention, joined as Chefer et al. do, for the first image and class 1."""
    case, io, model = analysed(name)
    joint = np.eye(io["attention"].shape[-1])
    for weights, slope in zip(io["attention"][0], io["attention_grad_class1_image0"], strict=True):
        joint = joint + np.maximum(weights * slope, 0).mean(axis=0) @ joint
    expected = joint[0, 1:].reshape(model.settings.grid)
    found = relevance(model, to_images(io["input"][:1]), [1])[0]
    agree(f"{case.name} relevance", found, expected, atol=2e-5 * expected.max(), rtol=1e-4)
