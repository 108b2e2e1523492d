"""`vaultd status`: whether it runs, where, and by whom.

Rule: typed often, so it loads nothing that is slow; and a question starts no daemon.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from vault_client.errors import UNREACHABLE
from vaultd import __version__
from vaultd.command import own_unit, running

_NOT_RUNNING = {"pid": None, "port": None, "version": __version__, "locked": None}


def run(options: argparse.Namespace) -> int:
    """Whether it runs, and where; 69 when not."""
    found = running.answer()
    if options.json:
        print(json.dumps({"running": found is not None, **_brief(found)}))
    elif found is None:
        print(_silence())
    else:
        state = "locked" if found["locked"] else "unlocked"
        where = f"http://127.0.0.1:{found['port']} (pid {found['pid']}{_keeper_of(found)})"
        print(f"vaultd {found['version']} serves on {where}, {state}{_run_by(found)}")
    return 0 if found is not None else UNREACHABLE


def _brief(found: dict[str, Any] | None) -> dict[str, Any]:
    """{pid, port, version, locked} of interface.md §2."""
    return _NOT_RUNNING if found is None else {name: found.get(name) for name in _NOT_RUNNING}


def _silence() -> str:
    """Why there is no answer, and what to type."""
    unit = running.asleep()
    if unit is not None:
        held = f"{unit.name} holds 127.0.0.1:{unit.port}, and the first use starts it"
        return f"vaultd is not running; {held}: type `vaultd start`"
    return running.silent() or running.elsewhere() or "vaultd is not running: type `vaultd start`"


def _run_by(found: dict[str, Any]) -> str:
    """Where units are installed, whether it runs by them."""
    unit = own_unit.find()
    if unit is None or not unit.supervisor.answers():
        return ""
    theirs = unit.supervisor.pid() == found["pid"]
    return f", run by {unit.supervisor.name}" if theirs else f", without {unit.name}: type `vaultd restart`"


def _keeper_of(found: dict[str, Any]) -> str:
    """The process that holds the keys, where it is another one."""
    keeper = found.get("keeper_pid")
    return "" if keeper in {None, found["pid"]} else f", keeper pid {keeper}"
