"""`vitlab data`: the verbs about data sets."""

import typer

from vitlab.cli.data_check import check
from vitlab.cli.data_describe import describe

app = typer.Typer(no_args_is_help=True, help="Look at data sets before they are trained on.")
for verb in (describe, check):
    app.command()(verb)
