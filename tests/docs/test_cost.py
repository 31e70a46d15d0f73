"""The table of costs is what its script writes, from what the paper printed."""

import importlib.util
from pathlib import Path

import pytest

from vitlab.studies.table6 import read_paper

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("docs_cost", DOCS / "cost.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_table_is_up_to_date(script):
    assert (DOCS / "cost.md").read_text() == script.page(), "run: python docs/cost.py"


def test_the_table_has_every_row_of_the_paper_and_marks_the_misprint(script):
    page = (DOCS / "cost.md").read_text()
    lines = [line for line in page.splitlines() if line.startswith("|")][2:]
    assert len(lines) == len(read_paper()) == 18
    assert [line.split(" | ")[0] for line in lines if "\\*" in line] == ["| R50+L/16"]
    assert "1,668 for 14 epochs" in page and "half of that is 834" in page
    assert "All others are within 2.3 % (B/32 is the farthest)." in page
