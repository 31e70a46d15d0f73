"""`vitlab serve`."""

import json
from typing import Annotated

import typer

from vitlab.cli import options

BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1024,
        help="How many images every batch has room for. Default: few on a CPU, so that a lone one is answered at once; more answer "
        "a crowd sooner.",
        show_default=False,
    ),
]


def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]MODEL...",
            help="Run folders, files of weights, or names as for finetune --weights. Requests ask for a model by NAME, or else by "
            "what its file or folder is called; the first answers where none is named.",
        ),
    ],
    host: Annotated[
        str, typer.Option(help="Where to listen; 0.0.0.0 is every network that this computer is in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any that is free.")] = 8000,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Answer browsers under this name too; once or more.", show_default=False),
    ] = None,
    examples: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Offer images of this data set on the page. Default: of what the run evaluated on, as long as only this computer "
            "can see them.",
        ),
    ] = None,
    max_pixels: options.MaxPixels = None,
    access_log: Annotated[bool, typer.Option("--access-log", help="Say a line for each request.")] = False,
    device: options.Device = "auto",
    engine: options.Engine = options.WhichEngine.AUTO,
    batch_size: BatchSize = None,
    as_json: options.Json = False,
) -> None:
    """Answer over HTTP what is on images, and show on a web page what the model sees; Ctrl-C stops when all is answered."""
    from vitlab.config import parse
    from vitlab.serve.settings import ServeSettings
    from vitlab.studies.serving import Serving

    given = {"host": host, "port": port, "allow_hosts": allow_host or (), "access_log": access_log}
    limit = {} if max_pixels is None else {"max_pixels": max_pixels}
    settings = parse(ServeSettings, given | limit, "vitlab serve")
    serving = Serving.open(models, settings, device, examples, engine.value, batch_size)

    def started() -> None:
        if as_json:
            typer.echo(json.dumps({"url": serving.url, "models": serving.models()}))
        else:
            for line in serving.lines():
                typer.echo(line)

    serving.run(started)
