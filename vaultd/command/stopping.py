"""`vaultd stop`: it ends in order and is waited for; with it the sockets that would start it again.

Rule: it loads nothing that is slow. A daemon that is not there is exit 0; one that does not answer, or does not end, is
named with what ends it.
"""

from __future__ import annotations

import argparse

from vault_client.errors import Stop
from vault_client.link import Link
from vaultd.command import own_unit, running
from vaultd.command.own_unit import OwnUnit

#: A stop that is not done by then is told to SIGKILL.
STOP_SECONDS = 30.0


def run(_options: argparse.Namespace) -> int:
    """Stop it and wait until it is gone."""
    if (unit := own_unit.usable()) is not None and unit.supervisor.listens():
        return _by_unit(unit)
    found = running.heard()
    if found is None:
        return _not_there()
    pid = int(found["pid"])
    with running.watched(pid) as ended:
        Link(running.places()).call("POST", "/v1/stop", {})
        if not ended(STOP_SECONDS):
            raise Stop(f"vaultd (pid {pid}) did not stop in {STOP_SECONDS:.0f} s: type `kill -9 {pid}`")
    print(f"vaultd (pid {pid}) has stopped")
    return 0


def _not_there() -> int:
    if silent := running.silent("type `vaultd logs`, then `kill -9 {pid}`"):
        raise Stop(silent)
    if elsewhere := running.elsewhere():
        raise Stop(elsewhere)
    print("vaultd is not running")
    return 0


def _by_unit(unit: OwnUnit) -> int:
    from vaultd.command import by_unit

    pid = by_unit.stop(unit)
    who = "vaultd was not running" if pid is None else f"vaultd (pid {pid}) has stopped"
    print(f"{who}; the sockets of {unit.name} are closed until `vaultd start` or the next login")
    return 0
