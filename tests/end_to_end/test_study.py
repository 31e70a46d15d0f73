"""`vitlab study`: from the command line to pages, by one process and by several, interrupted, bereft and failing."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.end_to_end.conftest import environment, vitlab
from tests.end_to_end.test_page import CHROMIUM, SCREENS, browser, luminance  # noqa: F401  (a fixture)

OWN = '''
"""Does the width matter?"""

from vitlab.inspection import charts
from vitlab.studies.findings import Figure
from vitlab.studies.study import Edition, Finding, Sheet, Study, Table
from vitlab.studies.work import Measurement, Training
from vitlab.studies.world_miniature import fractals, pretraining, vit

WIDTHS, STEPS = (8, 16, 24), {steps}


def training(width):
    model = vit(3, width=width, depth=1, num_heads=1)
    return Training(f"width-{{width}}", pretraining(model, fractals(3, 10), steps=STEPS))


def read(models):
    assert {right}, "not as wide"
    return {{"width": models[0].settings.width}}


def sheet(results):
    found = {{width: results[str(width)] for width in WIDTHS if results[str(width)]}}
    rows = [["width", "read"], *([str(width), str(result["width"])] for width, result in found.items())]
    points = {{"width": ([*found], [float(result["width"]) for result in found.values()])}}
    figure = Figure("Width <&>", "It is what it is.", charts.curves({{"width": points}}))
    return Sheet([Table("Widths", rows)], [figure], Finding(len(found) == 3, "They are as wide as they should be."))


def edition():
    return Edition("a few fractals", {{str(w): Measurement(f"read-{{w}}", read, (training(w),)) for w in WIDTHS}}, sheet)


STUDY = Study("widths", "Widths <&>", "How wide is it?", "As wide as it was made.", "no paper", {{"miniature": edition}})
'''


def write(folder, steps=4, right="True"):
    path = folder / "own.py"
    path.write_text(OWN.format(steps=steps, right=right))
    return path


@pytest.fixture(scope="module")
def studied(once):
    """A folder with a study of three widths, by two processes, and the recipes; and what was said. Only to be read."""

    def build(folder):
        folder.mkdir()
        own = write(folder)
        done = vitlab("study", "run", own, "table3", "table4", "--out", folder / "out", "--processes", 2)
        (folder / "said.json").write_text(json.dumps([done.code, done.out, done.err]))

    return once("studied", build)


def results(out):
    names = ("result.json", "outcome.json", "model.safetensors")
    return {
        str(path.relative_to(out)): path.read_bytes() for name in names for path in sorted(out.glob(f"pieces/*/{name}"))
    }


def begin(own, out, *more):
    command = [sys.executable, "-m", "vitlab", "study", "run", str(own), "--out", str(out), *more]
    return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def members(out):
    """Return the processes that hold a piece."""
    claims = [path.read_text().split() for path in out.glob("claims/*") if not path.name.startswith(".")]
    return {int(words[1]) for words in claims if words}


def until(condition, process, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)


def test_a_study_of_your_own_and_the_recipes_are_run_and_shown(studied):
    code, out, err = json.loads((studied / "said.json").read_text())
    assert code == 0, err
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert lines["widths"] == "agrees: They are as wide as they should be."
    assert lines["table4"] == "agrees: All 6 recipes have the values of the paper."
    assert "0 of 6 pieces are done, 2 at once" in err and "done     width-24" in err
    index = (studied / "out" / "index.html").read_text()
    assert (
        'href="widths/index.html"' in index and 'href="table3/index.html"' in index and "Widths &lt;&amp;&gt;" in index
    )
    page = (studied / "out" / "widths" / "index.html").read_text()
    assert f"vitlab study run {studied}.draft/own.py --scale miniature --out {studied}.draft/out" in page


def test_the_numbers_do_not_depend_on_how_many_processes_there_are(studied, within, tmp_path):
    done = within("study", "run", studied / "own.py", "--out", tmp_path / "out", "--processes", 1, "--json")
    assert done.code == 0, done.err
    assert results(tmp_path / "out") == results(studied / "out") and len(results(tmp_path / "out")) == 9
    (said,) = json.loads(done.out)
    assert (said["agrees"], said["done"], said["pieces"], said["failed"]) == (True, 6, 6, {})
    assert "1 of 6 pieces" in done.err and "begun    read-24" in done.err


def test_the_pages_are_written_again_without_running_what_a_folder_names(studied, within, tmp_path):
    done = within("study", "report", studied / "out")
    assert done.code == 0 and "table3" in done.out and "widths" not in done.out
    assert 'href="widths/index.html"' in (studied / "out" / "index.html").read_text()
    done = within("study", "report", studied / "out", studied / "own.py", "--json")
    assert [each["name"] for each in json.loads(done.out)] == ["table3", "table4", "widths"]


@pytest.mark.slow
def test_ctrl_c_ends_all_and_the_same_command_goes_on(tmp_path):
    own, out = write(tmp_path, steps=400), tmp_path / "out"
    process = begin(own, out, "--processes", "2")
    until(lambda: len(list(out.glob("pieces/*/checkpoints/step-*"))) >= 1, process)
    workers = members(out)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "the same command goes on" in said.splitlines()[-1], said
    assert "Traceback" not in said and "lost" not in said
    assert workers and not any(os.path.exists(f"/proc/{worker}") for worker in workers) and members(out) == set()
    done = vitlab("study", "run", own, "--out", out)
    assert done.code == 0 and "widths  agrees" in done.out, done.err


@pytest.mark.slow
def test_when_a_process_is_killed_the_others_do_its_work(tmp_path):
    own, out = write(tmp_path, steps=300), tmp_path / "out"
    process = begin(own, out, "--processes", "2")
    until(lambda: len(members(out)) == 2, process)
    os.kill(min(members(out)), signal.SIGKILL)
    said, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "was killed by signal 9" in err and "widths  agrees" in said


def test_a_piece_that_fails_is_said_and_shown_with_its_log(within, tmp_path):
    own = write(tmp_path, right="models[0].settings.width != 16")
    done = within("study", "run", own, "--out", tmp_path / "out", "--processes", 1)
    assert done.code == 1 and "failed   read-16: AssertionError: not as wide" in done.err
    assert "widths  5 of 6 pieces done, 1 failed" in done.out
    page = (tmp_path / "out" / "widths" / "index.html").read_text()
    assert "read-16 failed: AssertionError: not as wide" in page and "Traceback" in page and "not finished" in page


def test_what_cannot_be_run_is_refused(refused, tmp_path, monkeypatch):
    refused("study", "run", "tabel8", words=["no study 'tabel8'", "did you mean 'table8'?"])
    refused("study", "run", words=["name studies, or give --all"])
    refused("study", "run", "--all", "table8", words=["name studies, or give --all"])
    refused("study", "run", "table8", "--scale", "huge", words=["there is no 'huge'", "miniature or small or paper"])
    refused("study", "run", "table8", "--processes", 10_000, words=["--processes", "cores here"])
    refused("study", "show", "mine.py", words=["mine.py", "is no file"])
    refused("study", "report", tmp_path, words=["holds no studies"])
    (tmp_path / "mine.txt").write_text("keep me")
    refused("study", "run", "table3", "--out", tmp_path, words=["already exists, without study.json"])
    monkeypatch.setenv("VITLAB_DATA", str(tmp_path))
    refused("study", "run", "table8", "--scale", "paper", "--out", "new", words=["JFT-300M", "never published"])


def test_what_a_study_takes_is_told(within):
    done = within("study", "show", "table8")
    assert done.code == 0 and "The paper: Without positions" in done.out and "32 pieces of work" in done.out
    facts = json.loads(within("study", "show", "table3", "--json").out)
    assert {scale: at["pieces"] for scale, at in facts["scales"].items()} == dict.fromkeys(
        ("miniature", "small", "paper"), 0
    )
    listed = json.loads(within("study", "list", "--json").out)
    assert "table8" in [each["name"] for each in listed] and all(each["about"] for each in listed)


@pytest.fixture(params=SCREENS.values(), ids=SCREENS.keys())
def page(request, browser, studied):  # noqa: F811
    width, height, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    opened = context.new_page()
    opened.problems, opened.asked = [], []
    opened.on("console", lambda message: opened.problems.append(message.text))
    opened.on("pageerror", lambda error: opened.problems.append(str(error)))
    opened.on("request", lambda asked: opened.asked.append(asked.url))
    opened.goto((studied / "out" / "index.html").as_uri())
    yield opened
    context.close()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: install it to see the page in a browser")
def test_the_index_leads_to_a_page_of_each_study(page):
    assert page.locator(".card .badge.agrees").count() == 3 and page.locator(".card .thumbnail svg").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    colours = page.evaluate("[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]")
    light, dark = sorted(map(luminance, colours), reverse=True)
    assert (light + 0.05) / (dark + 0.05) > 7
    page.locator('a.card[href="table3/index.html"]').click()
    assert page.locator("h1").inner_text() == "Pre-training recipes"
    assert page.locator("tbody tr").count() == 27 and page.locator(".badge").inner_text() == "agrees"
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.locator('a[href="../index.html"]').click()
    page.locator('a.card[href="widths/index.html"]').click()
    assert page.problems == [] and all(url.startswith(("file:", "data:")) for url in page.asked)
    assert page.locator("figure svg").bounding_box()["width"] > 100
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
