"""`vitlab data download`."""

from typing import Annotated

import typer

from vitlab.cli.data_list import DataDir


def download(
    name: Annotated[str, typer.Argument(help="A name from `vitlab data list`.")], data_dir: DataDir = None
) -> None:
    """Download a data set, verify and unpack it; one that was interrupted is continued."""
    from vitlab.data.catalog import data_folder
    from vitlab.data.obtain import obtain

    typer.echo(f"{name} is at {obtain(name, data_folder() if data_dir is None else data_dir)}")
