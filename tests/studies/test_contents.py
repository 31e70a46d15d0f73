import subprocess
import sys

import pytest

from vitlab.errors import SettingsError
from vitlab.studies import contents
from vitlab.studies.study import Study
from vitlab.studies.study_page import state_of, write_page

OWN = """
from vitlab.studies.study import Study
STUDY = Study("{name}", "Mine", "Is it?", "It is.", "my notes", {{}})
"""


@pytest.mark.parametrize("name", contents.names())
def test_every_study_is_called_as_it_calls_itself_and_says_what_it_is(name):
    study = contents.find(name)
    assert isinstance(study, Study) and study.name == name
    assert study.title and study.question.endswith("?") and study.found and study.source
    assert len(contents.about(name)) > 10
    assert set(study.editions) | set(study.impossible) == {"miniature", "small", "paper"}


@pytest.mark.parametrize("name", contents.names())
def test_every_study_has_a_page_before_any_of_its_pieces_is_done(name, tmp_path):
    study = contents.find(name)
    state = state_of(study, study.at("miniature"), tmp_path)
    assert state.failures == {} and (state.finished == (name in ("table3", "table4")))
    assert state.sheet.finding.agrees is None or state.finished
    assert study.title in write_page(state, "miniature", tmp_path).read_text()


def test_names_and_what_they_are_about_need_no_torch():
    code = "import sys; from vitlab.studies.contents import about, names; print(*map(about, names()), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.endswith(" False\n") and done.stderr == ""


def test_a_name_that_is_not_there_gets_the_nearest():
    with pytest.raises(SettingsError, match="there is no study 'tabel8'; did you mean 'table8'"):
        contents.find("tabel8")


def test_a_file_of_your_own_is_a_study(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(OWN.format(name="mine"))
    assert contents.find(str(path)).title == "Mine"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (OWN.format(name="table8"), "cannot be called 'table8'"),
        (OWN.format(name="../up"), "cannot be called"),
        (OWN.format(name="pieces"), "cannot be called"),
        ("STUDY = 1", "has no value STUDY"),
        ("import nowhere_at_all", "ModuleNotFoundError"),
        ("def", "SyntaxError"),
    ],
)
def test_a_file_that_is_no_study_is_refused(tmp_path, text, words):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(SettingsError, match=words):
        contents.find(str(path))
    with pytest.raises(SettingsError, match="is no file"):
        contents.find(str(tmp_path / "none.py"))
