"""The rules of the house that no other tool checks, read from the source itself."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_PARAMETERS = 400, 50, 7
VAGUE = {"util", "utils", "misc", "common", "helper", "helpers", "base", "manager", "core", "tools"}
FOREIGN = {"torchvision", "timm", "transformers", "sklearn", "scipy", "pandas", "requests"}
FOREIGN |= {"pickle", "marshal", "shelve", "dill", "joblib"}
"""Not needed, too large, or able to run what they read."""


def named(path):
    return str(path.relative_to(ROOT))


TREES = {named(path): ast.parse(path.read_text()) for path in SOURCES}
each_source = pytest.mark.parametrize("tree", TREES.values(), ids=TREES.keys())


def functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_there_is_source_to_look_at():
    assert len(SOURCES) > 50 and len(TESTS) > 20


def test_imports_only_go_down_the_floors():
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"[1-9]\d* kept, 0 broken", done.stdout)


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=named)
def test_no_file_is_longer_than_a_reader_can_hold(path):
    assert len(path.read_text().splitlines()) <= MAX_FILE_LINES


@each_source
def test_no_function_is_longer_than_a_screen(tree):
    """The verbs of the command line are excepted: an option each, and their documentation, are their length."""
    long = [
        (node.name, node.end_lineno - node.lineno + 1)
        for node in functions(tree)
        if node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES and not is_verb(node)
    ]
    assert long == []


@each_source
def test_no_function_has_more_parameters_than_one_remembers(tree):
    """The verbs of the command line are excepted: a parameter there is an option that a person types, by its name."""
    many = []
    for node in functions(tree):
        every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        count = len([parameter for parameter in every if parameter.arg not in ("self", "cls")])
        if count > MAX_PARAMETERS and not is_verb(node):
            many.append((node.name, count))
    assert many == []


def is_verb(node):
    """Whether a function is a verb of the command line: public, in vitlab/cli, and named as its file."""
    return f"src/vitlab/cli/{node.name}.py" in TREES and node in TREES[f"src/vitlab/cli/{node.name}.py"].body


@pytest.mark.parametrize("path", [*SOURCES, ROOT / "pyproject.toml", ROOT / "README.md"], ids=named)
def test_nothing_is_left_to_be_done(path):
    left = [line for line in path.read_text().splitlines() if re.search(r"\b(TODO|FIXME|XXX|HACK)\b", line)]
    assert left == []


@each_source
def test_nothing_is_not_implemented(tree):
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    assert "NotImplementedError" not in names


def undocumented(tree, prefix=""):
    """Yield the public classes and functions below `tree` without a docstring; an overload has none, its function has it."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and any(ast.unparse(mark) == "overload" for mark in node.decorator_list):
            continue
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            if not (ast.get_docstring(node) or "").strip():
                yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from undocumented(node, f"{node.name}.")


@each_source
def test_everything_public_says_what_it_is_for(tree):
    assert (ast.get_docstring(tree) or "").strip(), "the module has no docstring"
    assert list(undocumented(tree)) == []


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=named)
def test_files_are_named_by_what_is_in_them(path):
    assert not set(re.split(r"[_.]", path.stem)) & VAGUE
    assert not set(path.relative_to(ROOT).parts[:-1]) & VAGUE


@each_source
def test_no_library_is_imported_that_is_not_needed_or_not_safe(tree):
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {name.split(".")[0] for name in found} & FOREIGN


def dotted(node):
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


@each_source
def test_nothing_that_is_read_is_ever_executed(tree):
    forbidden = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            assert dotted(node.func) not in forbidden, f"line {node.lineno}"
            for keyword in node.keywords:
                said = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                assert (keyword.arg, said) not in {("allow_pickle", True), ("shell", True), ("trust_remote_code", True)}
            if dotted(node.func) == "torch.load":
                said = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
                assert said.get("weights_only") is True, f"line {node.lineno}"
            if dotted(node.func) in ("np.load", "numpy.load", "npy.read_array"):
                assert any(keyword.arg == "allow_pickle" for keyword in node.keywords), f"line {node.lineno}"


def test_the_package_is_typed_and_carries_its_data():
    package = ROOT / "src" / "vitlab"
    assert (package / "py.typed").exists()
    assert (package / "data" / "digits.npz").exists() and (package / "data" / "digits.LICENSE.txt").exists()
    assert (package / "weights" / "published.csv").exists() and (package / "data" / "catalog" / "vtab.json").exists()
    assert (package / "studies" / "recipes" / "jft.json").exists() and (
        package / "studies" / "recipes" / "expected.csv"
    ).exists()
    page = package / "serve" / "page"
    assert sorted(file.name for file in page.iterdir()) == ["icon.svg", "index.html", "script.js", "style.css"]


def test_every_folder_of_source_says_what_it_is_in_one_sentence():
    for folder in {path.parent for path in SOURCES} - {ROOT / "src"}:
        said = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
        assert said and "\n\n" not in said, folder


def test_every_folder_of_tests_is_a_package():
    """Else pytest takes two test files of one name for the same module."""
    assert [path.name for path in TESTS if not (path.parent / "__init__.py").exists()] == []
