"""`vaultd start`, `stop` and `restart` where the units are installed: the service manager does it, and we tell.

Rules
- The daemon that runs is the service manager's, so its sockets stay open through a restart and close with a stop.
- What a unit cannot take for one start (--port, --config) is refused with the install that gives it for good; --debug
  and --accept-rollback count for one start.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from vault_client.link import Link
from vaultd.command import running
from vaultd.command.own_unit import OwnUnit
from vaultd.errors import Misconfigured, VaultdError
from vaultd.files import Files
from vaultd.host.clock import SystemClock
from vaultd.host.supervisors import SECONDS
from vaultd.layout import Layout
from vaultd.lifecycle.surroundings import read_settings

_ONCE = ("debug", "accept-rollback")


def start(unit: OwnUnit, options: argparse.Namespace) -> dict[str, Any]:
    """What the daemon says once it serves. Raises VaultdError."""
    unit.supervisor.start(once(unit, options))
    return introduction()


def restart(unit: OwnUnit, options: argparse.Namespace, found: dict[str, Any] | None) -> dict[str, Any]:
    """`found` runs by the unit, or nobody does. Raises VaultdError."""
    if found is None:  # sockets that are open stay open
        unit.supervisor.start(once(unit, options))
    else:
        unit.supervisor.restart(once(unit, options), sockets=found["port"] != unit.port)
    return introduction()


def once(unit: OwnUnit, options: argparse.Namespace) -> list[str]:
    """Options that count for this start. Raises Misconfigured for what a unit has for good."""
    if options.port not in {None, unit.port}:
        raise Misconfigured(
            f"vaultd is started by {unit.name}, which listens on port {unit.port}: write `port = {options.port}` below "
            "[listen] in config.toml, then type `vaultd service install` and `vaultd restart`"
        )
    if options.config is not None:
        raise Misconfigured(
            f"vaultd is started by {unit.name}, whose settings file is chosen once for all: type `vaultd service "
            f"install --config {options.config}`, then `vaultd restart`"
        )
    return [each for each in _ONCE if getattr(options, each.replace("-", "_"))]


def given_once(text: str) -> set[str]:
    """The options of VAULTD_ONCE; an unknown one is none, nor is one whose time is over."""
    options, _, until = text.partition("@")
    fresh = until.isascii() and until.isdecimal() and 0 <= int(until) - SystemClock().boottime() <= SECONDS + 1
    return set(options.split(",")) & set(_ONCE) if fresh else set()


def introduction() -> dict[str, Any]:
    """As the daemon tells whoever started it; by the control API, since it told the service manager only."""
    places = running.places()
    found: dict[str, Any] = Link(places).call("GET", "/v1/status")
    by_person = Path(places.state, "locked").exists()
    return {
        **found,
        "warnings": [each for each in found["trouble"] if each != found["locked_reason"]],
        "wants_passphrase": found["locked"] and found["store"] == "file" and not by_person,
        "new_store": not Path(places.store).exists(),
    }


def stop(unit: OwnUnit) -> int | None:
    """The sockets and the daemon; the pid that ended. Raises Unwritable."""
    pid = unit.supervisor.pid()
    unit.supervisor.stop()
    return pid


def disagreement(unit: OwnUnit, told: dict[str, Any]) -> str:
    """What to type where the settings name a port that the units do not listen on; empty where they agree."""
    config = told.get("config_given")
    try:
        settings = read_settings(
            Files(), Layout.find(os.environ), os.environ, port=None, config=Path(config) if config else None
        )
    except VaultdError:  # the daemon tells it better
        return ""
    if (wanted := settings.listen.port) == unit.port:
        return ""
    said = f"[listen] port says {wanted}, and {unit.name} listens on {unit.port}"
    return f"{said}: type `vaultd service install`, then `vaultd restart`"
