import json

import numpy as np
import pytest

from vitlab.data.digits import Digits
from vitlab.data.source import Subset
from vitlab.errors import DataError, SettingsError
from vitlab.evals.features import Labelled, extract
from vitlab.evals.fewshot import SWEEP, fewshot
from vitlab.evals.neighbours import neighbours
from vitlab.evals.probe import probe
from vitlab.studies import fewshot as study
from vitlab.studies.fewshot import Protocol, best_l2, measure, open_sides, parse_l2s


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VITLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


@pytest.fixture
def sides():
    train, test = Digits().split(test=0.2)
    return Subset(train, np.arange(0, len(train), 4)), Subset(test, np.arange(0, len(test), 4))


def test_it_is_what_the_function_gives_for_every_seed(make_model, sides):
    model = make_model(num_classes=None)
    found = measure(model, *sides, Protocol(shots=(1, 5), seeds=2, l2s=(16.0,)))
    for shots in (1, 5):
        alone = [[fewshot(model, *sides, shots=shots, seed=seed, l2=16.0)] for seed in range(2)]
        np.testing.assert_array_equal(found.accuracies[shots], alone)
    assert found.as_json()["shots"]["5"]["seeds"] == [row[0] for row in alone]
    assert found.probed is None and found.knn == {}


def test_a_sweep_has_the_accuracy_of_every_l2_and_names_the_best(make_model, sides):
    model = make_model(num_classes=None)
    found = measure(model, *sides, Protocol(shots=(3,), seeds=2, l2s=SWEEP))
    table = found.accuracies[3]
    assert table.shape == (2, 30)
    assert table[1, 20] == fewshot(model, *sides, shots=3, seed=1, l2=1024.0)
    values = found.as_json()["shots"]["3"]
    assert values["accuracy"] == max(values["by_l2"]) and values["l2"] == SWEEP[int(np.argmax(values["by_l2"]))]
    assert best_l2([found, found], 3) == found.best(3)


def test_probe_and_neighbours_use_all_training_images(make_model, sides):
    model, (train, test) = make_model(num_classes=None), sides
    found = measure(model, train, test, Protocol(shots=(1,), seeds=1, probe=True, knn=(1, 7)))
    known, asked = Labelled(extract(model, train), train.labels), Labelled(extract(model, test), test.labels)
    assert found.probed == probe(known, asked, 10)
    assert found.knn == neighbours(known, asked, 10, (1, 7))
    low, high = found.as_json()["knn"]["7"]["interval"]
    assert low < found.knn[7] < high


def test_only_drawn_images_are_computed_and_none_a_second_time(make_model, sides, cache, monkeypatch):
    model = make_model(num_classes=None)
    told = []
    protocol = Protocol(shots=(1, 2), seeds=2)
    first = measure(model, *sides, protocol, seen=lambda *done: told.append(done))
    used = told[-1][1] - len(sides[1])
    assert 20 <= used <= 40 and told[-1] == (used + len(sides[1]), told[-1][1])
    monkeypatch.setattr(type(model), "features", None)
    again = measure(model, *sides, protocol)
    assert again.as_json() == first.as_json()
    assert measure(model, *sides, Protocol(shots=(2,), seeds=2, l2s=SWEEP)).accuracies[2].shape == (2, 30)
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        (Protocol(shots=(1, 999)), "class '.' has .* fewer than 999 shots; use at most"),
        (Protocol(knn=(10_000,)), "--knn: there are no 10,000 neighbours"),
        (Protocol(l2s=(1.0, 0.0)), "l2: 0 is no regulariser"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_computed(make_model, sides, cache, protocol, words):
    with pytest.raises((DataError, SettingsError), match=words):
        measure(make_model(), *sides, protocol)
    assert not cache.exists()


def test_lines_and_json_say_the_same(make_model, sides):
    found = measure(make_model(), *sides, Protocol(shots=(1, 5), seeds=3, probe=True, knn=(5,)))
    values, text = found.as_json(), "\n".join(found.lines())
    assert json.loads(json.dumps(values)) == values
    of_seeds = found.accuracies[5][:, 0]
    assert f"{100 * of_seeds.mean():5.1f} ± {100 * of_seeds.std(ddof=1):4.1f} %   l2 1024" in text
    assert f"{100 * values['probe']['accuracy']:5.1f} %   (95 % interval" in text
    assert "knn 5" in text and "deviation of 3 seeds" in text
    one = measure(make_model(), *sides, Protocol(shots=(1,), seeds=1))
    assert "±" not in "\n".join(one.lines()) and one.as_json()["shots"]["1"]["deviation"] is None


def test_l2_is_written_as_a_number_or_as_sweep():
    assert parse_l2s("1024") == (1024.0,) and parse_l2s("0.5,2") == (0.5, 2.0) and parse_l2s("sweep") == SWEEP
    for text in ("", "many", "0", "-1", "nan", "inf"):
        with pytest.raises(SettingsError, match="--l2"):
            parse_l2s(text)


def test_a_data_set_is_tested_on_its_own_split_and_never_on_itself():
    train, test = open_sides("digits")
    assert len(train) + len(test) == 1797 and (str(train), str(test)) == ("digits, train part", "digits, test part")
    with pytest.raises(DataError, match="is what the images are drawn from, too"):
        open_sides("digits", "digits")


def test_the_same_folder_by_another_name_is_the_same(tmp_path, monkeypatch):
    for split in ("training", "test"):
        for name in "ab":
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for number in range(2):
                (tmp_path / "data" / split / name / f"{number}.png").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "data/training")
    monkeypatch.chdir(tmp_path)
    for train, test in (("data", "data/training"), ("data/training", "link"), ("link", f"{tmp_path}/data/training")):
        with pytest.raises(DataError, match="is what the images are drawn from, too"):
            open_sides(train, test)
    assert len(open_sides("data", "data/test")[1]) == len(open_sides("data", "data")[1]) == 4


def test_bad_images_are_left_out_where_that_is_asked_for(make_model, tmp_path):
    from PIL import Image

    from vitlab.studies.evaluation import Reading
    from vitlab.weights.save import save

    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for number in range(4):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / split / name / f"{number}.png")
    (tmp_path / "data" / "test" / "a" / "0.png").write_bytes(b"no image")
    save(make_model(), tmp_path / "model.safetensors")
    model, sides = str(tmp_path / "model.safetensors"), open_sides(str(tmp_path / "data"))
    with pytest.raises(DataError, match=r"(?s)images cannot be used.*a/0.png"):
        study.measure_data(model, sides, Protocol(shots=(2,)), workers=0)
    found = study.measure_data(model, sides, Protocol(shots=(2,)), Reading(skip_bad=True), workers=0)
    assert found.images == 7 and "a/0.png" in found.lines()[-1]
