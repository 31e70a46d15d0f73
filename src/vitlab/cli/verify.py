"""`vitlab verify`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vitlab.cli import options


def verify(
    run: Annotated[Path, typer.Argument(help="A run folder that is not being trained.")],
    as_json: options.Json = False,
) -> None:
    """Compare every file of a run with its checksum, make updates again, and compare them with the log.

    The exit code is 1 if anything is wrong, or could not be checked: the training data have to be there.
    """
    from vitlab.studies import verify as verifying

    findings: list[verifying.Finding] = []
    for finding in verifying.verify(run):
        findings.append(finding)
        if not as_json:
            typer.echo(str(finding))  # at once: large files take a while
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2, ensure_ascii=False))
    else:
        typer.echo(verifying.verdict(findings))
    if not verifying.is_verified(findings):
        raise typer.Exit(1)
