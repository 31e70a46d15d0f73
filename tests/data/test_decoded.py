"""Images that are decoded once for several runs are those that a run by itself sees."""

import io

import numpy as np
import pytest
from PIL import Image

from vitlab.data.decoded import Decoded, decode_once
from vitlab.data.loader import EvalBatches, TrainBatches
from vitlab.data.preprocess import ImageSpec
from vitlab.data.transforms import Augment

SPEC = ImageSpec(height=8, width=8)


def encoded(kind, count=6, mode="RGB", side=12):
    rng = np.random.default_rng(0)
    files = []
    for _ in range(count):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (side, side, len(mode)), np.uint8), mode).save(file, kind, lossless=True)
        files.append(file.getvalue())
    return files


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "RGB"), ("PNG", "RGBA"), ("WEBP", "RGB")])
@pytest.mark.parametrize("decoding", ["standard", "pil-compat"])
def test_batches_are_the_same(make_source, kind, mode, decoding):
    source, spec = make_source(6, images=encoded(kind, mode=mode)), SPEC.model_copy(update={"decoding": decoding})
    kept = decode_once(source, spec)
    assert isinstance(kept, Decoded) and str(kept) == str(source) and kept.labels.tolist() == source.labels.tolist()
    assert isinstance(kept.read(0).data, np.ndarray)
    made = [TrainBatches(each, each.labels, spec, Augment(), 4, seed=1)[2] for each in (source, kept)]
    made += [EvalBatches(each, spec, 6)[0] for each in (source, kept)]
    for one, other in (made[:2], made[2:]):
        assert one.images.equal(other.images) and one.labels.equal(other.labels) and one.keys == other.keys


@pytest.mark.parametrize(
    "images",
    [encoded("JPEG"), [*encoded("PNG", 3), *encoded("JPEG", 3)], [*encoded("PNG", 5), b"none"]],
    ids=["jpeg", "mixed", "damaged"],
)
def test_what_would_be_others_stays_as_it_is(make_source, images):
    source = make_source(6, images=images)
    assert decode_once(source, SPEC) is source


def test_no_more_is_kept_than_fits(make_source):
    source = make_source(6, images=encoded("PNG"))
    assert isinstance(decode_once(source, SPEC, 6 * 12 * 12 * 3), Decoded)
    assert decode_once(source, SPEC, 6 * 12 * 12 * 3 - 1) is source
    growing = make_source(4, images=[*encoded("PNG", 3, side=2), *encoded("PNG", 1, side=64)])
    assert decode_once(growing, SPEC, 1000) is growing


def test_pixels_in_memory_stay_where_they_are(make_source):
    source = make_source()
    assert decode_once(source, SPEC) is source
