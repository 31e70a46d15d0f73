"""The table of recipes is what its script writes."""

import importlib.util
from pathlib import Path

from vitlab.studies.recipe import recipes

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_table_is_up_to_date_and_has_every_recipe():
    spec = importlib.util.spec_from_file_location("docs_recipes", DOCS / "recipes.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = (DOCS / "recipes.md").read_text()
    assert page == script.page(), "run: python docs/recipes.py"
    rows = [line.split(" | ")[0].strip("| `") for line in page.splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted(recipes())
