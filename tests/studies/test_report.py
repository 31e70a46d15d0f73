import json
import re

import numpy as np
import pytest

from vitlab.evals.classify import Predictions
from vitlab.studies.findings import Evaluation
from vitlab.studies.report import render, write_report

NASTY = ("<script>alert(1)</script>", "a & b", 'say "hi"')


@pytest.fixture
def run(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"recipe": "<b>scratch</b>"}))
    (tmp_path / "environment.json").write_text(json.dumps({"torch": "2", "device": "cpu", "threads": 2}))
    events = [("train/loss", 1, 2.0), ("test/loss", 2, 1.5), ("test/top1", 2, 0.5), ("train/loss", 2, 1.0)]
    lines = [json.dumps({"step": step, "images": 8, "name": name, "value": value}) for name, step, value in events]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def predicted(source, shares):
    """Return predictions that give the classes `shares`, one row an example."""
    keys = tuple(source.read(index).key for index in range(len(source)))
    return Predictions(np.array(shares, np.float32), source.labels, keys, source.classes)


@pytest.fixture
def evaluation(make_source):
    source = make_source(count=5, classes=NASTY)
    shares = [[0.9, 0.1, 0], [0.7, 0.2, 0.1], [0, 0.95, 0.05], [0.6, 0.2, 0.2], [0.2, 0.5, 0.3]]
    return Evaluation("test", source, predicted(source, shares))


def text_of(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def write(run, model, evaluation):
    return write_report(run, model, evaluation, ["train.lr: 0.1 -> <0.2>"], "vitlab finetune '<photos>'").read_text()


def test_the_page_says_how_many_were_right_and_how_sure_that_is(run, make_model, evaluation):
    page = text_of(write(run, make_model(), evaluation))
    assert "Of 5 images it had never been trained on, the model named 3 right: 60.0 %" in page
    assert "between 23.1 % and 88.2 %" in page  # Wilson's interval of 3 in 5
    assert "would be right 40.0 % of the time" in page


def test_mistakes_are_shown_the_surest_first(run, make_model, evaluation):
    page = write(run, make_model(), evaluation)
    gallery = page[page.index("Worst mistakes") :]
    assert gallery.count("<li><img") == 2
    assert gallery.index("image-2") < gallery.index("image-1")
    assert "(95.0 %)" in gallery and "(70.0 %)" in gallery


def test_nothing_that_was_given_becomes_markup(run, make_model, evaluation):
    page = write(run, make_model(), evaluation)
    assert "<script" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<0.2>" not in page and "<photos>" not in page and "<b>scratch" not in page


def test_the_page_needs_nothing_from_elsewhere(run, make_model, evaluation):
    page = write(run, make_model(), evaluation)
    sources = re.findall(r"(?:src|href)\s*=\s*[\"']([^\"']+)", page)
    assert sources and all(source.startswith(("data:", "#")) for source in sources)
    assert not re.search(r"url\((?!#)|@import|<link|<iframe", page)


def test_a_perfect_model_and_a_run_without_evaluation_get_a_page_too(run, make_model, make_source):
    source = make_source(count=3)
    perfect = Evaluation("test", source, predicted(source, np.eye(3)))
    assert "None: every image was named right" in write(run, make_model(), perfect)
    assert "had no images to evaluate on" in write(run, make_model(), None)


def test_rate_gradient_and_speed_are_drawn_and_said_where_they_were_measured(run, make_model, evaluation):
    page = write(run, make_model(), evaluation)
    assert "How it was steered" not in page and "images a second" not in page
    with (run / "metrics.jsonl").open("a") as file:
        for step in (1, 2):
            for name in ("train/lr", "train/grad_norm"):
                file.write(json.dumps({"step": step, "images": 8, "name": name, "value": 0.5}) + "\n")
    assert "How it was steered" in write(run, make_model(), evaluation)
    figures = {
        "matrix_rate": 2e9, "images_per_second": 1234.0, "utilisation": 0.456, "data_wait": 0.031,
        "memory_bytes": 7e8, "seconds": 100.0, "checkpoint_seconds": 2.0, "evaluation_seconds": 3.0,
    }  # fmt: skip
    lines = [{"step": 2, "time": 1e9, "name": f"train/{name}", "value": value} for name, value in figures.items()]
    (run / "timing.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = text_of(write(run, make_model(), evaluation))
    for words in (
        "It took 0:01:45 at 1,234 images a second", "45.6 % of what the device does", "(2 · 10⁹ operations a second)",
        "3.1 % passed in waiting for images", "writing checkpoints added 2.0 %", "at most 700 MB of memory",
    ):  # fmt: skip
        assert words in said, said


def test_a_page_is_written_anew_and_leaves_nothing_beside_it(run, make_model, evaluation):
    first = write(run, make_model(), evaluation)
    assert write(run, make_model(), evaluation) == first
    assert [path.name for path in (run / "report").iterdir()] == ["index.html"]


def test_percentages_have_one_decimal():
    assert "{{" not in render("miniature.html", miniature_context()) and "12.3 %" in render(
        "miniature.html", miniature_context()
    )


def miniature_context():
    from vitlab.studies.miniature import QUICK, Row

    rows = [Row(f"row {number}", [0.123, 0.123]) for number in range(6)]
    scale = type("Scale", (), {"name": "full", "fractals": QUICK.fractals, "seeds": (0, 1), "transfer_steps": 3})
    return {
        "rows": rows, "scale": scale, "train": 1, "test": 2, "low": 3, "high": 4, "shots": 5,
        "longer": 3, "benefit": 0.1, "benefit_longer": 0.1, "figures": [],
    }  # fmt: skip
