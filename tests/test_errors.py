import pickle
from pathlib import Path

import pytest

from vitlab import errors
from vitlab.errors import BadImagesError, ImageError, RequestError, VitlabError

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, VitlabError) and kind is not BadImagesError
]


def bad_images(count):
    return BadImagesError("photos", [ImageError(f"cat/{i}.png", "is empty", "remove it") for i in range(count)], 99)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_is_one_line_of_place_reason_and_remedy(kind):
    assert str(kind("photos", "is empty", "fill it")) == "photos: is empty; fill it"
    assert str(kind(Path("photos"), "is empty")) == "photos: is empty"


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_survives_the_way_between_processes(kind):
    error = pickle.loads(pickle.dumps(kind(Path("photos"), "is empty", "fill it")))
    assert type(error) is kind and str(error) == "photos: is empty; fill it"
    assert (error.where, error.what, error.remedy) == ("photos", "is empty", "fill it")


def test_nothing_in_an_error_breaks_the_line_moves_the_cursor_or_fills_the_screen():
    evil = "a\nerror: b\r\x1b[2J\x9b\u2028\u202e\ud800"
    plain = r"a\nerror: b\r\x1b[2J\x9b\u2028\u202e\ud800"
    assert str(VitlabError(evil, evil, evil)) == f"{plain}: {plain}; {plain}"
    assert str(VitlabError("Zoë's photos/猫.png", "“x” × 2")) == "Zoë's photos/猫.png: “x” × 2"
    long = str(VitlabError("x" * 10**6, "y" * 10**6, "z" * 10**6))
    assert len(long) < 4000 and long.count("…") == 3
    lines = str(BadImagesError("photos", [ImageError(evil, evil), ImageError("b", "y" * 10**6)], 9)).splitlines()
    assert lines[1] == f"  {plain}: {plain}" and len(lines) == 3 and len(lines[2]) < 2000


def test_a_wrong_request_exits_with_2_and_failed_work_with_1():
    codes = {kind.__name__: kind.exit_code for kind in KINDS}
    failed = {name for name, code in codes.items() if code == 1}
    trained = {"NonFiniteError", "WorkerError", "CheckpointError", "RankError", "NotEnoughMemoryError"}
    assert failed == {"VitlabError", "PackError", "PredictionError", "ExportError", "BusyError", *trained}
    assert set(codes.values()) == {1, 2} and RequestError.exit_code == BadImagesError.exit_code == 2


def test_every_bad_image_is_named_with_its_reason_on_a_line_of_its_own():
    lines = str(bad_images(3)).splitlines()
    assert lines[0].startswith("photos: 3 of 99 images cannot be used") and "--on-bad-image skip" in lines[0]
    assert lines[1:] == [f"  cat/{i}.png: is empty" for i in range(3)]


def test_more_than_fifty_bad_images_are_counted():
    said = str(bad_images(60))
    assert "cat/49.png" in said and "cat/50.png" not in said
    assert said.startswith("photos: 60 of 99 images") and said.endswith("… and 10 more")


def test_bad_images_survive_the_way_between_processes():
    error = bad_images(60)
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error)
    assert [str(image) for image in copy.images] == [str(image) for image in error.images]
