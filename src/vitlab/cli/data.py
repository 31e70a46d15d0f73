"""`vitlab data`: the verbs about data sets."""

import typer

from vitlab.cli.data_download import download
from vitlab.cli.data_list import list_data

app = typer.Typer(no_args_is_help=True, help="Look at data sets before they are trained on.")
app.command("list")(list_data)
app.command()(download)
