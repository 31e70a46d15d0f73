import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from vitlab.data.preprocess import CentralCrop, ImageSpec
from vitlab.inspection.attention import attention_by_layer, attention_from, rollout
from vitlab.inspection.embeddings import position_similarity
from vitlab.inspection.lens import logit_lens
from vitlab.inspection.relevance import relevance
from vitlab.models.classifier import build, probabilities_of
from vitlab.models.resnet import ResNetSettings
from vitlab.models.vit import Axial
from vitlab.nn.grid import Grid, Size
from vitlab.nn.pooling import FirstPatch, Mean
from vitlab.nn.position import NoPosition
from vitlab.nn.stem import ResNetStem
from vitlab.serve import abilities, looking
from vitlab.serve.export import export
from vitlab.serve.predict import Predictor

RESNET = ResNetSettings(image_size=Size(8, 8), depths=(1,), root_width=32, num_classes=2)


@pytest.fixture
def make_predictor(make_model):
    return lambda **changes: Predictor(make_model(image_size=Size(8, 12), **changes), batch_size=2)


@pytest.fixture
def prepared():
    return np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)


@pytest.fixture
def images(prepared):
    return ImageSpec().normalise(torch.from_numpy(prepared.transpose(2, 0, 1).copy())[None])


def test_the_answer_is_the_predictors_and_the_picture_what_the_model_sees(make_predictor, prepared):
    predictor = make_predictor()
    found = looking.look(predictor, prepared, 2)
    expected = predictor.answer([prepared])[0].top(2)
    assert [(one["name"], one["probability"]) for one in found["top"]] == expected
    assert [predictor.classes[one["number"]] for one in found["top"]] == [name for name, _ in expected]
    seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["prepared"]))))
    np.testing.assert_array_equal(seen, prepared)


def test_rollout_is_that_of_inspection(make_predictor, prepared, images):
    predictor = make_predictor()
    found = np.frombuffer(base64.b64decode(looking.look(predictor, prepared)["rollout"]), np.uint8)
    np.testing.assert_allclose(found / 255, rollout(predictor.model, images)[0].flatten(), atol=0.51 / 255)


@pytest.mark.parametrize("changes", [{}, {"pool": Mean()}, {"pool": FirstPatch()}, {"registers": 2}])
def test_maps_are_the_attention_of_a_layer_from_the_output_and_from_each_patch(
    make_predictor, prepared, images, changes
):
    predictor = make_predictor(**changes)
    model, prefix = predictor.model, predictor.model.settings.num_prefix
    found = looking.attention_maps(predictor, prepared, layer=1)
    assert found.heads == (-1, 0, 1) and found.maps.shape == (3, 7, 6)
    values = found.maps / 255 * found.peaks[..., None]
    weights = list(attention_by_layer(model, images))[1][0]
    exact = torch.cat([weights.mean(dim=0)[None], weights])
    np.testing.assert_allclose(values[:, 1:], exact[:, prefix:, prefix:], atol=0.003)
    np.testing.assert_allclose(found.prefix[:, 1:], exact[:, prefix:, :prefix].sum(dim=2), atol=1e-6)
    np.testing.assert_allclose(values[1:, 0], attention_from(model, images)[0, 1].flatten(1), atol=0.003)
    assert (found.maps.max(axis=2) == 255).all()


def test_bytes_are_peaks_then_shares_then_maps(make_predictor, prepared):
    found = looking.attention_maps(make_predictor(), prepared, layer=0)
    data = found.to_bytes()
    floats = np.frombuffer(data, "<f4", 2 * 3 * 7).reshape(2, 3, 7)
    np.testing.assert_array_equal(floats, [found.peaks, found.prefix])
    np.testing.assert_array_equal(np.frombuffer(data, np.uint8, offset=floats.nbytes).reshape(3, 7, 6), found.maps)


def test_where_all_heads_are_too_much_the_one_that_is_asked_for_comes_with_the_mean(
    make_predictor, prepared, monkeypatch
):
    predictor = make_predictor()
    every = looking.attention_maps(predictor, prepared, 1)
    monkeypatch.setattr(looking, "ALL_HEADS_BYTES", 100)
    found = looking.attention_maps(predictor, prepared, 1, head=1)
    assert found.heads == (-1, 1)
    np.testing.assert_array_equal(found.maps, every.maps[[0, 2]])


@pytest.mark.parametrize(("layer", "head", "what"), [(2, 0, "no layer 2"), (-1, 0, "no layer"), (0, 2, "no head 2")])
def test_what_is_not_there_is_refused(make_predictor, prepared, layer, head, what):
    with pytest.raises(looking.CannotShowError, match=what):
        looking.attention_maps(make_predictor(), prepared, layer, head)
    with pytest.raises(looking.CannotShowError, match="no class 3"):
        looking.relevance_map(make_predictor(), prepared, 3)


def test_relevance_and_answers_by_depth_are_those_of_inspection(make_predictor, prepared, images):
    predictor = make_predictor(classes=("ant", "bee", "cat"))
    found = np.frombuffer(looking.relevance_map(predictor, prepared, 1), np.uint8)
    exact = relevance(predictor.model, images, [1])[0].flatten()
    np.testing.assert_allclose(found / 255, exact / exact.max(), atol=0.51 / 255)
    depth = looking.answers_by_depth(predictor, prepared)
    shares = probabilities_of(predictor.model, logit_lens(predictor.model, images)[:, 0])
    assert [one["name"] for one in depth["layers"]] == [predictor.classes[int(row.argmax())] for row in shares]
    np.testing.assert_allclose([one["probability"] for one in depth["layers"]], shares.amax(dim=1), rtol=1e-5)
    assert len(depth["layers"]) == 3 and 0 <= depth["settled"] <= 2


def test_similarity_goes_from_minus_one_to_one_in_a_byte(make_predictor):
    model = make_predictor().model
    grid, data = looking.similarity_map(model)
    exact = position_similarity(model).reshape(6, 6)
    assert grid == Grid(2, 3)
    np.testing.assert_allclose(np.frombuffer(data, np.uint8).reshape(6, 6) / 127.5 - 1, exact, atol=0.51 / 127.5)


def test_the_sheet_of_filters_is_an_image_of_four_rows_of_seven(make_predictor):
    sheet = Image.open(io.BytesIO(looking.filter_sheet(make_predictor(width=32).model)))
    assert sheet.mode == "RGBA" and sheet.size == (7 * 64 + 6 * 6, 4 * 64 + 3 * 6)


def test_an_image_that_was_prepared_is_left_alone(prepared):
    spec = ImageSpec(height=8, width=12, fit=CentralCrop(), decoding="pil-compat")
    again = looking.as_seen(spec)
    np.testing.assert_array_equal(again.prepare(again.open(looking.png(prepared), "image")), prepared)


STEM = ResNetStem(depths=(), root_width=32, patch_size=Size(1, 1))


@pytest.mark.parametrize(
    ("changes", "cannot"),
    [
        ({}, set()),
        ({"stem": STEM}, {"filters"}),
        ({"attention": Axial(), "pool": Mean()}, {"attention"}),
        ({"position": NoPosition()}, {"positions"}),
    ],
)
def test_a_model_says_what_it_cannot_show_and_shows_the_rest(make_predictor, prepared, changes, cannot):
    predictor = make_predictor(**changes)
    found = abilities.describe("pets", predictor)["cannot"]
    assert {name for name, reason in found.items() if reason} == cannot
    assert all(reason.endswith((".", ").")) for reason in found.values() if reason)
    for name, show in {
        "attention": lambda: looking.attention_maps(predictor, prepared, 0),
        "filters": lambda: looking.filter_sheet(predictor.model),
        "positions": lambda: looking.similarity_map(predictor.model),
        "lens": lambda: looking.answers_by_depth(predictor, prepared),
    }.items():
        if name in cannot:
            with pytest.raises(looking.CannotShowError):
                show()
        else:
            assert show()
    assert (looking.look(predictor, prepared)["rollout"] is None) == ("attention" in cannot)


def test_a_resnet_answers_and_shows_nothing_else():
    predictor = Predictor(build(RESNET), batch_size=2)
    described = abilities.describe("r", predictor)
    assert all(described["cannot"].values()) and described["attention"] is None
    found = looking.look(predictor, np.zeros((8, 8, 3), np.uint8))
    assert len(found["top"]) == 2 and found["rollout"] is None


def test_a_grid_too_large_for_a_page_is_said(make_predictor, monkeypatch):
    monkeypatch.setattr(abilities, "MAX_MAP_BYTES", 41)
    assert "6 patches" in abilities.why_no_attention(make_predictor().model)
    assert "6 positions" in abilities.why_no_positions(make_predictor().model)


def test_preparation_is_said_in_words():
    squashed = " ".join(abilities.preparation(ImageSpec(height=32, width=48)))
    assert "the whole image, resized to 48 × 32" in squashed and "Values from −1 to 1" in squashed
    spec = ImageSpec(fit=CentralCrop(), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), decoding="pil-compat")
    cropped = " ".join(abilities.preparation(spec))
    assert "87.5 %" in cropped and "0.485, 0.456, 0.406" in cropped and "as stored" in cropped


def test_of_a_graph_there_are_answers_and_the_reason_why_there_is_no_more(make_predictor, prepared, tmp_path):
    predictor = make_predictor()
    export(predictor.model, tmp_path / "model.onnx")
    graph = Predictor.load(tmp_path / "model.onnx")
    found = looking.look(graph, prepared, 2)
    assert [one["name"] for one in found["top"]] == [name for name, _ in predictor.answer([prepared])[0].top(2)]
    assert found["rollout"] is None
    told = abilities.describe("graph", graph)
    assert set(told["cannot"].values()) == {abilities.GRAPH} and told["attention"] is None
    assert told["title"] == abilities.describe("model", predictor)["title"]
    for refused in (
        lambda: looking.attention_maps(graph, prepared, 0),
        lambda: looking.relevance_map(graph, prepared, 0),
        lambda: looking.answers_by_depth(graph, prepared),
        lambda: looking.similarity_map(graph.inside),
        lambda: looking.filter_sheet(graph.inside),
    ):
        with pytest.raises(looking.CannotShowError, match="exported graph"):
            refused()
