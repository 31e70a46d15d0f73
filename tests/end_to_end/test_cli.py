"""From a folder of photos to answers, on the command line."""

import io
import json
import shutil

import pytest
from PIL import Image

from tests.end_to_end.conftest import TINY, draw, vitlab
from tests.server import serve

CLASSES = ("cat", "dog", "owl")


def test_a_run_says_what_it_will_do_and_what_came_out(trained, photos):
    said = (trained.parent / "err.txt").read_text()
    assert "Traceback" not in said and "Warning" not in said
    for line in (
        "recipe   scratch, from fresh weights: no --weights given",
        "changed model.width: 128 -> 16",
        f"data     {photos} (train 90%): 21 images, 3 classes",
        f"test     {photos} (test 10%): 3 images",
        "training 20 steps of 8 images, Adam, rate 0.01",
        "device   cpu",
        "step 20: test top-1",
        "(95 % interval",
        "report   ",
    ):
        assert line in said, said


def test_a_run_leaves_its_settings_metrics_checkpoints_model_and_report(trained):
    config = json.loads((trained / "config.json").read_text())
    assert config["model"]["width"] == 16 and config["train"]["steps"] == 20 and config["recipe"] == "scratch"
    assert {"python", "torch", "threads"} <= set(json.loads((trained / "environment.json").read_text()))
    events = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert {"train/loss", "train/lr", "test/top1", "test/loss"} <= {event["name"] for event in events}
    assert [path.name for path in sorted((trained / "checkpoints").iterdir())] == ["step-000018", "step-000020"]
    assert (trained / "model.safetensors").stat().st_size > 1000
    page = (trained / "report" / "index.html").read_text()
    assert all(name in page for name in CLASSES) and "Traceback" not in page


def test_predict_names_every_image_given_and_found(trained, photos):
    done = vitlab("predict", trained, photos / "cat" / "0.png", photos / "dog", "--json", "--top", 2)
    assert (done.code, done.err) == (0, "")
    rows = [json.loads(line) for line in done.out.splitlines()]
    expected = [photos / "cat" / "0.png", *(photos / "dog" / f"{i}.png" for i in range(8))]
    assert [row["path"] for row in rows] == list(map(str, expected))
    for row in rows:
        (first, share), (second, rest) = row["top"]
        assert {first, second} <= set(CLASSES) and 1 >= share >= rest >= 0 and share + rest <= 1 + 1e-6


def test_predict_says_it_in_words(trained, photos, within):
    done = within("predict", trained, photos / "cat" / "0.png")
    assert done.code == 0 and done.out.startswith(f"{photos / 'cat' / '0.png'}: ")
    assert done.out.count("%") == 3 and all(name in done.out for name in CLASSES)


def test_evaluate_counts_what_predict_says(trained, photos, within):
    rows = [json.loads(line) for line in within("predict", trained, photos, "--json").out.splitlines()]
    right = [f"/{row['top'][0][0]}/" in row["path"] for row in rows]
    done = within("evaluate", trained, photos, "--json")
    found = json.loads(done.out)
    assert done.code == 0 and found["count"] == found["total"] == len(rows) == 24
    assert found["top1"] == pytest.approx(sum(right) / 24) and found["top5"] == 1.0
    low, high = found["top1_interval"]
    assert 0 <= low < found["top1"] <= high + 1e-9 and high <= 1
    for name in CLASSES:
        own = [good for good, row in zip(right, rows, strict=True) if f"/{name}/" in row["path"]]
        assert found["per_class"][name] == pytest.approx(sum(own) / 8)


def test_evaluate_takes_by_default_what_the_run_evaluated_on(trained, photos, within):
    found = json.loads(within("evaluate", trained, "--json").out)
    assert found["data"] == f"{photos} (test 10%)" and found["count"] == 3
    events = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    logged = [event["value"] for event in events if event["name"] == "test/loss"][-1]
    assert found["loss"] == pytest.approx(logged, rel=1e-5)
    said = within("evaluate", trained).out
    assert "3 images" in said and "top-1" in said and all(name in said for name in CLASSES)


def test_evaluate_needs_not_every_class(trained, tmp_path, within):
    found = json.loads(within("evaluate", trained, draw(tmp_path / "few", 2, ("dog", "owl")), "--json").out)
    assert found["count"] == 4 and set(found["per_class"]) == {"dog", "owl"}


def test_resuming_a_finished_run_changes_nothing(trained, within):
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file() and path.name != "LOCK"}
    done = within("finetune", "--resume", "--out", trained)
    assert done.code == 0 and f"{trained} is finished; nothing to resume" in done.err
    assert {path: path.read_bytes() for path in before} == before


def test_fine_tuning_from_a_run_takes_its_weights_and_grows_to_another_size(trained, tmp_path, within):
    other = draw(tmp_path / "other", 4, ("ant", "bee"))
    small = ("--batch-size", 4, "--workers", 0, "--steps", 3, "--device", "cpu")
    done = within("finetune", other, "--weights", trained, "--image-size", "24x32", "--out", "run", *small)
    assert done.code == 0, done.err
    assert "recipe   transfer" in done.err and "fresh weights" not in done.err
    assert "resized  position.table 4×4 -> 6×8" in done.err and "replaced head.weight" in done.err
    found = json.loads(within("evaluate", "run", other, "--json").out)
    assert set(found["per_class"]) == {"ant", "bee"}


def test_masked_patch_prediction_can_go_on_from_weights(trained, photos, within):
    masked = ("--set", "train.objective=MaskedPatches", "--set", "model.num_classes=null")
    small = ("--batch-size", 4, "--workers", 0, "--steps", 2, "--device", "cpu")
    done = within("finetune", photos, "--weights", trained, *masked, "--out", "run", *small)
    assert done.code == 0, done.err
    assert "test: loss" in done.err
    done = within("evaluate", "run")
    assert done.code == 2 and "the model has no head; fine-tune it first" in done.error


def test_ready_train_and_val_folders_are_used(photos, tmp_path, within):
    data = tmp_path / "data"
    shutil.copytree(photos, data / "train")
    draw(data / "validation", 2, ("dog", "owl"))
    done = within("finetune", data, "--out", "run", "--steps", 3, *TINY)
    assert done.code == 0, done.err
    assert "24 images, 3 classes" in done.err and "val      " in done.err and "4 images" in done.err
    assert json.loads(within("evaluate", "run", "--json").out)["count"] == 4


def test_a_parquet_file_works_like_a_folder(photos, tmp_path, within):
    import pyarrow
    import pyarrow.parquet

    rows = [(path.read_bytes(), path.parent.name) for path in sorted(photos.glob("*/*.png"))]
    table = pyarrow.table({"image": [{"bytes": data, "path": None} for data, _ in rows], "label": [x for _, x in rows]})
    pyarrow.parquet.write_table(table, tmp_path / "photos.parquet")
    done = within("finetune", "photos.parquet", "--out", "run", "--steps", 3, *TINY)
    assert done.code == 0 and "21 images, 3 classes" in done.err, done.err
    assert json.loads(within("evaluate", "run", photos, "--json").out)["count"] == 24


def test_bad_images_can_be_left_out_and_are_named_and_counted(rotten, within):
    folder, bad = rotten
    done = within("finetune", folder, "--out", "run", "--steps", 3, "--on-bad-image", "skip", *TINY)
    assert done.code == 0, done.err
    for key in bad:
        assert sum(line.startswith("skipped ") and key in line for line in done.err.splitlines()) == 1
    assert "18 of 21 images can be used" in done.err and "2 of 3 images can be used" in done.err
    listed = (folder.parent / "run" / "bad_images.txt").read_text().splitlines()
    assert len(listed) == 4 and all(any(key in line for line in listed) for key in bad)


def test_evaluate_and_predict_can_leave_bad_images_out_too(trained, rotten, within):
    folder, bad = rotten
    found = json.loads(within("evaluate", trained, folder, "--on-bad-image", "skip", "--json").out)
    assert (found["count"], found["total"], len(found["bad"])) == (20, 24, 4)
    assert all(any(key in line for line in found["bad"]) for key in bad)
    done = within("predict", trained, folder, "--on-bad-image", "skip", "--json")
    assert done.code == 0 and len(done.out.splitlines()) == 20
    assert all(sum(key in line for line in done.err.splitlines()) == 1 for key in bad)


def test_pretraining_keeps_the_representation_layer_for_fine_tuning_to_drop(photos, within):
    done = within("pretrain", photos, "--out", "run", "--steps", 3, "--model", "Mini/4", *TINY)
    assert done.code == 0 and "recipe   pretrain" in done.err, done.err
    done = within("finetune", "digits", "--weights", "run", "--out", "fine", "--steps", 2, *TINY[-6:])
    assert done.code == 0 and "dropped  representation.weight" in done.err, done.err


def test_published_weights_are_listed_for_people_and_programs(within):
    lines = within("models", "--weights").out.splitlines()
    assert lines[0].split() == ["name", "model", "trained", "on", "pixels", "top-1", "file"]
    (line,) = [line for line in lines if line.startswith("augreg+imagenet2012/B_16 ")]
    assert line.split()[1:-1] == ["B/16", "ImageNet-21k,", "then", "ImageNet", "384", "85.5"]
    assert line.endswith("-res_384.npz")
    rows = {row["name"]: row for row in json.loads(within("models", "--weights", "--json").out)}
    assert len(rows) == len(lines) - 2
    assert rows["BiT-M-R50x1"]["url"] == "https://storage.googleapis.com/bit_models/BiT-M-R50x1.npz"
    assert rows["BiT-M-R50x1"]["top1"] is None


def test_weights_at_an_address_are_downloaded_fine_tuned_and_asked(within, trained, photos, monkeypatch, tmp_path):
    monkeypatch.setenv("VITLAB_CACHE", str(tmp_path / "cache"))
    with serve() as server:
        url = server.put("/model.safetensors", (trained / "model.safetensors").read_bytes())
        done = within("finetune", photos, "--weights", url, "--out", "out", "--steps", 1, *TINY[-6:])
        assert done.code == 0, done.err
        assert within("evaluate", url, photos).code == within("predict", url, photos / "cat").code == 0
        assert len(server.requests) == 1
    assert str(tmp_path / "cache") in json.loads((tmp_path / "out" / "config.json").read_text())["weights"]["path"]


def test_models_are_listed_for_people_and_programs(within):
    assert "B/16" in within("models").out
    rows = {row["name"]: row["parameters"] for row in json.loads(within("models", "--json").out)}
    assert rows["B/16"] == 86_567_656


def test_a_jpeg_from_a_phone_is_turned_the_right_way_up(trained, tmp_path, within):
    import numpy as np

    picture = np.zeros((16, 16, 3), np.uint8)
    picture[:8] = (200, 40, 40)
    turned = Image.fromarray(np.rot90(picture, 1).copy())
    exif = turned.getexif()
    exif[0x0112] = 6
    data = io.BytesIO()
    turned.save(data, "PNG", exif=exif)
    (tmp_path / "turned.png").write_bytes(data.getvalue())
    Image.fromarray(picture).save(tmp_path / "plain.png")
    lines = within("predict", trained, "turned.png", "plain.png").out.splitlines()
    assert lines[0].split(": ")[1] == lines[1].split(": ")[1]


def test_a_run_killed_before_its_model_was_written_ends_with_model_report_and_words(trained, tmp_path, within):
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "model.safetensors").unlink()
    shutil.rmtree(run / "report")
    done = within("finetune", "--resume", "--out", "run")
    assert done.code == 0 and "resuming at step 20 of 20" in done.err
    assert (run / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    assert (run / "report" / "index.html").exists() and "test: top-1" in done.err
