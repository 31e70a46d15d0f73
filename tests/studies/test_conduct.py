import io
import json
import re
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
from rich.console import Console

from vitlab.errors import DataError, RunFolderError, SettingsError
from vitlab.nn.position import NoPosition
from vitlab.studies import table8, world_miniature
from vitlab.studies.cell import Studio
from vitlab.studies.conduct import PIECES, conduct, failure_of, open_folder, results, scale_of, seconds_of
from vitlab.studies.study import Edition, Finding, Results, Sheet, Study, Table
from vitlab.studies.study_page import card_of, state_of, write_index, write_page
from vitlab.studies.work import Measurement, Training, Untrained, in_order
from vitlab.studies.world_miniature import MINIATURE

FEW = world_miniature.fractals(3, 10)


def training(name="base", **changes):
    model = world_miniature.vit(3, **{"width": 16, "mlp_dim": 16, "depth": 1, "num_heads": 1, **changes})
    return Training(f"{name}-seed0", world_miniature.pretraining(model, FEW, steps=4))


def read_width(models):
    return {"width": models[0].settings.width, "total": float(sum(p.detach().sum() for p in models[0].parameters()))}


def fail(models):
    raise ZeroDivisionError("nothing to divide by")


def sheet(results):
    width = results["width"]
    rows = [["what", "value"], ["width", "" if width is None else str(width["width"])]]
    return Sheet(
        [Table("Widths", rows)], [], Finding(None if width is None else True, "It is as wide as it should be.")
    )


def edition(**more):
    return Edition(
        "a few fractals", {"base": training(), "width": Measurement("width", read_width, (training(),)), **more}, sheet
    )


def study(**more):
    return Study("widths", "Widths & more", "How wide?", "16", "nowhere", {"miniature": lambda: edition(**more)})


@pytest.fixture
def studio():
    return Studio(Console(file=io.StringIO()), lambda line: None)


def go(edition, out, studio):
    worked = []
    open_folder(out, "miniature")
    conduct([edition], out, studio, lambda piece: worked.append(piece.name))
    return worked


def contents(out):
    kept = {".safetensors", ".json"}
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.suffix in kept or path.name == "metrics.jsonl"
    }


def test_each_piece_is_made_once_and_after_what_it_needs(tmp_path, studio):
    assert go(edition(), tmp_path / "out", studio) == ["base-seed0", "width"]
    assert results(edition(), tmp_path / "out")["width"]["width"] == 16
    assert go(edition(), tmp_path / "out", studio) == []
    other = training("other", position=NoPosition())
    assert go(edition(other=other), tmp_path / "out", studio) == ["other-seed0"]
    assert seconds_of(in_order([other]), tmp_path / "out") > 0


def test_a_change_that_matters_is_another_piece_and_one_that_does_not_is_the_same():
    base = training()
    assert training(width=8).digest != base.digest
    seeded = base.settings.model_copy(update={"train": base.settings.train.model_copy(update={"seed": 1})})
    assert Training("base", seeded).digest != base.digest
    assert Training("base", base.settings, start=base).digest != base.digest
    assert Untrained(base).digest != base.digest
    elsewhere = base.settings.model_copy(update={"device": "cuda", "workers": 3})
    assert Training("base", elsewhere).digest == base.digest
    assert Measurement("a", read_width, (base,)).digest != Measurement("a", fail, (base,)).digest
    shots = [Measurement("a", partial(read_width), (base,), {"shots": shots}) for shots in (1, 5)]
    assert shots[0].digest != shots[1].digest


def test_a_training_starts_from_the_weights_of_another(tmp_path, studio):
    base = training()
    tuned = Training("tuned", base.settings, start=base)
    go(edition(tuned=tuned), tmp_path, studio)
    config = json.loads((tuned.folder(tmp_path / PIECES) / "config.json").read_text())
    assert config["weights"]["path"].endswith("model.safetensors")
    assert base.folder(tmp_path / PIECES).name in config["weights"]["path"]


def test_a_piece_that_fails_is_shown_and_the_rest_goes_on(tmp_path, studio):
    broken = Measurement("broken", fail, (training(),))
    given = study(broken=broken)
    worked = go(given.at("miniature"), tmp_path, studio)
    assert worked == ["base-seed0", "width", "broken"]
    assert failure_of(broken, tmp_path).reason == "ZeroDivisionError: nothing to divide by"
    state = state_of(given, given.at("miniature"), tmp_path)
    assert not state.finished and state.words() == "2 of 3 pieces done, 1 failed"
    page = write_page(state, "miniature", tmp_path).read_text()
    assert "broken failed: ZeroDivisionError: nothing to divide by" in page and "in fail" in page
    assert go(given.at("miniature"), tmp_path, studio) == ["broken"]  # it is tried once more


def test_what_needs_a_failed_piece_is_not_begun(tmp_path, studio):
    base = training()
    wrong = Training(
        "wrong", base.settings.model_copy(update={"on_bad_image": "fail", "workers": 0, "device": "nowhere"})
    )
    after = Measurement("after", read_width, (wrong,))
    assert go(edition(after=after), tmp_path, studio) == ["base-seed0", "width", "wrong"]
    assert failure_of(after, tmp_path).name == "wrong"


def test_pages_show_what_came_out(tmp_path, studio):
    go(edition(), tmp_path, studio)
    state = state_of(study(), edition(), tmp_path)
    page = write_page(state, "miniature", tmp_path).read_text()
    assert "Widths &amp; more" in page and re.search(r"<td class=\"number\">16</td>", page)
    assert '<span class="badge agrees">agrees</span>' in page and "It is as wide as it should be." in page
    index = write_index([card_of(state)], "miniature", tmp_path).read_text()
    assert "widths/index.html" in index and "1 agrees" in index and "<td>16</td>" in index and "Not run here." in index


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(RunFolderError, match=r"already exists, without study\.json"):
        open_folder(tmp_path, "miniature")
    out = tmp_path / "out"
    open_folder(out, "miniature")
    open_folder(out, "miniature")
    with pytest.raises(RunFolderError, match="holds studies at scale miniature, not small"):
        open_folder(out, "small")
    (out / "study.json").write_text('{"layout": 99, "scale": "miniature"}')
    with pytest.raises(RunFolderError, match="another version"):
        open_folder(out, "miniature")


def test_results_that_cannot_be_summed_up_are_a_failure_on_the_page_and_no_end(tmp_path, studio):
    def wrong(results):
        return 1 / 0

    go(edition(), tmp_path, studio)
    state = state_of(study(), replace(edition(), sheet=wrong), tmp_path)
    assert state.failures["the sum of the results"].reason == "ZeroDivisionError: division by zero"
    assert state.badge == "cannot tell" and "in wrong" in write_page(state, "miniature", tmp_path).read_text()


def test_the_scale_of_a_folder_is_that_of_its_studies(tmp_path):
    with pytest.raises(RunFolderError, match="holds no studies"):
        scale_of(tmp_path)
    open_folder(tmp_path, "small")
    assert scale_of(tmp_path) == "small"
    (tmp_path / "study.json").write_text('{"layout": 1, "scale": "huge"}')
    with pytest.raises(SettingsError, match="there is no 'huge'"):
        scale_of(tmp_path)


def test_scales_that_are_not_there_say_why(tmp_path, monkeypatch):
    one = replace(study(), impossible={"paper": "nobody could"})
    with pytest.raises(SettingsError, match="widths has no paper edition: nobody could; use miniature"):
        one.at("paper")
    with pytest.raises(SettingsError, match="there is no 'huge'; use miniature or small or paper"):
        table8.STUDY.at("huge")
    monkeypatch.setenv("VITLAB_DATA", str(tmp_path))
    with pytest.raises(DataError, match="JFT-300M: is needed, and was never published; put or link a large"):
        table8.STUDY.at("paper")


WORK = """
import io, sys
from pathlib import Path
from rich.console import Console
from tests.studies.test_conduct import edition, training
from vitlab.studies.cell import Studio
from vitlab.studies.conduct import conduct, open_folder
out = Path(sys.argv[1])
open_folder(out, "miniature")
more = {f"more{seed}": training(f"more{seed}", width=8 * (seed + 1)) for seed in range(4)}
conduct([edition(**more)], out, Studio(Console(file=io.StringIO()), lambda _: None), lambda piece: print(piece.name, flush=True))
"""


def start(out):
    return subprocess.Popen([sys.executable, "-c", WORK, str(out)], stdout=subprocess.PIPE, text=True)


def finish(out):
    with start(out) as process:
        process.communicate(timeout=120)
    assert process.returncode == 0


@pytest.mark.slow
def test_two_processes_share_a_study_and_no_piece_is_made_twice(tmp_path):
    both = [start(tmp_path / "out") for _ in range(2)]
    made = [process.communicate(timeout=120)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(made[0] + made[1]) == ["base-seed0", *(f"more{seed}-seed0" for seed in range(4)), "width"]
    assert not list((tmp_path / "out" / "claims").iterdir())


@pytest.mark.slow
def test_a_study_that_was_killed_ends_like_one_that_was_not(tmp_path):
    finish(tmp_path / "whole")
    for _ in range(3):
        with start(tmp_path / "killed") as process:
            process.stdout.readline()
            process.send_signal(signal.SIGKILL)
    finish(tmp_path / "killed")
    whole, killed = contents(tmp_path / "whole"), contents(tmp_path / "killed")
    changing = re.compile(r"(environment|manifest)[^/]*\.json$")
    assert {name: data for name, data in whole.items() if not changing.search(name)} == {
        name: data for name, data in killed.items() if not changing.search(name)
    }


def test_table_8_is_transcribed_and_judged():
    assert table8.paper()["1d"] == {"stem": 0.64206, "every_layer": 0.63964, "every_layer_shared": 0.64292}
    assert table8.paper()["none"] == {"stem": 0.61382}
    grid = table8.STUDY.at("miniature").grid
    assert len(grid) == 16 and len(in_order(list(grid.values()))) == 32

    def told(none, others):
        return table8.sheet(
            MINIATURE, Results({label: {"top1": none if label.startswith("none") else others} for label in grid})
        ).finding

    assert told(0.5, 0.7).agrees is True
    assert told(0.7, 0.6).agrees is False
    assert table8.sheet(MINIATURE, Results(dict.fromkeys(grid))).finding.agrees is None


@pytest.mark.slow
def test_a_folder_can_be_opened_by_many_at_once(tmp_path):
    program = "import sys; from pathlib import Path; from vitlab.studies.conduct import open_folder\n"
    program += "print('ready', flush=True); sys.stdin.readline()\n"
    program += "for n in range(50): open_folder(Path(sys.argv[1]) / str(n), 'miniature')"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    many = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], **pipes, text=True) for _ in range(3)]
    for process in many:
        process.stdout.readline()
    for process in many:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=120)[1] for process in many]
    assert [process.returncode for process in many] == [0, 0, 0], said
    assert all([path.name for path in (tmp_path / str(n)).iterdir()] == ["study.json"] for n in range(50))
