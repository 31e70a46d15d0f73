import numpy as np
import pytest
import torch

from vitlab.inspection.embeddings import filter_components, position_similarity
from vitlab.models.classifier import build
from vitlab.models.resnet import ResNetSettings
from vitlab.nn.grid import Size
from vitlab.nn.patches import Patches
from vitlab.nn.pooling import Mean


def test_components_are_images_of_a_patch_at_right_angles(make_model):
    components = filter_components(make_model(stem=Patches(patch_size=Size(2, 4))), 10)
    assert components.shape == (10, 2, 4, 3)
    flat = components.reshape(10, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(10), atol=1e-5)


def test_components_are_in_the_order_of_the_variance_they_explain(make_model):
    model = make_model()
    weight = model.stem.projection.weight.detach()
    centred = (weight - weight.mean(dim=0)).numpy()
    components = filter_components(model, 12).transpose(0, 3, 1, 2).reshape(12, -1)
    variance = ((centred @ components.T) ** 2).sum(axis=0)
    assert (np.diff(variance) <= 1e-5).all()
    expected = np.linalg.eigvalsh(centred.T @ centred)[::-1][:12]
    np.testing.assert_allclose(variance, expected, rtol=1e-4, atol=1e-5)


def test_there_are_no_more_components_than_dimensions(make_model):
    assert filter_components(make_model(), 1000).shape[0] == 16


def test_similarity_is_symmetric_and_one_with_itself(make_model):
    model = make_model(image_size=Size(8, 12))
    maps = position_similarity(model)
    assert maps.shape == (2, 3, 2, 3)
    flat = maps.reshape(6, 6)
    torch.testing.assert_close(flat, flat.T)
    torch.testing.assert_close(flat.diagonal(), torch.ones(6))
    assert float(flat.abs().max()) <= 1 + 1e-6


def test_an_entry_is_the_cosine_of_two_positions_without_the_class_token(make_model):
    for pool, prefix in ((None, 1), (Mean(), 0)):
        model = make_model(image_size=Size(8, 12), **({"pool": pool} if pool else {}))
        table = model.position.table[0, prefix:].detach()
        expected = torch.cosine_similarity(table[1 * 3 + 2], table[0 * 3 + 1], dim=0)
        torch.testing.assert_close(position_similarity(model)[1, 2, 0, 1], expected)


@pytest.mark.parametrize("analyse", [filter_components, position_similarity])
def test_a_resnet_has_neither_in_one_line(analyse):
    resnet = build(ResNetSettings(image_size=Size(8, 8), depths=(1,), root_width=32, num_classes=2))
    with pytest.raises(ValueError, match=r"^a ResNet has no "):
        analyse(resnet)
