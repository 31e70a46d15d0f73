"""The training input path against torchvision's and timm's, on one core: random resized crop to 224, flip, uint8 tensor.

    python benchmarks/peers_input.py [FOLDER]

Run it where the peers are installed; those that are not are left out. FOLDER holds JPEG photos (any size below 700 pixels, as
ImageNet's); without it photos are generated. The large ones are these, enlarged to 12 megapixels.
"""

import contextlib
import importlib
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timing import Row, compare

from vitlab.data import native
from vitlab.data.batch import collate
from vitlab.data.image import open_image
from vitlab.data.jpeg import read_header
from vitlab.data.limits import LIMITS
from vitlab.data.preprocess import ImageSpec
from vitlab.data.resize import Box, resize
from vitlab.data.source import Pixels
from vitlab.data.transforms import Augment, InceptionCrop, inception_box

PHOTOS, LARGE = 60, 6
SPEC, AUGMENT = ImageSpec(), Augment(crop=InceptionCrop(area=(0.05, 1.0)))


def generated(count: int, width: int = 500, height: int = 375) -> list[bytes]:
    """Return JPEG files with the detail of photos: smooth shapes and some noise."""
    files: list[bytes] = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        coarse = Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
        noisy = smooth + rng.integers(-12, 12, (height, width, 3))
        files.append(_jpeg(Image.fromarray(noisy.clip(0, 255).astype(np.uint8)), 90))
    return files


def read(folder: Path) -> list[bytes]:
    """Return the colour JPEG files of `folder` below 700 pixels."""
    files: list[bytes] = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        image = Image.open(io.BytesIO(data))
        if image.format == "JPEG" and image.mode == "RGB" and max(image.size) < 700:
            files.append(data)
    return files[:PHOTOS]


def enlarged(data: bytes) -> bytes:
    """Return a photo as a 12-megapixel camera might have written it."""
    image = Image.open(io.BytesIO(data)).convert("RGB").resize((4000, 3000), Image.Resampling.LANCZOS)
    return _jpeg(image, 92)


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def ours(files: list[bytes]) -> None:
    """The path of `TrainBatches`, up to the tensor."""
    views = (
        AUGMENT.apply(open_image(data, "photo"), SPEC, np.random.default_rng((0, 1, index)))
        for index, data in enumerate(files)
    )
    collate(views, [0] * len(files), [""] * len(files), len(files), (SPEC.height, SPEC.width))


def raw(files: list[bytes]) -> None:
    """What no input path can go below: decoding the same parts, at full scale, and nothing else."""
    for index, data in enumerate(files):
        header = read_header(data, "photo", LIMITS)
        box = inception_box(
            header.height, header.width, (0.05, 1.0), (3 / 4, 4 / 3), np.random.default_rng((0, 1, index))
        )
        native.region(data, (int(box.left), int(box.top), int(box.right), int(box.bottom)))


def peers() -> dict[str, Callable[[list[bytes]], None]]:
    """The pipelines of the peers that are installed."""
    found: dict[str, Callable[[list[bytes]], None]] = {}
    with contextlib.suppress(ImportError):
        importlib.import_module("peers")  # makes torchvision importable beside a CPU-only torch, where it is
    try:
        v2: Any = importlib.import_module("torchvision.transforms.v2")
        views = [v2.RandomResizedCrop(224, scale=(0.05, 1.0)), v2.RandomHorizontalFlip(), v2.PILToTensor()]
        found["torchvision v2, Pillow"] = _pipeline(v2.Compose(views))
    except ImportError:
        print("torchvision is not installed: left out")
    try:
        timm: Any = importlib.import_module("timm.data")
        options = {"scale": (0.05, 1.0), "color_jitter": 0.0, "interpolation": "bilinear", "use_prefetcher": True}
        found["timm create_transform"] = _pipeline(timm.create_transform(224, is_training=True, **options))
    except ImportError:
        print("timm is not installed: left out")
    return found


def _pipeline(transform: Callable[[Image.Image], object]) -> Callable[[list[bytes]], None]:
    def run(files: list[bytes]) -> None:
        views = [torch.as_tensor(transform(Image.open(io.BytesIO(data)).convert("RGB"))) for data in files]
        torch.stack(views)

    return run


def difference(files: list[bytes]) -> float:
    """Return the mean absolute difference, of 255, to Pillow decoding all and resizing the same box."""
    found: list[float] = []
    for index, data in enumerate(files):
        image = Image.open(io.BytesIO(data)).convert("RGB")
        box = inception_box(image.height, image.width, (0.05, 1.0), (3 / 4, 4 / 3), np.random.default_rng(index))
        expected = np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR, box=box), np.int16)
        found.append(float(np.abs(expected - _view(data, box)).mean()))
    return float(np.mean(found))


def _view(data: bytes, box: Box) -> Pixels:
    return resize(open_image(data, "photo", decoding="pil-compat"), 224, 224, "bilinear", box, sooner=True)


def main() -> None:
    torch.set_num_threads(1)
    small = read(Path(sys.argv[1])) if len(sys.argv) > 1 else generated(PHOTOS)
    rows: list[Row] = []
    for name, files in (
        ("photos of about 500 px", small),
        ("12-megapixel photos", [enlarged(d) for d in small[:LARGE]]),
    ):
        print(f"{name}: {len(files)} files; mean difference to Pillow {difference(files):.4f} of 255")
        for peer, pipeline in peers().items():
            rows.append(compare(name, peer, lambda f=files: ours(f), lambda f=files, p=pipeline: p(f)))
        if native.available():
            rows.append(compare(name, "decoding the same parts alone", lambda f=files: ours(f), lambda f=files: raw(f)))
    print("\n".join(row.markdown() for row in rows))


if __name__ == "__main__":
    main()
