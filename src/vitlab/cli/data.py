"""`vitlab data`: the verbs about data sets."""

import typer

from vitlab.cli.data_check import check
from vitlab.cli.data_describe import describe
from vitlab.cli.data_pack import pack

app = typer.Typer(no_args_is_help=True, help="Look at data sets, and prepare them, before they are trained on.")
for verb in (describe, check, pack):
    app.command()(verb)
