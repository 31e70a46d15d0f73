import io
import json
import os
import signal

import numpy as np
import pytest
from PIL import Image

from vitlab.data import check as module
from vitlab.data.check import check, find_bad_images
from vitlab.data.image import decode


def png(value):
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("workers", [0, 2])
def test_every_bad_image_is_listed_in_order_with_its_reason_and_counted(make_source, workers):
    good = [png(value) for value in range(40)]
    train = make_source(images=[*good[:20], b"", *good[20:], good[0][:60]], labels=[0] * 42)
    val = make_source(images=[b"GIF89a", np.zeros((2, 2, 3), np.uint8)], labels=[0, 0])
    heard = []
    found = check({"train": train, "val": val}, workers, seen=heard.append)
    assert [error.where for error in found.bad["train"]] == ["image-20", "image-41"]
    assert "is empty" in str(found.bad["train"][0]) and "truncated" in str(found.bad["train"][1])
    assert found.count == 3 and found.totals == {"train": 42, "val": 2}
    assert len(heard) == 44 and [error for error in heard if error] == [*found.bad["train"], *found.bad["val"]]
    assert found.lines("x") == ["x: 44 images, 41 good, 3 bad"]
    assert list(find_bad_images(train, workers)) == [20, 41]


def test_conflicts_and_leaks_are_warnings_among_images_that_are_good(make_source):
    train = make_source(images=[png(1), png(1), png(2), b"?"], labels=[0, 1, 2, 0])
    val = make_source(images=[png(2), b"?"], labels=[2, 1])
    found = check({"train": train, "val": val})
    assert found.lines("x") == [
        "warning: the same image with different labels: 1 time\n  image-0 = image-1 (ant, bee)",
        "warning: the same image in more than one split: 1 time\n  image-2 = image-0 (cat)",
        "x: 6 images, 4 good, 2 bad",
    ]
    plain = json.loads(json.dumps(found.as_json()))
    assert (plain["total"], plain["good"]) == (6, 4)
    assert plain["bad"][0] | {"remedy": ""} == {
        "split": "train",
        "image": "image-3",
        "what": plain["bad"][0]["what"],
        "remedy": "",
    }
    assert plain["conflicts"][0]["classes"] == ["ant", "bee"] and plain["leaks"][0]["splits"] == ["train", "val"]


def test_an_image_that_kills_its_decoder_is_one_bad_image(make_source, monkeypatch):
    def fragile(data, name, limits):
        if data == b"killer":
            os.kill(os.getpid(), signal.SIGTERM)
        return decode(data, name, limits)

    monkeypatch.setattr(module, "decode", fragile)
    source = make_source(images=[png(0), b"killer", png(1)], labels=[0, 1, 2])
    found = check({"all": source}, workers=2)
    assert [str(error) for error in found.bad["all"]] == [
        "example 1 of memory: ended the process that was reading it (SIGTERM); see whether memory was short, or remove it"
    ]
