import numpy as np
import pytest
from PIL import Image

from vitlab.data import sheet
from vitlab.data.digits import Digits
from vitlab.data.sheet import draw_sheet, new_sheet_path, write_sheet
from vitlab.errors import DataError


def cell(page, left, row, column):
    return np.asarray(page)[row_top(row) : row_top(row) + 96, left + 102 * column : left + 102 * column + 96]


def row_top(row):
    return sheet._top(row)


LEFT = 16 + 110 + 12  # where the images begin when the names are short


def test_each_row_shows_examples_of_its_class(make_source):
    images = [np.full((8, 8, 3), (40 * label, index, 200), np.uint8) for index, label in enumerate([0, 1, 2] * 10)]
    source = make_source(images=images, labels=[0, 1, 2] * 10)
    page = draw_sheet(source)
    for row in range(3):
        shown = [cell(page, LEFT, row, column) for column in range(8)]
        assert all((pixels == pixels[0, 0]).all() and pixels[0, 0, 0] == 40 * row for pixels in shown)
        assert len({int(pixels[0, 0, 1]) for pixels in shown}) == 8


def test_the_sheet_is_a_function_of_the_data_and_the_seed_alone(tmp_path):
    pages = []
    for number, (seed, workers) in enumerate([(0, 0), (0, 2), (1, 0)]):
        path = new_sheet_path(tmp_path / str(number))
        write_sheet(path, Digits(), seed, workers)
        pages.append(path.read_bytes())
    assert pages[0] == pages[1] != pages[2]
    assert [path.name for path in (tmp_path / "0").iterdir()] == ["contact-sheet.png"]


def test_images_keep_their_proportions_and_small_ones_are_enlarged_whole(make_source):
    images = [
        np.full((100, 400, 3), 9, np.uint8),
        np.full((30, 10, 3), 9, np.uint8),
        np.full((5000, 1, 3), 9, np.uint8),
    ]
    page = draw_sheet(make_source(images=images, labels=[0, 1, 2]))
    assert [
        tuple((cell(page, LEFT, row, 0) == 9).all(axis=2).sum(axis=axis).max() for axis in (1, 0)) for row in range(3)
    ] == [
        (96, 24),
        (30, 90),
        (1, 96),
    ]


def test_an_image_that_cannot_be_decoded_is_a_marked_cell(make_source):
    page = draw_sheet(make_source(images=[b"?", np.zeros((9, 9, 3), np.uint8)], labels=[0, 1]))
    assert tuple(cell(page, LEFT, 0, 0)[0, 0]) == (0xF8, 0xDC, 0xDC)


def test_classes_without_examples_have_no_row_and_of_many_classes_some_are_shown(make_source, monkeypatch):
    said = []
    page = sheet._page
    monkeypatch.setattr(sheet, "_page", lambda *given: said.append(given[:2]) or page(*given))
    names = tuple(f"class {number}" for number in range(100))
    draw_sheet(make_source(200, classes=(*names, "empty"), labels=[*range(100)] * 2))
    assert said[0][0] == "memory: 200 images, 40 of 100 classes"
    assert len(said[0][1]) == 40 and sorted(said[0][1], key=names.index) == said[0][1]
    draw_sheet(make_source(2, classes=("a", "b", "none"), labels=[0, 1]))
    assert said[1] == ("memory: 2 images, 2 classes", ["a", "b"])


@pytest.mark.parametrize("name", ["", "x", "W" * 300, "two words " * 20, "a-b_" * 40, "汉字" * 30, "\U0001f600 ok"])
def test_any_name_fits_in_its_column(make_source, name):
    page = draw_sheet(make_source(2, classes=(name, "b"), labels=[0, 1]))
    inked = np.flatnonzero((np.asarray(page)[row_top(0) : row_top(1)] < 128).all(axis=2).any(axis=0))
    assert page.width <= LEFT + 150 + 8 * 102 + 16 and (not len(inked) or inked[0] >= 14)


def test_the_examples_of_several_labels_are_shown_for_each(make_source):
    source = make_source(3, labels=[0, 0, 0])
    source.labels = np.array([[0, 1], [1, -1], [1, 2]])
    source.read = lambda index: sheet.Example(source.images[index], 0, str(index))
    assert draw_sheet(source).height == row_top(3) - 6 + 16


def test_a_sheet_is_never_overwritten(tmp_path):
    (tmp_path / "contact-sheet.png").write_text("mine")
    with pytest.raises(DataError, match=r"contact-sheet.png: exists already; choose another --out"):
        new_sheet_path(tmp_path)
    with pytest.raises(DataError, match="cannot be made"):
        new_sheet_path(tmp_path / "contact-sheet.png" / "x")
    assert isinstance(draw_sheet(Digits()), Image.Image)
