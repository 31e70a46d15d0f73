import asyncio
import io
import os
import signal
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from tests.serve.conftest import png, serving
from vitlab.data.preprocess import CentralCrop, ImageSpec
from vitlab.errors import ImageError
from vitlab.serve.decoding import Decoder
from vitlab.serve.settings import ServeSettings

SPEC = ImageSpec(height=8, width=12, fit=CentralCrop(fraction=0.9))


@pytest.fixture(scope="module")
def decoder():
    one = Decoder(ServeSettings(decoders=1, decode_seconds=1, decode_bytes=200 << 20))
    yield one
    one.end()


def prepare(decoder, data, spec=SPEC):
    return asyncio.run(decoder.prepare(data, spec))


def large_png(side, bits, colour, channels):
    """A PNG of few bytes and many pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    lines = (b"\4" + bytes(bits * channels * side // 8)) * 100  # 4: the dearest filter
    packer = zlib.compressobj(9, wbits=-15)
    packed = packer.compress(lines) + packer.flush(zlib.Z_FULL_FLUSH)  # which can be repeated
    check = 1
    for _ in range(side // 100):
        check = zlib.adler32(lines, check)
    body = b"\x78\xda" + packed * (side // 100) + b"\3\0" + struct.pack(">I", check)
    head = struct.pack(">IIBBBBB", side, side, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def processor_hog():
    return large_png(7_000, 16, 6, 4)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_an_image_is_prepared_as_in_this_process(decoder, kind):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 50, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    data = buffer.getvalue()
    assert np.array_equal(prepare(decoder, data), SPEC.prepare(SPEC.open(data, "image")))


def test_a_bad_image_gives_its_reason_and_costs_no_process(decoder):
    before = decoder.replaced
    for data, reason in ((b"", "is empty"), (b"GIF89a", "cannot be decoded"), (b"%PDF-1.4", "PDF document")):
        with pytest.raises(ImageError, match=reason):
            prepare(decoder, data)
    assert decoder.replaced == before


def test_an_image_that_takes_too_much_memory_is_refused(decoder):
    with pytest.raises(ImageError, match="memory"):
        prepare(decoder, large_png(7_000, 8, 0, 1))
    assert prepare(decoder, png(np.zeros((4, 4, 3), np.uint8))).shape == (8, 12, 3)


def test_a_process_that_is_killed_is_replaced(decoder):
    before = decoder.replaced
    for process in decoder.processes:
        os.kill(process, signal.SIGKILL)
    with pytest.raises(ImageError):
        prepare(decoder, png(np.zeros((4, 4, 3), np.uint8)))
    assert prepare(decoder, png(np.zeros((4, 4, 3), np.uint8))).shape == (8, 12, 3)
    assert decoder.replaced == before + 1


def test_decoders_leave_nothing_behind():
    threads = threading.active_count()
    one = Decoder(ServeSettings(decoders=2))
    processes = one.processes
    files = len(os.listdir("/proc/self/fd"))
    one.end()
    assert len(os.listdir("/proc/self/fd")) == files - 2
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
    assert threading.active_count() == threads


def test_one_hostile_image_stalls_nobody(predictors, photos):
    hog = processor_hog()
    with serving(predictors, decode_seconds=1.0) as site, ThreadPoolExecutor(1) as other:
        expected = [site.predict(photo).body for photo in photos[:8]]
        hostile = other.submit(site.predict, hog)
        while not site.service.models["first"].accepted:
            time.sleep(0.005)
        assert [site.predict(photo).body for photo in photos[:8]] == expected
        assert not hostile.done()
        answer = hostile.result()
        assert answer.status == 422 and "more time or memory" in answer.error
        assert site.service.decoder.replaced == 1
        assert site.predict(photos[0]).body == expected[0]
