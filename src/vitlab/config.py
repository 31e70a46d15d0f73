"""Typed settings: frozen pydantic models, JSON at rest, dotted overrides, did-you-mean, differences.

A part that comes in kinds is a field whose type is a union of settings classes told apart by their `type` field; the union
is the registry, and a kind can be named alone (`--set train.optimizer=SGD`).
"""

import difflib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from vitlab.errors import SettingsError

Json = dict[str, Any]
S = TypeVar("S", bound="Settings")

MAX_JSON_MARKS = 400_000
"""The names of 21,843 classes, twice and with commas in them, have 200,000; the shapes of 20,000 arrays 260,000."""


class Settings(BaseModel):
    """Base of every settings class: frozen, validated, and closed to unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


def to_json(settings: Settings) -> Json:
    """Return `settings` as plain JSON values."""
    return settings.model_dump(mode="json")


def parse(kind: type[S], data: Mapping[str, Any], where: str | Path) -> S:
    """Return `data` as settings of `kind`; `where` names the file or option in errors.

    Raises:
        SettingsError: a field is unknown (with the nearest name), missing, of the wrong type, or out of range.
    """
    try:
        return kind.model_validate(dict(data))
    except ValidationError as error:
        raise _explain(kind, error, where) from None


def override(settings: S, changes: Sequence[str]) -> S:
    """Return `settings` with dotted `changes` applied in order, each "path.to.field=value" (value in JSON, or a bare word).

    Setting a part to the name of a kind selects that kind with its defaults: "train.optimizer=SGD". An option of a part that is
    off switches the part on: "augment.randaugment.magnitude=15".

    Raises:
        SettingsError: a change names no field (with the nearest name) or its value does not fit.
    """
    data = to_json(settings)
    chosen: list[Json] = []  # parts of another kind than before: their options are not known until the end
    for change in changes:
        path, sign, text = change.partition("=")
        if not sign:
            raise SettingsError("--set", f"'{change}' has no '='", "write --set path.to.field=value")
        names, before = path.strip().split("."), len(chosen)
        _switch_on(data, type(settings), names)
        _assign(data, names, _value(text.strip()), change, chosen)
        for part in chosen[before:]:  # what it is made of must be there to be chosen too
            part.update(_defaults(type(settings), names, part["type"]))
    return parse(type(settings), data, "--set")


def difference(old: Settings, new: Settings) -> list[str]:
    """Return one line a field that differs, "path: old -> new", for the resolved settings against their recipe."""
    before, after = dict(leaves(to_json(old))), dict(leaves(to_json(new)))
    paths = [*before, *(path for path in after if path not in before)]
    return [
        f"{path}: {_show(before, path)} -> {_show(after, path)}"
        for path in paths
        if _show(before, path) != _show(after, path)
    ]


def leaves(data: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value of nested JSON with its dotted path; a list is a value."""
    if isinstance(data, dict) and data:
        for name, value in data.items():
            yield from leaves(value, f"{path}.{name}" if path else str(name))
    else:
        yield path, data


def nearest(word: str, words: Sequence[str], otherwise: str | None = None) -> str:
    """Return "did you mean 'x'?" for the closest of `words`; when none is close `otherwise`, or the list of them."""
    close = difflib.get_close_matches(word.lower(), [known.lower() for known in words], n=1, cutoff=0.6)
    if close:
        return f"did you mean '{next(known for known in words if known.lower() == close[0])}'?"
    if otherwise is not None:
        return otherwise
    return f"choose from {', '.join(words)}" if words else ""


def loads(text: str, pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Return the value that the JSON `text` is of; for `pairs_hook` see `json.loads`.

    Raises:
        ValueError: it is no JSON, or one that a small file fills the memory or the stack with.
    """
    marks = sum(text.count(mark) for mark in ",:[{")  # there is one before or after every value
    if marks > MAX_JSON_MARKS:
        raise ValueError(f"more than {MAX_JSON_MARKS:,} values")
    try:
        return json.loads(text, object_pairs_hook=pairs_hook)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path) -> Json:
    """Return the JSON object in the file `path`.

    Raises:
        SettingsError: the file is missing or holds no JSON object.
    """
    try:
        data = loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(path, f"cannot be read ({error.strerror})", "check the path") from None
    except ValueError as error:
        raise SettingsError(path, f"is not JSON ({error})", "repair the file, or write it anew") from None
    if not isinstance(data, dict):
        raise SettingsError(path, "holds no JSON object", "write the settings as {...}")
    return data


def _value(text: str) -> Any:
    try:
        return loads(text)
    except ValueError:
        return text


def _switch_on(data: Json, root: type[Settings], path: list[str]) -> None:
    """Give each part above the last name of `path` that is off (None) its defaults."""
    place: Any = data
    holders = [root]
    for name in path[:-1]:
        holders = _parts(holders, name)
        if not isinstance(place, dict) or name not in place:
            return
        if place[name] is None and len(holders) == 1:
            place[name] = holders[0].model_construct().model_dump(mode="json")
        place = place[name]


def _assign(data: Json, path: list[str], value: Any, change: str, chosen: list[Json]) -> None:
    """Set the field at `path` of nested `data`; a part set to a word, or a changed `type`, becomes that kind's defaults."""
    place: Any = data
    for depth, name in enumerate(path):
        last = depth == len(path) - 1
        if any(place is part for part in chosen):
            place.setdefault(name, None)
        if not isinstance(place, dict) or name not in place:
            known = list(place) if isinstance(place, dict) else []
            prefix = ".".join(path[:depth])
            raise SettingsError(
                "--set",
                f"'{change}': no setting '{name}'" + (f" in '{prefix}'" if prefix else ""),
                nearest(name, known),
            )
        part = place[name]
        if last and isinstance(part, dict) and "type" in part and isinstance(value, str):
            _choose(cast(Json, part), value, chosen)
        elif last and name == "type":
            _choose(place, value, chosen)
        elif last:
            place[name] = value
        else:
            place = part


def _choose(part: Json, kind: Any, chosen: list[Json]) -> None:
    """Make `part` the kind called `kind`, with its defaults if it was another."""
    if part["type"] != kind:
        part.clear()
        part["type"] = kind
        chosen.append(part)


def _defaults(root: type[Settings], path: list[str], kind: str) -> Json:
    """Return the default options of the `kind` that was chosen at `path`, or at its `type`."""
    holders = [root]
    for name in path[:-1] if path[-1] == "type" else path:
        holders = _parts(holders, name)
    chosen = next((holder for holder in holders if _is_kind(holder, kind)), None)
    return {} if chosen is None else chosen.model_construct().model_dump(mode="json")


def _parts(holders: list[type[Settings]], name: str) -> list[type[Settings]]:
    """Return the settings classes that the field `name` of any of `holders` may hold."""
    fields = [holder.model_fields[name] for holder in holders if name in holder.model_fields]
    return [part for field in fields for part in _settings_classes(field.annotation)]


def _show(leaves: Mapping[str, Any], path: str) -> str:
    return json.dumps(leaves[path], ensure_ascii=False) if path in leaves else "(none)"


def _explain(kind: type[Settings], error: ValidationError, where: str | Path) -> SettingsError:
    """Return the first problem of a pydantic error as one line."""
    problems = error.errors(include_url=False)
    problem = next(
        (each for each in problems if each["type"] == "extra_forbidden"), problems[0]
    )  # more than "missing" says
    path, known = _locate(kind, tuple(str(part) for part in problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return SettingsError(where, f"unknown setting '{path}'", nearest(path.rsplit(".", 1)[-1], known))
    if problem["type"] == "missing":
        return SettingsError(where, f"setting '{path}' is missing", "add it")
    if problem["type"] == "union_tag_invalid":
        context = problem.get("ctx", {})
        kinds = [tag.strip().strip("'") for tag in str(context.get("expected_tags", "")).split(",")]
        return SettingsError(
            where, f"'{path}' has no kind '{context.get('tag')}'", nearest(str(context.get("tag")), kinds)
        )
    if problem["type"] == "union_tag_not_found":
        return SettingsError(where, f"'{path}' has no type", 'name its kind, or write {"type": …} with its options')
    if problem["type"] == "model_type":
        inner = _locate(kind, (*map(str, problem["loc"]), ""))[1]
        return SettingsError(where, f"'{path}' is no single value", f"set one of its own: {', '.join(inner)}")
    message = problem["msg"].removeprefix("Value error, ")
    if isinstance(problem["input"], Mapping | Settings):  # several fields together: what they are is not one value
        return SettingsError(where, f"'{path}': {message}" if path else message, "")
    shown = json.dumps(problem["input"], default=str, ensure_ascii=False)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return SettingsError(where, f"'{path}' = {shown}: {message}" if path else message, "")


def _locate(kind: type[Settings], location: tuple[str, ...]) -> tuple[str, list[str]]:
    """Return a pydantic location as the path that a person writes, and the names of the fields that stand beside its last."""
    holders = [kind]
    beside = holders
    path: list[str] = []
    for name in location:
        tagged = [holder for holder in holders if _is_kind(holder, name)]
        if not tagged:  # the name of a kind is in the location, not in the JSON
            path.append(name)
        inner = _parts(holders, name)
        beside, holders = holders, tagged or inner or holders
    return ".".join(path), list(dict.fromkeys(name for holder in beside for name in holder.model_fields))


def _is_kind(holder: type[Settings], name: str) -> bool:
    return "type" in holder.model_fields and holder.model_fields["type"].default == name


def _settings_classes(annotation: Any) -> Iterator[type[Settings]]:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _settings_classes(part)
