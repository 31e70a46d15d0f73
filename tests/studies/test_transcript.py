"""Tables 3 and 4: every recipe is compared with the row of the paper that it is for."""

from dataclasses import replace

import pytest

from vitlab.studies import recipe, table3, table4
from vitlab.studies.study import Results
from vitlab.studies.transcript import Line, sheet

NAMES = {"table3": "table3_pretraining.csv", "table4": "table4_finetuning.csv"}


@pytest.mark.parametrize("name", NAMES)
def test_the_paper_is_transcribed_without_a_slip(name, shared):
    from importlib import resources

    ours = (resources.files("vitlab.studies") / "paper" / f"{name}.csv").read_text()
    assert ours == (shared / "paper" / NAMES[name]).read_text()


@pytest.mark.parametrize(("study", "rows"), [(table3.STUDY, 27), (table4.STUDY, 6)])
@pytest.mark.parametrize("scale", ["miniature", "small", "paper"])
def test_our_recipes_are_those_of_the_paper_at_every_scale(study, rows, scale):
    edition = study.at(scale)
    shown = edition.sheet(Results({}))
    assert edition.grid == {} and shown.finding.agrees is True, shown.finding.words
    (table,) = shown.tables
    assert len(table.rows) == 1 + rows and all(len(row) == len(table.rows[0]) for row in table.rows)
    assert [row[-1] for row in table.rows[1:]] == ["yes"] * rows


def test_another_rate_is_told(monkeypatch):
    changed = dict(recipe.recipes())
    given = changed["jft/L32"]
    changed["jft/L32"] = given.model_copy(update={"train": given.train.model_copy(update={"lr": 1e-3})})
    monkeypatch.setattr(table3, "recipes", lambda: changed)
    found = table3.made()
    assert found.finding.agrees is False
    assert found.finding.words == "1 of 27 recipes differ: jft/L32 (base rate 0.001, not 0.0006)."
    del changed["jft/L32"]
    words = table3.made().finding.words
    assert words.startswith("1 of 27 recipes differ: ViT-L/32 JFT-300M 7 (base rate not there, not 0.0006;")


def test_a_value_that_only_ours_has_is_no_difference():
    line = Line(("a",), "r", {"rate": "1", "more": "2"}, {"rate": "1"})
    assert line.same and not replace(line, paper={"rate": "3"}).same
    assert sheet("t", ("row",), [line], "").tables[0].rows[1] == ["a", "r", "1", "1", "yes"]
