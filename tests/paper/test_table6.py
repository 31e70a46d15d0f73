"""The compute of every line of table 6 against what the paper printed."""

import csv

from vitlab.studies.table6 import read_paper, table6


def test_the_paper_is_transcribed_without_a_slip(shared):
    with (shared / "paper" / "table6_scaling.csv").open(newline="") as file:
        printed = [(row["model"], int(row["epochs"]), int(row["exaFLOPs"])) for row in csv.DictReader(file)]
    assert [tuple(row) for row in read_paper()] == printed


def test_every_line_but_the_misprint_is_met_within_three_percent():
    rows = table6().rows
    assert len(rows) == 18
    assert [(row.model, row.epochs) for row in rows if abs(row.ratio - 1) > 0.03] == [("R50+L/16", 7)]
    assert [(row.model, row.epochs) for row in rows if row.misprint] == [("R50+L/16", 7)]
    twice = {row.epochs: row for row in rows if row.model == "R50+L/16"}
    assert abs(twice[7].exaflops / (twice[14].paper / 2) - 1) < 0.003
