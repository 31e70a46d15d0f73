import pytest
import torch

from tests.contract.checks import images_of
from tests.contract.examples import EXAMPLES, make
from vitlab.inspection.lens import logit_lens, settled_at
from vitlab.models.vit import ViTSettings

CLASSIFYING = [
    example for example in EXAMPLES if example.family is ViTSettings and example.settings().num_classes is not None
]


@pytest.mark.parametrize("example", CLASSIFYING, ids=str)
def test_the_last_row_is_the_answer_of_the_model(example):
    model = make(example.settings())
    images = images_of(model)
    with torch.inference_mode():
        expected = model(images)
    found = logit_lens(model, images)
    assert found.shape == (model.settings.depth + 1, *expected.shape)
    torch.testing.assert_close(found[-1], expected, atol=1e-5, rtol=1e-5)


def test_a_row_is_the_answer_of_the_model_without_the_layers_above(make_model):
    model = make_model(depth=3)
    images = torch.randn(2, 3, 8, 8)
    found = logit_lens(model, images)
    for layer in (2, 1):
        del model.encoder.blocks[layer]
        with torch.inference_mode():
            torch.testing.assert_close(found[layer], model(images), atol=1e-5, rtol=1e-5)
    with torch.inference_mode():
        embedded = model.head(model.pool(model.encoder.norm(model.embed(images))))
    torch.testing.assert_close(found[0], embedded)


def test_a_model_without_a_head_is_refused(make_model):
    with pytest.raises(ValueError, match="without a head"):
        logit_lens(make_model(num_classes=None), torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("leaders", "expected"), [([1, 1, 1], 0), ([0, 1, 1], 1), ([1, 0, 1], 2), ([1, 1, 0], 2), ([0], 0)]
)
def test_an_answer_is_settled_where_it_leads_from_then_on(leaders, expected):
    assert settled_at(torch.eye(2)[leaders]) == expected
