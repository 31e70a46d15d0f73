import re

import numpy as np
import pytest
from PIL import Image

from vitlab.errors import DataError, WeightsError
from vitlab.inspection import charts, figures
from vitlab.inspection.embeddings import filter_components, position_similarity
from vitlab.models.classifier import build
from vitlab.models.resnet import ResNetSettings
from vitlab.models.vit import Axial
from vitlab.nn.grid import Size
from vitlab.nn.pooling import Mean

SIGNATURES = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def test_a_drawing_is_saved_in_the_format_of_its_suffix(tmp_path):
    drawing = charts.bars({"ant": 0.5, "bee": 1.0}, "top-1")
    for suffix, signature in SIGNATURES.items():
        drawing.save(tmp_path / f"bars{suffix}")
        assert (tmp_path / f"bars{suffix}").read_bytes().startswith(signature)


def test_the_same_figure_gives_the_same_svg():
    first, again = (charts.curves({"loss": {"train": ([0, 1], [2.0, 1.0])}}).svg() for _ in range(2))
    assert first == again
    assert first.startswith("<svg")
    assert "<script" not in first


def test_a_name_is_drawn_as_it_is(make_model, image):
    formula, hidden, foreign = r"$\frac{1$", "_unknown", "日本"
    matrix = np.eye(3, dtype=np.int64)
    shares = np.array([[0.1, 0.2, 0.7], [0.1, 0.8, 0.1], [0.9, 0.0, 0.1]], np.float32)
    names = [formula, hidden, foreign]
    for drawing in (
        charts.confusion(matrix, names),
        charts.bars(dict.fromkeys(names, 0.5), "top-1"),
        charts.curves({formula: {name: ([0, 1], [2.0, 1.0]) for name in names}}),
        figures.rollouts([image] * 3, [image] * 3, names),
        figures.neighbours(image, [image] * 2, names),
        figures.lens_curves(shares, names, 2),
    ):
        svg = drawing.svg()  # a warning of a letter that the font has not is an error here
        assert all(f"<!-- {name} -->" in svg or f"<!--  {name} -->" in svg for name in (formula, hidden, foreign))


def test_every_figure_can_be_drawn(make_model, image):
    model = make_model()
    matrix = np.array([[3, 1], [0, 2]])
    drawings = [
        charts.curves({"loss": {"train": ([0, 1], [2.0, 1.0]), "test": ([1], [3.0])}, "lr": {"lr": ([0], [1.0])}}),
        charts.confusion(matrix, ["ant", "bee"]),
        figures.filters(filter_components(model, 9)),
        figures.similarity(position_similarity(model).numpy()),
        figures.rollout(model, image),
        figures.rollouts([image], [image], ["an image"]),
        figures.attention(model, image),
        figures.attention(model, image, patch=(1, 0)),
        figures.relevance(model, image),
        figures.relevance(model, image, [2]),
        figures.distance(model, [image, image]),
        figures.lens(model, image),
        figures.neighbours(image, [image, image], ["cat $x$.png", "ant 0.99", "bee 0.98"]),
        charts.bars({"ant": 0.5}, "top-1"),
        charts.reliability(np.array([0, 3]), np.array([0.0, 0.9]), np.array([0.0, 2 / 3]), 0.23),
    ]
    assert len({drawing.svg() for drawing in drawings}) == len(drawings)


@pytest.mark.parametrize(("count", "inside"), [(4, [True, False]), (7, [False, False])])
def test_the_names_of_many_series_stand_below_their_panels_each_once(count, inside):
    series = {f"model {number}": [charts.Point(x, number + x) for x in (1, 2, 4)] for number in range(count)}
    figure = charts.against({"one": series, "other": series}, "x", "y", log_x=True).figure
    assert [axes.get_legend() is not None for axes in figure.axes] == inside
    below = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert sorted(below) == ([] if count == 4 else sorted(series))
    looks = {
        (line.get_color(), line.get_marker())
        for axes in figure.axes
        for line in axes.lines
        if len(line.get_xdata()) == 3
    }
    assert len({look for look in looks if look[1] in "osD^vPX"}) == count


def test_a_figure_of_many_classes_can_be_drawn():
    charts.confusion(np.eye(40, dtype=np.int64), [str(index) for index in range(40)]).svg()


def test_constant_filters_are_drawn_without_dividing_by_zero():
    figures.filters(np.zeros((3, 4, 4, 3), np.float32)).svg()


def test_an_overlay_is_black_where_the_heat_is_lowest_and_the_image_where_it_is_highest(image):
    heat = np.zeros((4, 6), np.float32)
    heat[:, 3:] = 1.0
    shown = figures.overlay(image, heat, Size(5, 5))
    assert (shown.shape, shown.dtype) == (image.shape, np.uint8)
    assert int(shown[:, 0].max()) <= 12
    assert np.abs(shown[:, -1].astype(int) - image[:, -1]).max() <= 12
    assert (shown <= image).all()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_even_heat_gives_an_image_and_no_error(image, value):
    assert figures.overlay(image, np.full((4, 6), value, np.float32), Size(5, 5)).shape == image.shape


def test_a_rollout_shows_what_the_model_sees(make_model, image):
    prepared, shown = figures.rollout_overlay(make_model(), image)
    np.testing.assert_array_equal(prepared, make_model().image_spec.prepare(image))
    assert shown.shape == prepared.shape == (8, 8, 3)
    assert (shown <= prepared).all()


def test_a_rollout_is_drawn_from_a_path(tmp_path, make_model, image):
    Image.fromarray(image).save(tmp_path / "cat.png")
    model = make_model()
    assert figures.rollout(model, tmp_path / "cat.png").svg() == figures.rollout(model, image).svg()


def test_a_path_that_is_no_image_is_refused(tmp_path, make_model):
    (tmp_path / "cat.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"cat\.png"):
        figures.rollout(make_model(), tmp_path / "cat.png")


def test_names_in_a_figure_are_text_and_not_markup():
    svg = charts.bars({"<b>&": 0.5}, "top-1").svg()
    assert not re.search(r"<b>", svg)


def test_a_model_that_a_figure_is_not_for_is_refused_in_one_line(make_model, image):
    resnet = build(ResNetSettings(image_size=Size(8, 8), depths=(1,), root_width=32, num_classes=2))
    axial = make_model(attention=Axial(), pool=Mean())
    for model in (resnet, axial):
        for draw in (figures.rollout, figures.attention, figures.relevance):
            with pytest.raises(WeightsError, match="no attention between all of its patches"):
                draw(model, image)
        with pytest.raises(WeightsError, match="no attention between all of its patches"):
            figures.distance(model, [image])
    with pytest.raises(WeightsError, match="is a ResNet"):
        figures.lens(resnet, image)
    assert figures.lens(axial, image).svg()
    for draw in (figures.relevance, figures.lens):
        with pytest.raises(WeightsError, match="has no head"):
            draw(make_model(num_classes=None), image)


def test_what_cannot_be_drawn_says_so(make_model, image, tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        figures.rollout(make_model(), tmp_path / "none.png")
    with pytest.raises(DataError, match="give one or more"):
        figures.distance(make_model(), [])
    with pytest.raises(ValueError, match="no patch 2, 0 on a grid of 2×2"):
        figures.attention(make_model(), image, patch=(2, 0))
    with pytest.raises(ValueError, match="no class 7"):
        figures.relevance(make_model(), image, [7])


def test_maps_of_zeros_and_of_any_grid_are_drawn():
    for shape in ((1, 1, 1, 1), (2, 3, 1, 5), (30, 2, 4, 1)):
        figures.attention_grid(np.zeros(shape, np.float32)).svg()
    figures.similarity(np.ones((3, 5, 3, 5), np.float32)).svg()
    figures.distances(np.zeros((1, 1), np.float32), 0.0).svg()


def test_a_lens_of_many_classes_draws_those_that_lead():
    shares = np.full((5, 1000), 0.0005, np.float32)
    shares[[0, 1, 2, 3, 4], [9, 8, 9, 7, 7]] = 0.5
    svg = figures.lens_curves(shares, [f"class {number}" for number in range(1000)], 3).svg()
    assert svg.count('id="line2d_') < 60
