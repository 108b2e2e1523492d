"""What goes out on `control.sock`: JSON answers, error bodies, and strings that are fit for a terminal.

Rules (interface.md §6)
- Every string of a prompt, a grant or a list went through `shown()`: no control character, at most 200 characters.
- A sentence keeps its end, which says what to type, but no control character. Every error body carries `exit`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from vaultd.errors import MfaRequired, VaultdError
from vaultd.model.text import shown

#: Of a sentence: longer than any of ours with a path in it.
SENTENCE = 1000


def reply(value: object, *, status: int = 200) -> web.Response:
    """A JSON answer with the headers that every answer carries; `value` goes out as it is."""
    return _answer(json.dumps(value).encode(), status=status)


async def long_reply(name: str, rows: list[dict[str, Any]], **more: object) -> web.Response:
    """{name: rows, **more}, in a thread a row at a time: one `dumps` of 100,000 would hold every other thread."""
    rows_json = await asyncio.to_thread(lambda: ", ".join([json.dumps(row) for row in rows]))
    rest = "".join(f', "{each}": {json.dumps(value)}' for each, value in more.items())
    return _answer(f'{{"{name}": [{rows_json}]{rest}}}'.encode())


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
