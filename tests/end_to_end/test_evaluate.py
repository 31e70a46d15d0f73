"""`vitlab evaluate` beyond one number: ReaL and ObjectNet, two models, what is missing, the folder it writes."""

import csv
import json

import numpy as np
import pytest

from tests.data import standins
from tests.data.layouts.test_imagenet import LABELS, val_name
from vitlab.data.catalog import entries
from vitlab.data.layouts import imagenet
from vitlab.nn.grid import Size
from vitlab.weights.save import save


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("VITLAB_DATA", str(tmp_path / "sets"))
    return tmp_path / "sets"


@pytest.fixture
def val(root, monkeypatch):
    """The first 40 validation images of ImageNet, and the catalog that expects no more."""
    for number in range(1, 41):
        standins.picture(root / "imagenet/val" / val_name(number), 6 * number, kind="JPEG")
    real = imagenet._real_labels()[:40]
    monkeypatch.setattr(imagenet, "_real_labels", lambda: real)
    monkeypatch.setattr(imagenet, "_validation_labels", lambda: np.arange(40) % 7)
    expect(monkeypatch, "imagenet", val=40, train=1)
    expect(monkeypatch, "imagenet-real", val=int((real[:, 0] >= 0).sum()))
    return real


def expect(monkeypatch, name, **examples):
    monkeypatch.setitem(entries(), name, entries()[name].model_copy(update={"examples": examples}))


@pytest.fixture
def thousand(tmp_path, make_model):
    """A model of 1,000 outputs that names no classes, as the paper's own files."""
    save(make_model(num_classes=1000), tmp_path / "thousand.safetensors")
    return "thousand.safetensors"


def numbers(done):
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_a_model_without_class_names_is_counted_by_reassessed_labels(within, val, thousand, tmp_path):
    found = numbers(within("evaluate", thousand, "imagenet-real", "--json", "--out", "sheet"))
    labelled = [row[row >= 0].tolist() for row in val if row[0] >= 0]
    assert found["count"] == found["labelled"] == len(labelled) and found["classes_named_by"] == "data"
    rows = list(csv.DictReader((tmp_path / "sheet/predictions.csv").read_text().splitlines()))
    assert [list(map(int, row["labels"].split())) for row in rows] == labelled
    for k in (1, 5):
        hits = [
            any(int(row[f"top{place}"]) in own for place in range(1, k + 1))
            for row, own in zip(rows, labelled, strict=True)
        ]
        assert found[f"top{k}"] == pytest.approx(np.mean(hits))
        assert found[f"top{k}_interval"][0] <= found[f"top{k}"] <= found[f"top{k}_interval"][1]
    said = within("evaluate", thousand, "imagenet-real").out.splitlines()
    assert "taken to be 'tench, Tinca tinca' to 'toilet tissue" in said[1] and said[2].startswith("top-1 ")
    assert "ECE" in "".join(said)


def test_the_paper_s_own_format_is_evaluated_on_imagenet(within, val, make_model, tmp_path):
    save(make_model(num_classes=1000, width=192, num_heads=3, representation_dim=None), tmp_path / "m.safetensors")
    assert within("convert", "m.safetensors", "m.npz", "--to", "official").code == 0
    first, second = (numbers(within("evaluate", name, "imagenet", "--json")) for name in ("m.safetensors", "m.npz"))
    assert first == second and first["count"] == 40


def test_objectnet_is_seen_as_the_paper_saw_it(within, root, monkeypatch, thousand):
    standins.objectnet(root / "objectnet", LABELS)
    layout = imagenet.ObjectNet(groups=3, classes_matched=4)
    changes = {"layout": layout, "examples": {"test": 3}}
    monkeypatch.setitem(entries(), "objectnet", entries()["objectnet"].model_copy(update=changes))
    plain = numbers(within("evaluate", thousand, "objectnet", "--json"))
    assert plain["count"] == 3 and plain["fit"] == {"type": "Squash"} and plain["image_size"] == [8, 8]
    cropped = numbers(within("evaluate", thousand, "objectnet", "--resize", 18, "--image-size", 16, "--json"))
    assert cropped["fit"] == {"type": "CentralCrop", "fraction": 16 / 18} and cropped["image_size"] == [16, 16]
    done = within("evaluate", thousand, "objectnet", "--resize", 7)
    assert done.code == 2 and "--resize: 7 pixels leave no middle of 8x8" in done.error


def test_missing_images_are_named_and_can_be_done_without(within, val, root, thousand):
    gone = [val_name(number) for number in (2, 11, 38) if val[number - 1, 0] >= 0]
    for name in gone:
        (root / "imagenet/val" / name).unlink()
    done = within("evaluate", thousand, "imagenet-real")
    assert done.code == 2 and all(name in done.error for name in gone)
    assert "--missing-images skip" in done.error
    assert within("finetune", "imagenet-real", "--out", "run").code == 2  # nothing but evaluation may
    found = numbers(within("evaluate", thousand, "imagenet-real", "--missing-images", "skip", "--json"))
    whole = int((val[:, 0] >= 0).sum())
    assert found["missing"] == {"count": len(gone), "expected": whole, "names": gone}
    assert found["count"] == whole - len(gone)
    first = within("evaluate", thousand, "imagenet-real", "--missing-images", "skip").out.splitlines()[0]
    assert f"{whole - len(gone)} images, {len(gone)} of {whole} missing ({gone[0]}" in first


def test_workers_read_what_remains(within, val, root, thousand):
    (root / "imagenet/val" / val_name(1)).unlink()
    found = numbers(within("evaluate", thousand, "imagenet", "--missing-images", "skip", "--workers", 1, "--json"))
    assert found["count"] == 39 and found["missing"]["names"] == [val_name(1)]


def test_whole_folders_of_objectnet_are_missed_by_name(within, root, monkeypatch, thousand):
    standins.objectnet(root / "objectnet", LABELS)
    layout = imagenet.ObjectNet(groups=3, classes_matched=4)
    changes = {"layout": layout, "examples": {"test": 3}}
    monkeypatch.setitem(entries(), "objectnet", entries()["objectnet"].model_copy(update=changes))
    folder = root / "objectnet/objectnet-1.0/images/banana"
    (folder / "a.png").unlink()
    folder.rmdir()
    found = numbers(within("evaluate", thousand, "objectnet", "--missing-images", "skip", "--json"))
    assert found["missing"] == {"count": 1, "expected": 3, "names": ["banana/"]}


def test_two_models_are_compared_on_the_same_images(within, trained, photos, make_model, tmp_path):
    other = make_model(num_classes=3, classes=("owl", "cat", "dog"), image_size=Size(16, 16))
    save(other, tmp_path / "other.safetensors")
    alone = [numbers(within("evaluate", name, photos, "--json"))["top1"] for name in (trained, "other.safetensors")]
    found = numbers(within("evaluate", trained, photos, "--against", "other.safetensors", "--json", "--out", "sheet"))
    against = found["against"]
    assert (found["top1"], against["top1"]) == (pytest.approx(alone[0]), pytest.approx(alone[1]))
    assert against["difference"] == pytest.approx(alone[0] - alone[1])
    assert against["difference_interval"][0] <= against["difference"] <= against["difference_interval"][1]
    names = {path.name for path in (tmp_path / "sheet").iterdir()}
    assert names == {"evaluation.json", "predictions.csv", "against.csv", "reliability.png"}
    assert json.loads((tmp_path / "sheet/evaluation.json").read_text()) == found | {"classes": ["cat", "dog", "owl"]}
    said = within("evaluate", trained, photos, "--against", "other.safetensors").out
    assert "against other.safetensors: top-1" in said and "McNemar" in said


def test_calibration_is_among_the_numbers(within, trained, photos):
    found = numbers(within("evaluate", trained, photos, "--json"))["calibration"]
    assert set(found) == {"ece", "mce", "brier", "nll", "bins"} and len(found["bins"]) == 15
    assert sum(each["count"] for each in found["bins"]) == 24
    assert "ECE " in within("evaluate", trained, photos).out


def test_wrong_requests_are_refused_before_anything_is_computed(refused, trained, photos, make_model, tmp_path):
    save(make_model(num_classes=4, classes=("cat", "dog", "owl", "yak")), tmp_path / "four.safetensors")
    save(make_model(num_classes=21_843), tmp_path / "large.safetensors")
    save(make_model(num_classes=None), tmp_path / "headless.safetensors")
    (tmp_path / "taken").mkdir()
    evaluate = ("evaluate", trained, photos)
    refused(*evaluate, "--against", "four.safetensors", words=["3 and 4", "'yak' is in one alone", "the same classes"])
    refused(*evaluate, "--against", "large.safetensors", words=["3 classes", "head has 21843 outputs"])
    refused(*evaluate, "--against", "headless.safetensors", words=["the model has no head"])
    refused(*evaluate, "--against", "nowhere", words=["nowhere", "check the path"])
    refused(*evaluate, "--out", "taken", words=["taken: exists already", "--out"])
    refused(*evaluate, "--out", "no/where", words=["no: is no folder"])
    refused(
        *evaluate,
        "--missing-images",
        "skip",
        words=["--missing-images: nobody says how many images belong to", "leave it out"],
    )
    refused(*evaluate, "--resize", 20, "--image-size", "16x18", words=["--resize", "square --image-size"])


def test_a_head_of_another_size_is_refused_by_imagenet(refused, val, make_model, tmp_path):
    save(make_model(num_classes=21_843), tmp_path / "large.safetensors")
    refused("evaluate", "large.safetensors", "imagenet-real", words=["1000 classes", "head has 21843 outputs"])


def test_imagenet_s_classes_in_another_order_are_refused_for_the_name_that_is_there_twice(
    refused, val, make_model, tmp_path
):
    from vitlab.data.layouts.examples import imagenet_synsets

    names = tuple(imagenet_synsets().values())
    save(make_model(num_classes=1000, classes=names[::-1]), tmp_path / "turned.safetensors")
    refused("evaluate", "turned.safetensors", "imagenet", words=["another order", "'crane' is the name of two"])


def test_outputs_that_are_no_numbers_are_an_error_not_an_accuracy(within, make_model, photos, tmp_path):
    import torch

    model = make_model(num_classes=3, classes=("cat", "dog", "owl"))
    with torch.no_grad():
        model.head.weight.fill_(3e38)
    save(model, tmp_path / "huge.safetensors")
    done = within("evaluate", "huge.safetensors", photos)
    assert done.code == 1 and "not finite numbers for 24 of 24 images, the first 'cat/0.png'" in done.error
