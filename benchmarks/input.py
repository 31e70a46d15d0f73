"""What the training input path costs over the decoder alone, on one core, for a generated 500×375 JPEG."""

import io

import numpy as np
from PIL import Image
from timing import Row, compare

from vitlab.data.image import decode
from vitlab.data.preprocess import ImageSpec
from vitlab.data.transforms import Augment

IMAGES = 40


def _photo() -> bytes:
    """Return a JPEG with the detail of a photo: smooth shapes and some noise."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8)).resize((500, 375), Image.Resampling.BICUBIC)
    noisy = np.asarray(coarse, np.int16) + rng.integers(-12, 12, (375, 500, 3))
    buffer = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def measure() -> list[Row]:
    data, spec, augment = _photo(), ImageSpec(), Augment()

    def ours() -> None:
        for index in range(IMAGES):
            augment.apply(decode(data, "photo"), spec, np.random.default_rng(index))

    def decoder() -> None:
        for _ in range(IMAGES):
            Image.open(io.BytesIO(data)).convert("RGB")

    return [compare("decode, inception crop, flip to 224", "Pillow decoding alone (the limit is 1)", ours, decoder)]
