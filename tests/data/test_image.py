import io
import json
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageCms, ImageFile

from vitlab.data.image import decode
from vitlab.data.limits import Limits
from vitlab.errors import ImageError, RequestError

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
GROUPS = [
    *("jpeg", "exif", "icc", "mismatch", "corrupt", "unsupported", "bomb", "size", "png", "png16", "alpha"),
    *("animated", "gif", "bmp", "tiff", "webp", "avif", "other", "security", "fs"),
]


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(width: int = 40, height: int = 24, mode: str = "RGB") -> Image.Image:
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([x * 5, y * 9, (x + y) * 3], -1).astype(np.uint8)).convert(mode)


def photo() -> bytes:
    """A JPEG with enough entropy data to be damaged in many places."""
    noise = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    return encoded(Image.fromarray(noise).resize((320, 240)), "JPEG", quality=92)


def png(
    width: int, height: int, depth: int, color: int, rows: bytes, *, between: bytes = b"", interlaced: int = 0
) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced))
    return b"\x89PNG\r\n\x1a\n" + header + between + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def complaint(nasty: Path, case: dict) -> str | None:
    """What is wrong with our answer to one case, if anything."""
    data = (nasty / case["path"]).read_bytes()
    start = time.perf_counter()
    try:
        pixels = decode(data, case["path"])
    except ImageError as error:
        line = str(error)
        if case["expect"] == "decode":
            return f"refused: {line}"
        return None if case["path"] in line and "\n" not in line and error.remedy else f"unclear: {line}"
    finally:
        seconds = time.perf_counter() - start
    if case["expect"] == "error":
        return "decoded"
    if case["size"] and [pixels.shape[1], pixels.shape[0]] != case["size"]:
        return f"size {pixels.shape}"
    if case["ref"]:
        with Image.open(nasty / "ref" / f"{case['ref']}.png") as image:
            reference = np.asarray(image.convert("RGB"), np.float64)
        difference = np.abs(pixels - reference).mean((0, 1)).max()
        if difference > case["max_mad"]:
            return f"differs by {difference:.1f}"
    return f"took {seconds:.1f} s" if seconds > 2 else None


@pytest.mark.parametrize("group", GROUPS)
def test_every_odd_or_broken_file_is_shown_right_or_refused_by_name(nasty, group):
    cases = [case for case in json.loads((nasty / "manifest.json").read_text())["cases"] if case["group"] == group]
    assert cases
    complaints = {case["id"]: complaint(nasty, case) for case in cases}
    assert {name: text for name, text in complaints.items() if text} == {}


def test_every_group_of_the_corpus_is_tested(nasty):
    assert {case["group"] for case in json.loads((nasty / "manifest.json").read_text())["cases"]} == set(GROUPS)


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40).map(lambda s: (*s, 3))))
def test_lossless_formats_return_the_pixels_that_were_written(pixels):
    image = Image.fromarray(pixels)
    for data in (encoded(image, "PNG"), encoded(image, "WEBP", lossless=True), encoded(image, "TIFF")):
        decoded = decode(data, "x")
        assert decoded.dtype == np.uint8 and decoded.flags.writeable and decoded.flags.c_contiguous
        np.testing.assert_array_equal(decoded, pixels)


@given(
    st.binary(max_size=300),
    st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "PPM", "ICO"]),
    st.data(),
)
def test_whatever_the_bytes_only_image_error_is_raised(junk, kind, data):
    good = encoded(picture(16, 16), kind)
    place = data.draw(st.integers(0, len(good)))
    for bytes_ in (junk, good[:place], good[:place] + junk + good[place + len(junk) :]):
        try:
            pixels = decode(bytes_, "x")
        except ImageError:
            continue
        assert pixels.ndim == 3 and pixels.shape[2] == 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_in_every_format_that_has_it(kind, orientation):
    options = {"exif": exif(orientation), **({"quality": 100} if kind in ("JPEG", "AVIF") else {})}
    stored = picture()
    upright = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90,
    }[orientation](np.asarray(stored, np.int16))
    decoded = decode(encoded(stored, kind, **options), "x")
    assert decoded.shape == upright.shape
    assert np.abs(decoded - upright).mean() < 6


@given(st.integers(0, 10_000), st.integers(30, 300))
def test_a_truncated_jpeg_is_always_refused(seed, missing):
    data = photo()
    with pytest.raises(ImageError, match="truncated"):
        decode(data[: len(data) - missing - seed], "x")


def test_a_jpeg_whose_rest_is_replaced_by_another_file_is_refused():
    data = photo()
    with pytest.raises(ImageError):
        decode(data[: len(data) // 2] + photo(), "x")


def test_a_jpeg_with_a_thumbnail_and_trailing_bytes_decodes():
    thumbnail = encoded(picture(8, 8), "JPEG")
    data = encoded(picture(), "JPEG")
    segment = b"\xff\xe5" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    np.testing.assert_array_equal(decode(data[:2] + segment + data[2:] + photo(), "x"), decode(data, "x"))


def test_decoding_jpeg_gives_the_pixels_of_pillow():
    for options in ({}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 3}, {"optimize": True}):
        data = encoded(picture(123, 77), "JPEG", **options)
        with Image.open(io.BytesIO(data)) as image:
            np.testing.assert_array_equal(decode(data, "x"), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("height", [1, 7, 60])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
def test_a_png_that_ends_early_is_refused_though_its_checksums_are_right(height, keep):
    rows = b"".join(b"\0" + bytes([200] * 30) for _ in range(height))
    with pytest.raises(ImageError, match=r"before its picture does|truncated"):
        decode(png(30, height, 8, 0, rows[: int(len(rows) * keep)]), "x")


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 5), (8, 8), (9, 1), (30, 17)])
@pytest.mark.parametrize("color", [0, 2])
def test_an_interlaced_png_that_ends_early_is_refused(width, height, color):
    total = 0
    for x, y, dx, dy in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        columns = len(range(x, width, dx)) * (3 if color == 2 else 1)
        total += len(range(y, height, dy)) * (1 + columns) * (columns > 0)
    assert decode(png(width, height, 8, color, bytes(total), interlaced=1), "x").shape == (height, width, 3)
    with pytest.raises(ImageError):
        decode(png(width, height, 8, color, bytes(total - 1), interlaced=1), "x")


def test_a_png_whose_last_rows_are_black_is_whole():
    pixels = np.zeros((9, 11, 3), np.uint8)
    pixels[0] = 7
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(pixels), "PNG"), "x"), pixels)


def test_sixteen_bit_samples_are_scaled():
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)
    rows = b"\0" + ramp.astype(">u2").tobytes()
    expected = np.repeat((ramp >> 8).astype(np.uint8)[None, :, None], 3, 2)
    np.testing.assert_array_equal(decode(png(64, 1, 16, 0, rows), "x"), expected)
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(ramp[None]), "TIFF"), "x"), expected)
    np.testing.assert_array_equal(decode(b"P5 64 1 65535\n" + ramp.astype(">u2").tobytes(), "x"), expected)


def test_the_transparent_colour_of_a_sixteen_bit_png_is_white():
    key = b"\0\2tRNS\x12\x34"
    chunk = b"\0\0" + key + struct.pack(">I", zlib.crc32(key[2:]))
    decoded = decode(png(2, 1, 16, 0, b"\0\x12\x34\x12\x35", between=chunk), "x")
    assert decoded[0, :, 0].tolist() == [255, 0x12]


def test_white_is_zero_in_a_sixteen_bit_tiff():
    image = Image.fromarray(np.array([[0, 65535]], np.uint16))
    data = encoded(image, "TIFF", tiffinfo={262: 0})
    assert decode(data, "x")[0, :, 0].tolist() == [255, 0]


def test_a_grey_profile_is_applied_and_a_profile_of_other_channels_is_not():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    grey = picture(mode="L")
    plain = decode(encoded(grey, "PNG"), "x")
    np.testing.assert_array_equal(decode(encoded(grey, "PNG", icc_profile=srgb), "x"), plain)
    colour = picture()
    np.testing.assert_array_equal(decode(encoded(colour, "PNG", icc_profile=srgb), "x"), np.asarray(colour))


def test_transparency_is_blended_with_white():
    image = Image.new("RGBA", (3, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    image.putpixel((2, 0), (0, 0, 0, 128))
    assert decode(encoded(image, "PNG"), "x")[0].tolist() == [[255, 0, 0], [255, 255, 255], [127, 127, 127]]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM", "ICO"])
@pytest.mark.parametrize("limit", [{"max_pixels": 1023}, {"max_side": 31}, {"max_bytes": 20}])
def test_limits_hold_in_every_format_and_at_their_edge(kind, limit):
    data = encoded(picture(32, 32), kind, **({"sizes": [(32, 32)]} if kind == "ICO" else {}))
    with pytest.raises(ImageError, match="more than"):
        decode(data, "x", Limits(**limit))
    assert decode(data, "x", Limits(max_pixels=1024, max_side=32, max_bytes=len(data))).shape == (32, 32, 3)


def test_an_icon_that_holds_a_huge_picture_is_refused_by_its_size():
    inner = png(20_000, 20_000, 1, 0, b"")
    icon = b"\0\0\1\0\1\0" + struct.pack("<BBBBHHII", 32, 32, 0, 0, 1, 32, len(inner), 22) + inner
    with pytest.raises(ImageError, match="20000 × 20000"):
        decode(icon, "x")


def test_progressive_scans_are_limited():
    data = encoded(picture(), "JPEG", progressive=True)
    assert decode(data, "x", Limits(max_scans=12)).shape == (24, 40, 3)
    with pytest.raises(ImageError, match="scans"):
        decode(data, "x", Limits(max_scans=2))


def test_it_does_not_work_while_pillow_lets_incomplete_pictures_pass(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(RequestError, match="LOAD_TRUNCATED_IMAGES"):
        decode(encoded(picture(), "PNG"), "x")


def test_the_photos_of_real_cameras_decode():
    folder = SHARED / "data" / "imagenet-sample" / "originals"
    if not folder.exists():
        pytest.skip(f"{folder} is not here")
    for path in folder.iterdir():
        data = path.read_bytes()
        with Image.open(path) as image:
            width, height = image.size
        assert sorted(decode(data, path.name).shape[:2]) == sorted((height, width))
