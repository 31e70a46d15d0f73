"""Contents: the studies of the paper, in its order. This file imports none of them before it is asked for, and no torch."""

import ast
import importlib
import importlib.util
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitlab.config import nearest
from vitlab.errors import SettingsError

if TYPE_CHECKING:
    from vitlab.studies.study import Study

_ORDER = (
    *("table2", "figure2", "figure3", "figure4", "table5", "figure5", "table6", "figure6", "figure7", "section45"),
    *("table3", "table4", "masked_patches", "table7", "figure8", "figure9", "table8", "figure10"),
    *("figure12", "figure13", "figure11", "figure14", "objectnet", "table9"),
)
"""As a reader meets them; what a figure is drawn from stands beside it, the appendix after the paper."""
_MODULES = {"table6": "table6_scaling"}
"""The modules that are not called as their study; the others are."""
_OURS = ("pieces", "claims", "failed")
"""Names in the folder of studies that no study may have."""


def names() -> tuple[str, ...]:
    """Return what the studies are called, in the order of the paper."""
    return _ORDER


def about(name: str) -> str:
    """Return what a study is about in a line, which is the first of its file."""
    spec = importlib.util.find_spec(_module(name))
    assert spec is not None and spec.origin is not None  # it is one of `names`
    said = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    return said.partition("\n")[0]


def find(name: str) -> "Study":
    """Return the study called `name`, or that of a Python file of your own: the value `STUDY` in it.

    Raises:
        SettingsError: there is no such study, or the file holds none.
    """
    if name.endswith(".py"):
        return _of_file(Path(name))
    if name not in names():
        raise SettingsError("NAME", f"there is no study '{name}'", nearest(name, names(), "see `vitlab study list`"))
    return importlib.import_module(_module(name)).STUDY


def _module(name: str) -> str:
    return f"vitlab.studies.{_MODULES.get(name, name)}"


def _of_file(path: Path) -> "Study":
    from vitlab.studies.study import Study

    if not path.is_file():
        raise SettingsError(path, "is no file", "check the path, or give a name: see `vitlab study list`")
    spec = importlib.util.spec_from_file_location(f"study_{path.stem}", path)
    assert spec is not None and spec.loader is not None  # a name that ends with .py has a loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise SettingsError(path, f"cannot be read ({type(error).__name__}: {error})", "repair the file") from error
    study: Any = getattr(module, "STUDY", None)
    if not isinstance(study, Study):
        raise SettingsError(path, "has no value STUDY of the kind Study", "see docs/studies.md")
    if study.name in (*names(), *_OURS) or not re.fullmatch(r"\w[\w-]*", study.name):
        raise SettingsError(path, f"its study cannot be called '{study.name}'", "choose a name of its own, of one word")
    return replace(study, file=str(path))
