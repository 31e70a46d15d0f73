"""`vitlab fewshot` from the command line."""

import json

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("VITLAB_CACHE", str(folder))
    return folder


def test_a_run_on_its_photos_is_measured_and_the_same_again(within, trained, photos, cache):
    asked = ("fewshot", trained, photos, "--shots", "1,3", "--seeds", 2, "--probe", "--knn", 3, "--workers", 0)
    done = within(*asked, "--json")
    assert done.code == 0, done.err
    values = json.loads(done.out)
    assert values["count"] == 3 and values["classes"] == 3 and set(values["shots"]) == {"1", "3"}
    assert 0 <= values["probe"]["accuracy"] <= 1 and set(values["knn"]) == {"3"}
    files = {path.name: path.stat().st_mtime_ns for path in (cache / "features").iterdir()}
    again = within(*asked, "--json")
    assert again.out == done.out
    assert {path.name: path.stat().st_mtime_ns for path in (cache / "features").iterdir()} == files
    text = within(*asked).out
    assert "deviation of 2 seeds" in text and "probe" in text and "knn 3" in text


def test_what_is_asked_wrongly_is_refused(refused, trained, photos):
    refused("fewshot", trained, photos, "--shots", "1,99", words=["class 'cat'", "fewer than 99 shots", "at most 7"])
    refused("fewshot", trained, photos, "--shots", "many", words=["--shots", "write 5, or 1,5,10"])
    refused("fewshot", trained, photos, "--knn", "", words=["--knn", "write 5, or 1,5,10"])
    refused("fewshot", trained, photos, f"{photos}/../photos", "--shots", 1, words=["drawn from, too"])
    refused("fewshot", trained, photos, "--l2", "none", words=["--l2", "'none' is no number above zero", "or sweep"])
    refused("fewshot", trained, photos, "--shots", 1, "--knn", 50, words=["--knn", "among 21 training images"])
    refused("fewshot", trained, photos, photos, "--shots", 1, words=["drawn from, too", "leave it out"])
    refused("fewshot", trained, photos, "digits", "--shots", 1, words=["other classes than", "'0', '1'"])
    refused("fewshot", "nothing", photos, words=["nothing", "vitlab models --weights"])
