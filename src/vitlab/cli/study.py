"""`vitlab study`: the verbs about the paper's tables and figures."""

import typer

from vitlab.cli.study_list import list_studies
from vitlab.cli.study_report import report
from vitlab.cli.study_run import run
from vitlab.cli.study_show import show

app = typer.Typer(
    no_args_is_help=True,
    help="Run the tables and figures of the paper again, in miniature or at its size, or your own.",
)
app.command("list")(list_studies)
for verb in (show, run, report):
    app.command()(verb)
