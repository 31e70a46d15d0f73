"""Images of several labels on the command line: a CSV in, a run, its page, and answers for each class by itself."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.end_to_end.conftest import COLOURS, TINY, vitlab

NAMES = tuple(COLOURS)


@pytest.fixture(scope="session")
def mixed(once):
    """A CSV of 60 images in which a third each may be red, green and blue. Only to be read."""

    def build(folder):
        rng, lines = np.random.default_rng(0), ["path,labels"]
        (folder / "images").mkdir(parents=True)
        for index in range(60):
            shown = [name for name in NAMES if rng.random() < 0.5]
            pixels = rng.integers(0, 40, (20, 24, 3))
            for name in shown:
                pixels[:, :, NAMES.index(name)] += 200
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / f"{index}.png")
            lines.append(f"images/{index}.png,{'|'.join(shown)}")
        (folder / "data.csv").write_text("\n".join(lines) + "\n")

    return once("mixed", build) / "data.csv"


@pytest.fixture(scope="session")
def run(once, mixed):
    """A finished run on them, made by the command line. Only to be read."""

    def build(folder):
        folder.mkdir()
        balanced = ("--set", "train.objective.class_weights=Balanced", "--set", "model.width=32")
        done = vitlab("finetune", mixed, "--out", folder / "run", "--steps", 80, "--lr", 0.01, *TINY, *balanced)
        (folder / "err.txt").write_text(done.err)
        assert done.code == 0, done.err

    return once("several", build) / "run"


def test_a_run_says_what_it_does_and_learns_every_class(run):
    said = (run.parent / "err.txt").read_text()
    assert 'changed train.objective.type: "Softmax" -> "Sigmoid"' in said
    assert "3 classes, up to 3 labels an image" in said
    assert "weights  cat " in said and sorted(json.loads((run / "class_weights.json").read_text())) == sorted(NAMES)
    assert "test: mAP " in said and "Traceback" not in said
    metrics = {
        event["name"]: event["value"] for event in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    }
    assert metrics["test/map"] > 0.8
    assert "mean average precision is" in (run / "report" / "index.html").read_text()


def test_it_is_evaluated_and_asked(within, run, mixed):
    done = within("evaluate", run, mixed, "--json")
    found = json.loads(done.out)
    assert done.code == 0 and found["count"] == found["total"] == 60 and found["map"] > 0.8
    done = within("evaluate", run, mixed)
    assert "mAP" in done.out and "recall" in done.out and all(name in done.out for name in NAMES)
    lines = mixed.read_text().splitlines()[1:]
    everything = next(line.split(",")[0] for line in lines if line.count("|") == 2)
    done = within("predict", run, mixed.parent / everything, "--json")
    assert sum(share for _, share in json.loads(done.out)["top"]) > 1.2  # each by itself


def test_what_cannot_be_is_one_line(within, mixed):
    done = within("finetune", mixed, "--steps", 1, *TINY, "--set", "train.objective=Softmax")
    assert done.code == 2 and "use --set train.objective=Sigmoid" in done.error
