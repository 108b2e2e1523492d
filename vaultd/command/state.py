"""`vaultd status`: whether it runs, where, and by whom.

Rules
- Typed often, so it loads nothing that is slow; and a question starts no daemon.
- The object and the sentence tell one fact: a daemon that lives and was not heard is running to both, and exit 69.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from vault_client.errors import UNREACHABLE
from vaultd import __version__
from vaultd.command import own_unit, running

#: interface.md §2; the version is that of this program.
_NOT_RUNNING = {"running": False, "pid": None, "port": None, "version": __version__, "locked": None}


def run(options: argparse.Namespace) -> int:
    """Whether it runs, and where; 69 when not."""
    found = running.answer()
    if found is None:
        told, said = _unheard()
        print(json.dumps(told) if options.json else said)
        return UNREACHABLE
    print(json.dumps(_told(found)) if options.json else _said(found))
    return 0


def _told(found: dict[str, Any]) -> dict[str, Any]:
    """{running, pid, port, version, locked} of interface.md §2."""
    return {**{name: found.get(name) for name in _NOT_RUNNING}, "running": True}


def _said(found: dict[str, Any]) -> str:
    state = "locked" if found["locked"] else "unlocked"
    where = f"http://127.0.0.1:{found['port']} (pid {found['pid']}{_keeper_of(found)})"
    return f"vaultd {found['version']} serves on {where}, {state}{_run_by(found)}"


def _unheard() -> tuple[dict[str, Any], str]:
    """The object and the sentence where there is no answer: whether one runs all the same, and what to type. Of that
    one the object has the pid and the sentence; the rest only its answer would tell.
    """
    unit = running.asleep()
    if unit is not None:
        held = f"{unit.name} holds 127.0.0.1:{unit.port}, and the first use starts it"
        return _NOT_RUNNING, f"vaultd is not running; {held}: type `vaultd start`"
    if said := running.silent() or running.elsewhere():
        lives = {"running": True, "pid": running.pid(), "port": None, "version": None, "locked": None}
        return {**lives, "message": said}, said
    return _NOT_RUNNING, "vaultd is not running: type `vaultd start`"


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
