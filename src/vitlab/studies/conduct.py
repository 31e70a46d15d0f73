"""Conduct: carry out what is left of studies in a folder that several processes and machines may share.

OUT/study.json         the scale, and the version of this layout
OUT/pieces/            one folder a piece of work; trainings are ordinary run folders
OUT/claims/            who works on what
OUT/failed/            why a piece failed, with its traceback
OUT/seconds.jsonl      how long each piece took, and where
"""

import json
import socket
import time
import traceback
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitlab import files
from vitlab.config import read_json
from vitlab.errors import RankError, RunFolderError, VitlabError
from vitlab.studies.cell import Studio
from vitlab.studies.claim import claim, owner
from vitlab.studies.study import Edition, Results, Scale, scale_named
from vitlab.studies.work import Piece, in_order
from vitlab.train.loop import Interrupted
from vitlab.train.run import pretty

PLAN, PIECES, CLAIMS, FAILED, SECONDS = "study.json", "pieces", "claims", "failed", "seconds.jsonl"
LAYOUT = 1
POLL_SECONDS = 2.0
"""How often to look whether others have finished what this process waits for."""


@dataclass(frozen=True)
class Failure:
    """Why a piece failed: the reason in a line, and its traceback."""

    name: str
    reason: str
    log: str
    attempt: str


def open_folder(out: Path, scale: Scale) -> None:
    """Make `out` a folder of studies at `scale`, or check that it is one.

    Raises:
        RunFolderError: it holds something else, or studies of another scale or version.
    """
    path, plan = out / PLAN, {"layout": LAYOUT, "scale": scale}
    try:
        if path.exists():
            _compare(out, read_json(path), plan)
            return
        strange = out.exists() and any(PLAN not in entry.name for entry in out.iterdir())
        if strange and not path.exists():  # another process may have begun since
            raise RunFolderError(out, f"already exists, without {PLAN}", "choose another --out")
        out.mkdir(parents=True, exist_ok=True)
        draft = out / f".{PLAN}.{uuid.uuid4().hex}"  # of its own: others may be making it too
        files.write_atomic(draft, pretty(plan))
        draft.replace(path)
    except OSError as error:
        raise RunFolderError(out, f"cannot be written ({error.strerror})", "choose another --out") from None


def _compare(out: Path, stored: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
    if stored.get("layout") != plan["layout"]:
        raise RunFolderError(out, "was made by another version of vitlab", "choose another --out")
    if stored.get("scale") != plan["scale"]:
        what = f"holds studies at scale {stored.get('scale')}, not {plan['scale']}"
        raise RunFolderError(out, what, "choose another --out, or that --scale")


def scale_of(out: Path) -> Scale:
    """Return the scale of the studies in the folder `out`.

    Raises:
        RunFolderError: it is no folder of studies, or one of another version.
    """
    if not (out / PLAN).is_file():
        raise RunFolderError(out, f"holds no studies: there is no {PLAN}", "make some with `vitlab study run`")
    stored = read_json(out / PLAN)
    _compare(out, stored, {"layout": LAYOUT, "scale": stored.get("scale")})
    return scale_named(str(stored.get("scale")))


def conduct(editions: Sequence[Edition], out: Path, studio: Studio, work_on: Callable[[Piece], None]) -> None:
    """Carry out what is left of the grids of `editions` in the folder `out`, sharing it with whoever else does.

    What another process holds is left to it, and waited for in the end. A piece that fails is noted, and so is what needs it;
    the rest goes on. Called again, it is tried once more, after all others. Of several ranks the first one calls this, and the
    others `follow`.

    Raises:
        Interrupted: it was asked to stop; called again, it goes on.
        RankError: a piece failed on several ranks, which cannot go on without each other; called again, the others go on.
    """
    pieces = out / PIECES
    todo = in_order([piece for edition in editions for piece in edition.grid.values()])
    before = {attempt.attempt for piece in todo if (attempt := failure_of(piece, out)) is not None}
    todo.sort(key=lambda piece: failure_of(piece, out) is not None)
    while todo := [piece for piece in todo if _is_open(piece, out, before)]:
        ready = (piece for piece in todo if all(need.result(pieces) is not None for need in piece.needs))
        if not any(_done_here(piece, out, studio, before, work_on) for piece in ready):
            time.sleep(POLL_SECONDS)
    studio.ranks.tell(None)


def follow(editions: Sequence[Edition], out: Path, studio: Studio) -> None:
    """Take part in every piece that the first rank begins in `conduct`, until nothing is left."""
    known = {_name(piece): piece for piece in in_order([piece for each in editions for piece in each.grid.values()])}
    while (name := studio.ranks.tell()) is not None:
        known[name].carry_out(out / PIECES, studio)


def _done_here(piece: Piece, out: Path, studio: Studio, before: set[str], work_on: Callable[[Piece], None]) -> bool:
    """Carry out `piece` unless another process has it, and return whether that was done: then what it made ready comes next."""
    with claim(out / CLAIMS, _name(piece)) as held:
        if held is None or not _is_open(piece, out, before):
            return False
        work_on(piece)
        _attempt(piece, out, studio)
        return True


def results(edition: Edition, out: Path) -> Results:
    """Return what the grid of `edition` came to so far."""
    return Results({label: piece.result(out / PIECES) for label, piece in edition.grid.items()})


def failure_of(piece: Piece, out: Path) -> Failure | None:
    """Return why `piece` failed, or what it needs; None where nothing did."""
    for need in piece.needs:
        if (failure := failure_of(need, out)) is not None:
            return failure
    path = out / FAILED / f"{_name(piece)}.json"
    return Failure(**read_json(path)) if path.exists() else None


def held_by(piece: Piece, out: Path) -> str | None:
    """Return who works on `piece`, None when nobody does."""
    return owner(out / CLAIMS, _name(piece))


def seconds_of(pieces: Sequence[Piece], out: Path) -> float:
    """Return how long `pieces` took, all attempts at them together, wherever that was."""
    path, names = out / SECONDS, {_name(piece) for piece in pieces}
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    events = [json.loads(line) for line in lines if line.endswith("\n")]
    return sum(event["seconds"] for event in events if event["piece"] in names)


def _is_open(piece: Piece, out: Path, before: set[str]) -> bool:
    """Return whether `piece` is still to be done: not finished, and not failed since this process began."""
    if piece.result(out / PIECES) is not None:
        return False
    failure = failure_of(piece, out)
    return failure is None or failure.attempt in before


def _attempt(piece: Piece, out: Path, studio: Studio) -> None:
    path, began = out / FAILED / f"{_name(piece)}.json", time.monotonic()
    try:
        studio.ranks.tell(_name(piece))
        piece.carry_out(out / PIECES, studio)
        files.remove(path)
    except (Interrupted, RankError):  # no fault of the piece
        raise
    except Exception as error:  # one piece's bug must not end a study of days
        reason = str(error) if isinstance(error, VitlabError) else f"{type(error).__name__}: {error}"
        _note(path, piece, reason)
        if studio.ranks.world > 1:
            raise RankError(
                piece.name, f"failed: {reason}", "the same command goes on with the others first"
            ) from error
    finally:
        event = {"piece": _name(piece), "seconds": round(time.monotonic() - began, 3), "on": socket.gethostname()}
        with (out / SECONDS).open("a") as file:
            file.write(json.dumps(event) + "\n")


def _note(path: Path, piece: Piece, reason: str) -> None:
    path.parent.mkdir(exist_ok=True)
    failure = {"name": piece.name, "reason": reason, "log": traceback.format_exc(), "attempt": uuid.uuid4().hex}
    files.write_atomic(path, pretty(failure))


def _name(piece: Piece) -> str:
    return piece.folder(Path()).name
