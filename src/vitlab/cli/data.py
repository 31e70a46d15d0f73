"""`vitlab data`: the verbs about data sets."""

import typer

from vitlab.cli.data_check import check
from vitlab.cli.data_describe import describe
from vitlab.cli.data_download import download
from vitlab.cli.data_list import list_data
from vitlab.cli.data_pack import pack

app = typer.Typer(
    no_args_is_help=True, help="Find data sets, look at them, and prepare them, before they are trained on."
)
app.command("list")(list_data)
for verb in (download, describe, check, pack):
    app.command()(verb)
