"""`vitlab data`: the verbs about data sets."""

import typer

from vitlab.cli.data_pack import pack

app = typer.Typer(no_args_is_help=True, help="Prepare data sets before they are trained on.")
for verb in (pack,):
    app.command()(verb)


@app.callback()
def _several() -> None:
    """Let a verb that is the only one have a name."""
