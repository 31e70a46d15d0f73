"""`vitlab data describe` and `vitlab data check`, on good, bad and odd data."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.end_to_end.conftest import draw, environment, vitlab
from vitlab.data.native import decoder

DECODER = f"JPEG files are decoded by {decoder()}\n"


def test_describe_as_a_process_says_what_there_is_and_draws_a_sheet(photos, tmp_path):
    done = vitlab("data", "describe", photos, "--out", tmp_path / "look", "--workers", 2)
    assert done.code == 0 and done.err == ""
    lines = done.out.splitlines()
    assert lines[0] == str(photos) and "  cat             8" in lines
    assert lines[-1] == f"contact sheet: {tmp_path / 'look' / 'contact-sheet.png'}"
    with Image.open(tmp_path / "look" / "contact-sheet.png") as sheet:
        assert sheet.format == "PNG" and sheet.width > 8 * 96 and sheet.height > 3 * 96
    assert vitlab("data", "describe", photos, "--workers", 0).out == "\n".join(lines[:-2]) + "\n"


def test_check_as_a_process_names_every_bad_image_and_fails(rotten):
    folder, bad = rotten
    done = vitlab("data", "check", folder, "--workers", 2)
    assert done.code == 1 and done.err == DECODER
    *named, last = done.out.splitlines()
    assert [line.split(": ")[0] for line in named] == sorted(bad) and last == f"{folder}: 24 images, 20 good, 4 bad"


def test_check_of_good_images_is_a_success(within, photos):
    done = within("data", "check", photos)
    assert (done.code, done.err, done.out) == (0, DECODER, f"{photos}: 24 images, 24 good, 0 bad\n")


def test_both_speak_json(within, rotten):
    folder, bad = rotten
    found = within("data", "check", folder, "--json")
    assert found.code == 1
    said = json.loads(found.out)
    assert (said["data"], said["total"], said["good"]) == (str(folder), 24, 20)
    assert [image["image"] for image in said["bad"]] == sorted(bad)
    found = within("data", "describe", folder, "--json", "--out", "look")
    said = json.loads(found.out)
    assert found.code == 0 and said["sheet"] == "look/contact-sheet.png"
    assert said["splits"]["all"]["unknown_keys"] == sorted(bad)


def test_the_same_data_get_the_same_words_and_the_same_sheet(within, tmp_path):
    seen = []
    for name, options in (("1", ()), ("2", ("--workers", 1)), ("3", ("--seed", 5))):
        done = within("data", "describe", "digits", "--out", name, *options)
        words = done.out.removesuffix(f"{name}/contact-sheet.png\n")
        seen.append((words, (tmp_path / name / "contact-sheet.png").read_bytes()))
    assert seen[0] == seen[1] and seen[0][0] == seen[2][0] and seen[0][1] != seen[2][1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("describe", "nowhere"), ["nowhere", "no such file or folder"]),
        (("check", "nowhere"), ["nowhere", "no such file or folder"]),
        (("check",), ["'DATA'"]),
        (("describe", "digits", "--workers", -1), ["--workers", "greater than or equal to 0"]),
        (("describe", "digits", "--out", "taken"), ["taken/contact-sheet.png", "exists already", "another --out"]),
        (("describe", "digits", "--out", "taken/contact-sheet.png"), ["taken/contact-sheet.png", "cannot be made"]),
        (("descibe", "digits"), ["descibe"]),
    ],
)
def test_what_is_asked_wrongly_is_refused_in_one_line(within, tmp_path, arguments, words):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/contact-sheet.png").write_text("mine")
    done = within("data", *arguments)
    assert done.code == 2 and all(word in done.error for word in words), done.err
    assert (tmp_path / "taken/contact-sheet.png").read_text() == "mine"


def test_data_alone_shows_its_help(within):
    done = within("data")
    assert "describe" in done.out and "check" in done.out and done.err == ""


@pytest.mark.parametrize("verb", ["check", "describe"])
def test_ctrl_c_ends_it_with_its_workers_and_no_traceback(tmp_path, verb):
    folder = draw(tmp_path / "many", count=1, names=("cat", "dog"))
    for number in range(1, 30_000):
        os.link(folder / "cat" / "0.png", folder / "cat" / f"{number}.png")
    command = [sys.executable, "-m", "vitlab", "data", verb, str(folder), "--workers", "2"]
    process = subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while len(children.read_text().split()) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    workers = [int(number) for number in children.read_text().split()]
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "interrupted\n"), err
    for number in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)
