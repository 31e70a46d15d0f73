"""`vitlab data list`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from vitlab.cli import options

DataDir = Annotated[
    Path | None,
    typer.Option(help="The folder of data sets. Default: $VITLAB_DATA, or data in the folder for downloads."),
]


def list_data(
    name: Annotated[str | None, typer.Argument(help="Tell everything about this one; `vtab` lists its tasks.")] = None,
    as_json: options.Json = False,
    data_dir: DataDir = None,
) -> None:
    """List the paper's data sets: images, classes, size of the download, licence, and whether they are here."""
    from vitlab.data.catalog import data_folder, entries

    root = data_folder() if data_dir is None else data_dir
    several = [each for each in entries() if not name or each.startswith(f"{name.rstrip('/')}/")]
    rows = [_facts(each, root) for each in several or [str(name)]]
    if as_json:
        typer.echo(json.dumps(rows if several else rows[0], indent=2, ensure_ascii=False))
    elif not several:
        _tell(rows[0])
    else:
        _list(rows)
        typer.echo(
            f"\nLooked for in {root}. `vitlab data list NAME` tells more, `vitlab data download NAME` fetches one."
        )


def _facts(name: str, root: Path) -> dict[str, Any]:
    from vitlab.data.catalog import entry, place_of

    found, place = entry(name), place_of(name, root)
    return {
        "name": name,
        "title": found.title,
        "images": {subset: found.size(subset) for subset in found.subsets},
        "made_of": found.slices,
        "classes": found.classes,
        "train": found.train,
        "evaluate": list(found.evals),
        "files": [file.model_dump(include={"url", "bytes", "sha256"}) for file in found.files],
        "download": found.download,
        "take": found.take,
        "licence": found.licence,
        "homepage": found.homepage,
        "hub": found.hub,
        "note": found.note,
        "exact": found.order == "exact",
        "folder": str(root / found.folder),
        "here": None if place is None else str(place),
    }


def _list(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "images", "classes", "download", "licence", "here", box=None, header_style="bold")
    table.columns[0].no_wrap = True
    for row in rows:
        shown = [row["train"], *row["evaluate"]] if row["train"] else row["evaluate"]
        images = ", ".join(f"{subset} {_number(row['images'][subset])}" for subset in shown)
        table.add_row(
            row["name"],
            images,
            f"{row['classes']:,}",
            row["download"] or "by hand",
            row["licence"],
            "yes" if row["here"] else "no",
        )
    Console(width=None if Console().is_terminal else 160).print(table)


def _tell(row: dict[str, Any]) -> None:
    images = ", ".join(f"{subset} {_number(count)}" for subset, count in row["images"].items())
    lines = [
        ("images", images),
        *(("", f"{subset} is {text}") for subset, text in row["made_of"].items()),
        ("classes", f"{row['classes']:,}"),
        ("licence", row["licence"]),
        ("from", row["homepage"]),
        ("to have it", f"{row['take']}; put or link it at {row['folder']}" if row["take"] else row["download"]),
        *(("", f"{file['url']}{_checks(file)}") for file in row["files"]),
        ("also at", f"https://huggingface.co/datasets/{row['hub']} (its test images)" if row["hub"] else ""),
        ("here", row["here"] or "no"),
        ("note", row["note"]),
    ]
    typer.echo(f"{row['name']}: {row['title']}")
    for label, text in lines:
        if text:
            typer.echo(f"{label:>12}  {text}")


def _checks(file: dict[str, Any]) -> str:
    told = [f"{file['bytes']:,} bytes"] if file["bytes"] else []
    told += [f"sha256 {file['sha256'][:12]}…"] if file["sha256"] else []
    return f" ({', '.join(told)})" if told else " (size and checksum not published)"


def _number(count: int | None) -> str:
    return "by release" if count is None else f"{count:,}"
