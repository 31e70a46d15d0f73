"""`vitlab data`: what is done with data sets themselves."""

import typer

from vitlab.cli.data_pack import data_pack

data = typer.Typer(no_args_is_help=True, help="Prepare data sets: pack them into shards.")
data.command("pack")(data_pack)


@data.callback()
def _verbs() -> None:
    """Keep `pack` a verb of its own while it is the only one."""
