"""What goes out on `control.sock`: JSON answers, error bodies, and strings that are fit for a terminal.

Rules (interface.md §6)
- Every string of a prompt, a grant or a list went through `shown()`: no control character, at most 200 characters.
- A sentence keeps its end, which says what to type, but no control character. Every error body carries `exit`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any, TypeVar

from aiohttp import web

from vaultd.errors import MfaRequired, VaultdError
from vaultd.model.text import shown

#: Of a sentence: longer than any of ours with a path in it.
SENTENCE = 1000
#: Rows between two turns of the loop: planned for the first time they take 2 ms, else 0.4 ms.
SLICE = 16

_Row = TypeVar("_Row")


def reply(value: object, *, status: int = 200) -> web.Response:
    """A JSON answer with the headers that every answer carries; `value` goes out as it is."""
    return _answer(json.dumps(value).encode(), status=status)


def _never(_: object) -> bool:
    return False


async def in_slices(rows: Iterable[_Row], *, alone: Callable[[_Row], bool] = _never) -> AsyncIterator[_Row]:
    """`rows`, made as they are asked for: after each SLICE of them, and after one that takes as long as a slice
    `alone`, whatever else the loop has to do has its turn.

    Not in a thread: 10,000 rows there take the interpreter from the loop for 5 ms at each of its system calls.
    """
    for number, row in enumerate(rows, start=1):
        yield row
        if number % SLICE == 0 or alone(row):
            await asyncio.sleep(0)


async def long_reply(
    name: str, rows: Iterable[dict[str, Any]], *, alone: Callable[[dict[str, Any]], bool] = _never, **more: object
) -> web.Response:
    """{name: rows, **more} of any length, in slices; `more` is short."""
    rows_json = b", ".join([json.dumps(row).encode() async for row in in_slices(rows, alone=alone)])
    rest = "".join(f', "{each}": {json.dumps(value)}' for each, value in more.items()).encode()
    return _answer(b'{"%b": [%b]%b}' % (name.encode(), rows_json, rest))


def _answer(body: bytes, *, status: int = 200) -> web.Response:
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    return web.Response(body=body, status=status, headers=headers)


def legible(value: Any, *, limit: int = 200) -> Any:
    """`value` with every string in it fit for a terminal; the names of fields are ours."""
    if isinstance(value, str):
        return shown(value, limit=limit)
    if isinstance(value, Mapping):
        return {name: legible(each, limit=limit) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [legible(each, limit=limit) for each in value]
    return value


def error_reply(error: VaultdError) -> web.Response:
    """{code, message, exit, …details}; MfaRequired is 409 here, and 403 on the SDK side."""
    status = 409 if isinstance(error, MfaRequired) else error.status
    body = {"code": error.code, "message": error.message, "exit": error.exit, **error.details}
    return reply(legible(body, limit=SENTENCE), status=status)
