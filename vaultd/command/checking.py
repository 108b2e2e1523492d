"""`vaultd check`: every diagnosis of this side, by the daemon where one runs, else here; it starts none."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from vault_client.errors import Stop
from vault_client.link import Link
from vaultd.command import running

#: The daemon flushes its audit log, reads it and may ask a keyring that hangs.
_SECONDS = 60


def run(options: argparse.Namespace) -> int:
    """1 when any is not well."""
    if options.audit:
        from vaultd.command import auditing

        return auditing.run(json_wanted=options.json)
    found = _asked()
    if found is None:
        found = _looked()
    if options.json:
        print(json.dumps({"checks": found}))
    else:
        _print(found)
    return 0 if all(each["ok"] for each in found) else 1


def _asked() -> list[dict[str, Any]] | None:
    """Of the daemon that runs, which knows more; None without one."""
    if running.answer() is None:  # asked first: one that hangs would hold this up for a minute
        return None
    try:
        found: list[dict[str, Any]] = Link(running.places()).call("GET", "/v1/checks", seconds=_SECONDS)["checks"]
    except Stop:
        return None
    return found


def _looked() -> list[dict[str, Any]]:
    from vaultd import checks
    from vaultd.files import Files
    from vaultd.layout import Layout

    return [each.wire() for each in checks.run(Layout.find(os.environ), Files(), os.environ)]


def _print(found: list[dict[str, Any]]) -> None:
    for each in found:
        print(f"{'ok  ' if each['ok'] else 'BAD '} {each['name']:<12} {each['message']}")
        if each["remedy"]:
            print(f"     {'':<12} → {each['remedy']}")
