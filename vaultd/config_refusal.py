"""What is said of a `config.toml` that is refused: file:line, the key as it stands there, and what to write instead.

Rule: one sentence about the first error only; the others show once it is mended. Knows the model by its fields alone.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

Model = type[BaseModel]


def syntax_message(said: str, *, path: str, lines: int) -> str:
    """Of a file that is not TOML; `said` is tomllib's."""
    at = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", said)
    line = int(at[1]) if at and at[1] else lines
    what = said[: at.start()] if at else said
    return f'{path}:{line}: this is not TOML ({what}); write lines such as key = "value"'


def message(refusal: ValidationError, *, model: Model, text: str, path: str) -> str:
    """Of the first error."""
    error = refusal.errors(include_url=False)[0]
    keys = _as_written(error["loc"])
    unknown = error["type"] == "extra_forbidden"
    bare = unknown and len(keys) == 1 and not isinstance(error["input"], dict)
    where = f"{path}:{line_of(text, keys)}: {keys[0] if bare else spelled(keys)}"
    if unknown:
        return f"{where} is not a known key{' outside a table' if bare else ''}; {_instead(model, keys, bare=bare)}"
    place = next((f", entry {part + 1}," for part in error["loc"] if isinstance(part, int)), "")
    return f"{where}{place} is refused: {_reason(error, keys[-1])}"


def _instead(model: Model, keys: tuple[str, ...], *, bare: bool) -> str:
    """What to write for an unknown key: the same in its own table, else the nearest where it stands."""
    tables = _tables_with(model, keys[-1])
    if tables and (bare or len(keys) > 1):
        return "did you mean " + " or ".join(f"`[{table}] {keys[-1]}`" for table in tables) + "?"
    known = _known_keys(model, keys[:-1])
    close = difflib.get_close_matches(keys[-1], known, n=1, cutoff=0.5)
    return f"write {close[0] if close else 'one of ' + ', '.join(known)}"


def _tables_with(model: Model, key: str) -> list[str]:
    names = {"identities": "identities.NAME", "profiles": "profiles.NAME"}
    return [names.get(each, each) for each in model.model_fields if key in _known_keys(model, (each,))]


def _as_written(loc: tuple[int | str, ...]) -> tuple[str, ...]:
    """Pydantic's location without list positions: the keys that stand in the file."""
    return tuple(part for part in loc if isinstance(part, str))


_WANTED = {
    "int_type": "write a whole number",
    "bool_type": "write true or false",
    "string_type": "write text in quotes",
    "tuple_type": 'write a list such as ["name"]',
    "model_type": "write it as a table of its own",
    "dict_type": "write it as a table of its own",
}


#: A list of each, where any will not do.
_LISTS = {
    "allow_executables": '["/usr/bin/terraform"]',
    "relays": '["ssh"]',
    "endpoint_allow": '["sts.corp.example"]',
    "drivers": '["auto"]',
}


def _reason(error: Mapping[str, Any], key: str) -> str:
    if error["type"] == "tuple_type" and key in _LISTS:
        return f"write a list such as {_LISTS[key]}"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    said = str(error["msg"]).removeprefix("Input should be ")
    return _WANTED.get(error["type"], f"write {said}")


def spelled(keys: tuple[str, ...]) -> str:
    """`[table] key`, as a person writes it."""
    return f"[{'.'.join(keys[:-1])}] {keys[-1]}" if len(keys) > 1 else f"[{keys[0]}]"


def _known_keys(model: Model, parents: tuple[str, ...]) -> list[str]:
    if not parents:
        return list(model.model_fields)
    section: Any = model.model_fields[parents[0]].annotation
    nested = get_args(section)  # [identities.NAME]: a table of tables
    return list((nested[1] if nested else section).model_fields)


def line_of(text: str, keys: tuple[str, ...]) -> int:
    """The line where `keys` stand; the nearest enclosing table's where they are inside a value; else 1."""
    table: tuple[str, ...] = ()
    best, depth = 1, 0
    for number, line in enumerate(text.splitlines(), start=1):
        header, path = _keys_on(line)
        if header:
            table = path
        here = path if header else (*table, *path)
        if path and len(here) > depth and here == keys[: len(here)]:
            best, depth = number, len(here)
    return best


def _keys_on(line: str) -> tuple[bool, tuple[str, ...]]:
    """(is a table header, its keys) of one line, read by tomllib itself, which knows TOML's quoting."""
    header = line.lstrip().startswith("[")
    try:
        found: object = tomllib.loads(line if header else line.partition("=")[0] + "=0")
    except tomllib.TOMLDecodeError:
        return header, ()
    path: list[str] = []
    while isinstance(found, dict) and found:
        key, found = next(iter(found.items()))
        path.append(key)
    return header, tuple(path)
