import os
import signal
import time

import numpy as np
import pytest
from PIL import Image

from vitlab.data.folder import Folder
from vitlab.data.scan import key_of, scan
from vitlab.errors import DataError, ImageError


def label(example):
    return example.label


def misbehave(example):
    """What a decoder may do to its process: the first byte of the file says it."""
    if not isinstance(example.data, bytes):
        return example.label
    match example.data[:1]:
        case b"k":
            os.kill(os.getpid(), signal.SIGKILL)
        case b"x":
            os._exit(3)
        case b"h":
            time.sleep(1000)
        case b"e":
            raise DataError("the disk", "is on fire", "run")
        case b"b":
            raise ImageError(example.key, "is bad", "")
    return example.label


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("count", [1, 2, 100, 1000])
def test_every_example_is_looked_at_once_in_order(make_source, workers, count):
    source = make_source(count, side=1)
    assert list(scan(source, label, workers)) == source.labels.tolist()


def test_of_nothing_there_is_nothing(make_source):
    assert list(scan(make_source(0, labels=[]), label, 2)) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_is_an_answer_and_not_the_end(make_source, workers):
    source = make_source(images=[b"", b"b", b""], labels=[0, 1, 2])
    answers = list(scan(source, misbehave, workers))
    assert answers[::2] == [0, 2] and str(answers[1]) == "image-1: is bad"


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (b"k", r"ended the process that was reading it \(SIGKILL\)"),
        (b"x", r"ended the process that was reading it \(exit code 3\)"),
        (b"h", "was not read and decoded within 0.2 seconds"),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_what_kills_or_holds_up_a_process_is_named_and_costs_no_other_image(make_source, act, reason, workers):
    images = [b""] * 50
    images[0] = images[7] = images[8] = images[49] = act
    source = make_source(images=images, labels=[0] * 50)
    answers = list(scan(source, misbehave, workers, patience=0.2))
    assert [index for index, answer in enumerate(answers) if answer != 0] == [0, 7, 8, 49]
    for index in (0, 7, 8, 49):
        with pytest.raises(ImageError, match=f"example {index} of memory: {reason}; see whether"):
            raise answers[index]


def test_the_file_that_held_up_a_process_is_named_without_being_read_again(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1\n.png").write_bytes(b"h")
    answers = list(scan(Folder(tmp_path), misbehave, 2, patience=0.2))
    assert [answer.where for answer in answers] == ["a/1\\n.png", "b/1\\n.png"]


@pytest.mark.parametrize("workers", [0, 2])
def test_any_other_error_ends_the_scan(make_source, workers):
    source = make_source(images=[b"", b"e"], labels=[0, 1])
    with pytest.raises(DataError, match="the disk: is on fire; run"):
        list(scan(source, misbehave, workers))


def test_a_scan_that_is_given_up_leaves_no_process_behind(make_source):
    source = make_source(images=[b"", b"h", b"h"], labels=[0, 1, 2])
    answers = scan(source, own_process, 2)
    process = next(answers)
    assert process != os.getpid()
    answers.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def own_process(example):
    return os.getpid()


def test_a_slow_consumer_is_no_hang(make_source):
    source = make_source(600, side=1)
    answers = []
    for answer in scan(source, label, 2, patience=0.3):
        if len(answers) in (0, 300):
            time.sleep(0.5)
        answers.append(answer)
    assert answers == source.labels.tolist()


def test_a_key_is_told_for_any_source(make_source, tmp_path):
    assert key_of(make_source(3), 2) == "image-2"
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.zeros((1, 1, 3), np.uint8)).save(tmp_path / name / "x.png")
    folder = Folder(tmp_path)
    assert len(folder) == 2
    (tmp_path / "b/x.png").unlink()
    assert key_of(folder, 1) == "b/x.png"
