"""The entry point: verbs, and how errors become one line and an exit code."""

import logging
import os
import sys
from typing import Annotated

import typer

from vitlab.cli import data, study
from vitlab.cli.convert import convert
from vitlab.cli.cost import cost
from vitlab.cli.demo import demo
from vitlab.cli.evaluate import evaluate
from vitlab.cli.export import export
from vitlab.cli.fewshot import fewshot
from vitlab.cli.finetune import finetune
from vitlab.cli.inspect import inspect
from vitlab.cli.models import models
from vitlab.cli.predict import predict
from vitlab.cli.pretrain import pretrain
from vitlab.cli.recipes import recipes
from vitlab.cli.runs import runs
from vitlab.cli.serve import serve
from vitlab.cli.verify import verify
from vitlab.cli.vtab import vtab

DONE, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
verbs = (
    demo,
    finetune,
    pretrain,
    evaluate,
    fewshot,
    vtab,
    predict,
    inspect,
    serve,
    export,
    convert,
    cost,
    models,
    recipes,
    runs,
    verify,
)
for verb in verbs:
    app.command()(verb)
app.add_typer(data.app, name="data")
app.add_typer(study.app, name="study")


def _version(wanted: bool) -> bool:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"vitlab {version('vitlab')}")
        raise typer.Exit
    return wanted


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The Vision Transformer made practical: fine-tune, pre-train, evaluate, predict.

    Begin with `vitlab demo`, or with a folder of images: `vitlab finetune photos/`.
    """
    del version
    if debug:
        os.environ["VITLAB_DEBUG"] = "1"


def run() -> None:
    """Run the command line and exit.

    0 done, 1 the work failed, 2 the request was wrong, 130 interrupted, 75 a training was asked to stop by SIGTERM: start it again.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("note: %(message)s"))
    logging.getLogger("vitlab").addHandler(handler)
    sys.exit(_run())


def _run() -> int:
    from vitlab.errors import VitlabError

    try:
        code = app(standalone_mode=False)  # typer returns the code of an Exit, and 130 for Ctrl-C
    except VitlabError as error:
        if os.environ.get("VITLAB_DEBUG"):
            raise
        typer.echo(f"error: {error}", err=True)
        return error.exit_code
    except OSError as error:  # a full disk, a folder that may not be written: nothing to mend in a program
        if os.environ.get("VITLAB_DEBUG"):
            raise
        where = f"{error.filename}: " if error.filename else ""
        typer.echo(f"error: {where}{error.strerror or error}; --debug shows where it happened", err=True)
        return FAILED
    except Exception as error:
        describe = getattr(error, "format_message", None)  # the command line's own usage error
        if describe is None:
            raise
        message = " ".join(str(describe()).split()).replace("Value error, ", "").removesuffix(".")
        if message:  # without words it was a plain `vitlab`, which shows the help
            typer.echo(f"error: {message}; see `vitlab --help`", err=True)
        return WRONG
    if code == INTERRUPTED:
        typer.echo("interrupted", err=True)
    return code or DONE
