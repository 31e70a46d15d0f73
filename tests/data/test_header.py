import io
import json
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vitlab.data.header import Header, read_header
from vitlab.data.image import decode
from vitlab.data.source import Example
from vitlab.errors import ImageError


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Example(file.getvalue(), 0, "x")


def orientation(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("JPEG", "JPEG"), ("PNG", "PNG"), ("WEBP", "WebP"), ("GIF", "GIF"), ("BMP", "BMP"), ("TIFF", "TIFF")),
        *(("AVIF", "AVIF"), ("JPEG2000", "JPEG 2000"), ("PPM", "PPM"), ("ICO", "ICO")),
    ],
)
def test_the_header_of_every_format_that_is_decoded(kind, name):
    image = Image.new("RGB", (31, 17), (200, 30, 30))
    options = {"sizes": [(31, 17)]} if kind == "ICO" else {}
    assert read_header(saved(image, kind, **options)) == Header(name, 31, 17, grey=False, turned=False)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("value", range(1, 10))
def test_the_size_is_that_of_the_upright_image_as_it_is_decoded(kind, value):
    example = saved(Image.new("RGB", (31, 17)), kind, exif=orientation(value))
    header = read_header(example)
    height, width = decode(example.data, "x").shape[:2]
    assert (header.width, header.height, header.turned) == (width, height, 2 <= value <= 8)


@pytest.mark.parametrize(
    ("mode", "grey"), [("L", True), ("LA", True), ("1", True), ("I;16", True), ("RGB", False), ("RGBA", False)]
)
def test_grey_is_told_by_the_channels(mode, grey):
    assert read_header(saved(Image.new(mode, (3, 2)), "PNG")).grey is grey


def test_pixels_have_a_header_too():
    colour = np.zeros((2, 3, 3), np.uint8)
    colour[0, 0] = (1, 2, 3)
    assert read_header(Example(colour, 0, "x")) == Header("pixels", 3, 2, False, False)
    assert read_header(Example(np.full((2, 3, 3), 7, np.uint8), 0, "x")).grey


@given(
    st.binary(max_size=64), st.sampled_from([b"", b"\0\0\1\0", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"P6 "])
)
def test_whatever_the_bytes_there_is_a_header_or_none(content, start):
    with warnings.catch_warnings(action="error"):
        header = read_header(Example(start + content, 0, "x"))
    assert header is None or (header.width > 0 and header.height > 0)


def test_a_header_agrees_with_the_decoder_on_every_odd_image(layouts):
    corpus = layouts.parent
    for case in json.loads((corpus / "manifest.json").read_text())["cases"]:
        example = Example((corpus / case["path"]).read_bytes(), 0, case["id"])
        header = read_header(example)
        try:
            height, width = decode(example.data, "x").shape[:2]
        except ImageError:
            continue
        assert (header.width, header.height) == (width, height), case["id"]
