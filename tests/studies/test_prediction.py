import errno
import json
import multiprocessing
import os
import signal
import socket
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from tests.faults.injection import Fault
from vitlab.errors import DataError, PredictionError, SettingsError
from vitlab.ranks import joined
from vitlab.serve import predict
from vitlab.serve.engine import has_onnx
from vitlab.serve.predict import Predictor
from vitlab.studies import prediction
from vitlab.studies.evaluation import Reading
from vitlab.studies.prediction import Wanted, predict_to_file
from vitlab.weights.save import save

COUNT, BAD = 53, (7, 30, 31)
ENGINE = f"{'onnxruntime' if has_onnx() else 'eager'} on cpu"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Parts of 16 images, in batches of 8."""
    monkeypatch.setattr(prediction, "_PART_ROWS", 16)
    monkeypatch.setattr(predict, "batch_size_for", lambda *_: 8)


@pytest.fixture
def here(tmp_path, monkeypatch, make_model):
    """A model and 53 images, three of them bad."""
    monkeypatch.chdir(tmp_path)
    save(make_model(classes=("ant", "bee", "cat")), tmp_path / "m.safetensors")
    rng = np.random.default_rng(0)
    Path("photos/ant").mkdir(parents=True)
    for number in range(COUNT):
        path = Path("photos", *["ant"] * (number < 5), f"{number:02d}.png")
        Image.fromarray(rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)).save(path)
        if number in BAD:
            path.write_bytes(b"no image")
    return tmp_path


def wanted(out="p.parquet", **changes):
    return Wanted(**{"model": "m.safetensors", "places": ("photos",), "out": Path(out), "workers": 0, **changes})


def rows(path="p.parquet"):
    return pyarrow.parquet.read_table(path).to_pylist()


def test_every_image_has_a_row_in_order_and_a_bad_one_its_error(here):
    written = predict_to_file(wanted(top=2))
    assert (written.images, written.bad, written.computed, written.engine) == (COUNT, 3, COUNT, ENGINE)
    found, model = rows(), Predictor.load("m.safetensors")
    assert [row["key"] for row in found] == sorted(str(path) for path in Path("photos").rglob("*.png"))
    for row in found:
        if int(Path(row["key"]).stem) in BAD:
            assert row["error"].startswith("is not an image in a known format")
            assert {row[name] for name in ("class", "probability", "top_classes", "top_probabilities")} == {None}
        else:
            best = model(row["key"]).top(2)
            assert list(zip(row["top_classes"], row["top_probabilities"], strict=True)) == best
            assert (row["class"], row["probability"], row["error"]) == (*best[0], None)
    assert [row["label"] for row in found].count("ant") == 5


def test_the_file_says_what_made_it(here):
    predict_to_file(wanted(features=True))
    file = pyarrow.parquet.ParquetFile("p.parquet")
    names = ["key", "class", "probability", "top_classes", "top_probabilities", "error", "label", "features"]
    assert file.schema_arrow.names == names
    assert str(file.schema_arrow.field("features").type) == "list<element: float>"
    told = json.loads(file.metadata.metadata[b"vitlab"])
    model = Predictor.load("m.safetensors")
    assert told["classes"] == ["ant", "bee", "cat"] and told["image_spec"]["height"] == model.spec.height
    assert len(told["model_sha256"]) == 64 and told["vitlab"] and told["engine"] == ENGINE
    row = rows()[0]
    np.testing.assert_array_equal(np.array(row["features"], np.float32), model(row["key"]).features)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_bytes_do_not_depend_on_who_reads(here, workers):
    predict_to_file(wanted("alone.parquet"))
    predict_to_file(wanted("helped.parquet", workers=workers))
    assert Path("alone.parquet").read_bytes() == Path("helped.parquet").read_bytes()


def test_an_image_that_ends_its_reader_is_a_bad_one(here, monkeypatch):
    from vitlab.data.preprocess import ImageSpec

    real = ImageSpec.open

    def deadly(self, data, name):
        if name.endswith("40.png"):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, data, name)

    monkeypatch.setattr(ImageSpec, "open", deadly)
    assert predict_to_file(wanted(workers=1)).bad == 4
    (row,) = [row for row in rows() if row["key"].endswith("40.png")]
    assert row["error"] == "ended the process that was reading it (SIGKILL)"


def test_csv_and_json_lines_say_the_same(here):
    Path("photos/10.png").rename("photos/a\rb.png")
    Path("photos/11.png").rename("photos/a\nb,c.png")
    for name in ("p.parquet", "p.csv", "p.jsonl"):
        predict_to_file(wanted(name))
    lines = [json.loads(line) for line in Path("p.jsonl").read_text().splitlines()]
    assert lines == rows()
    import csv

    assert Path("p.csv").read_bytes().count(b"\r") == 1  # of the name
    with Path("p.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["key"] for row in table] == [row["key"] for row in lines]
    assert [json.loads(row["top_classes"] or "null") for row in table] == [row["top_classes"] for row in lines]


def test_an_image_on_which_the_model_overflows_is_a_bad_one(here, make_model):
    model = make_model(classes=("ant", "bee", "cat"))
    with torch.no_grad():
        model.head.weight.fill_(3e38)
    save(model, Path("m.safetensors"))
    assert predict_to_file(wanted()).bad == COUNT
    assert {row["error"] for row in rows()} >= {"leads to numbers that are not finite in this model"}


class StopError(Exception):
    pass


def interrupt(after, **changes):
    """Begin, and end at some image as by Ctrl-C."""

    def seen(done, total):
        if done == after:
            raise StopError

    with pytest.raises(StopError):
        predict_to_file(wanted(**changes), seen=seen)


def kill(after, **changes):
    """Begin in another process, and kill it at some image."""

    def work():
        predict_to_file(wanted(**changes), seen=lambda done, _: done == after and os.kill(os.getpid(), signal.SIGKILL))

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def test_interrupted_and_killed_it_ends_with_the_bytes_of_an_unbroken_run(here):
    predict_to_file(wanted("unbroken.parquet"))
    interrupt(after=20)
    assert Path(".p.parquet.parts/00000000.parquet").exists() and not Path("p.parquet").exists()
    kill(after=17)
    said = []
    torch.set_num_threads(3)  # those that the parts were begun with are what counts
    assert predict_to_file(wanted(workers=1), say=said.append).computed == COUNT - 32
    assert said == ["32 of 53 images are done already; going on with the others"] and torch.get_num_threads() == 3
    torch.set_num_threads(1)
    assert Path("p.parquet").read_bytes() == Path("unbroken.parquet").read_bytes()
    assert sorted(path.name for path in here.iterdir()) == ["m.safetensors", "p.parquet", "photos", "unbroken.parquet"]


def test_what_is_interrupted_before_a_part_is_done_leaves_nothing(here):
    before = sorted(here.rglob("*"))
    interrupt(after=3)
    assert sorted(here.rglob("*")) == before


def test_a_part_that_is_damaged_is_made_again(here):
    predict_to_file(wanted("unbroken.parquet"))
    interrupt(after=40)
    Path(".p.parquet.parts/00000001.parquet").write_bytes(b"PAR1")
    predict_to_file(wanted())
    assert Path("p.parquet").read_bytes() == Path("unbroken.parquet").read_bytes()


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_at_any_operation_of_the_disk_it_may_fail_and_go_on(here, monkeypatch, step):
    monkeypatch.setattr(prediction, "_PART_ROWS", 32)
    predict_to_file(wanted("unbroken.parquet"))
    with monkeypatch.context() as patch:
        counted = Fault(patch)
        predict_to_file(wanted("counted.parquet"))
    for at in range(1, len(counted.names) + 1, step):
        out = f"{at}.parquet"
        with monkeypatch.context() as patch:
            Fault(patch, at, "half", errno.ENOSPC)
            try:
                predict_to_file(wanted(out))
            except PredictionError as error:
                assert "make room; the same command goes on" in str(error)
        if not Path(out).exists() or Path(f".{out}.parts").exists():
            try:
                predict_to_file(wanted(out))
            except DataError:  # it was finished, and only its parts were left
                assert not Path(f".{out}.parts").exists()
        assert Path(out).read_bytes() == Path("unbroken.parquet").read_bytes()
    assert not [path for path in here.iterdir() if path.name.startswith(".")]


def test_another_model_other_images_or_options_are_refused_by_name(here, make_model):
    interrupt(after=20)
    with pytest.raises(DataError, match="part of other predictions: --top was 5 and is 2; give the command of before"):
        predict_to_file(wanted(top=2))
    with pytest.raises(DataError, match="--features was False and is True"):
        predict_to_file(wanted(features=True))
    with pytest.raises(DataError, match="the number of images was 53 and is 1, the list of images differs"):
        predict_to_file(wanted(places=("photos/20.png",)))
    with pytest.raises(DataError, match=r"the preparation of images .* differs"):
        predict_to_file(wanted(reading=Reading(max_pixels=50)))
    save(make_model(seed=1, classes=("ant", "bee", "cat")), Path("m.safetensors"))
    with pytest.raises(DataError, match="of other predictions: the model differs"):
        predict_to_file(wanted())


def test_a_file_that_is_there_is_not_overwritten(here):
    Path("p.parquet").write_text("mine")
    with pytest.raises(DataError, match=r"p\.parquet: exists already"):
        predict_to_file(wanted())
    assert Path("p.parquet").read_text() == "mine"
    with pytest.raises(DataError, match="nowhere: is no folder; make it first"):
        predict_to_file(wanted("nowhere/p.parquet"))
    with pytest.raises(SettingsError, match=r"is no \.parquet, \.csv or \.jsonl file"):
        predict_to_file(wanted("p.xlsx"))


def test_two_at_once_do_not_mix(here):
    said = multiprocessing.get_context("fork").SimpleQueue()

    def other():
        try:
            predict_to_file(wanted())
        except DataError as error:
            said.put(str(error))

    def seen(done, total):
        if done == 20:
            process = multiprocessing.get_context("fork").Process(target=other)
            process.start()
            process.join()

    predict_to_file(wanted(), seen=seen)
    assert said.get() == "p.parquet: is being made by another process; wait, or choose another --out"


def on_rank(rank, world, port, die_after=None):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1")
    os.environ["MASTER_PORT"] = str(port)

    def seen(done, total):
        if done == die_after:
            os._exit(9)

    with joined() as ranks:
        predict_to_file(wanted(), ranks, seen)


def together(world, dies=None):
    """Run ranks as processes and return their exit codes; `dies` says which one ends at its 17th image."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    jobs = [
        context.Process(target=on_rank, args=(rank, world, port, 17 if rank == dies else None)) for rank in range(world)
    ]
    for job in jobs:
        job.start()
    if dies is not None:
        jobs[dies].join()
        for job in jobs:
            job.join(1)
            job.kill()  # as those do who launch ranks
    for job in jobs:
        job.join()
    return [job.exitcode for job in jobs]


def test_ranks_share_the_work_and_one_that_dies_leaves_that_of_the_others(here):
    predict_to_file(wanted("unbroken.parquet"))
    assert together(2, dies=1)[1] == 9
    done = {path.name for path in Path(".p.parquet.parts").glob("*.parquet")}
    assert {"00000000.parquet", "00000002.parquet", "00000001.parquet"} >= done >= {"00000001.parquet"}
    assert together(2) == [0, 0]
    assert Path("p.parquet").read_bytes() == Path("unbroken.parquet").read_bytes()


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_bytes_of_an_unbroken_run(here, monkeypatch):
    predict_to_file(wanted("unbroken.parquet"))
    rng = np.random.default_rng(0)
    for number in range(int(os.environ.get("VITLAB_KILLS", "40"))):
        out = f"{number}.parquet"
        for _ in range(3):
            if Path(out).exists():
                break
            process = multiprocessing.get_context("fork").Process(
                target=predict_to_file, args=(wanted(out, workers=1),)
            )
            process.start()
            process.join(float(rng.uniform(0, 0.3)))
            process.kill()
            process.join()
        if not Path(out).exists():
            predict_to_file(wanted(out))
        assert Path(out).read_bytes() == Path("unbroken.parquet").read_bytes(), sys.exc_info()
