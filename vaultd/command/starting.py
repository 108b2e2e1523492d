"""`vaultd start`: in the background, by the units or in this process; and what is said once it serves.

Rule: it returns when the daemon serves, or says why not. Where a person is there and the store needs its passphrase it
is asked for here; a daemon that is locked serves all the same, and the next step is said.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from typing import Any

from vault_client.errors import UNREACHABLE, Refusal, Stop
from vault_client.link import Link
from vault_client.tables import typed
from vaultd import __version__
from vaultd.command import own_unit, running, spawning, stdio
from vaultd.command.own_unit import OwnUnit

#: How long a second `vaultd start` waits for the first to serve.
HELD_SECONDS = 15.0


def run(options: argparse.Namespace) -> int:
    """Start, unless it runs already."""
    if options.foreground:
        return _foreground(options)
    found = running.heard(HELD_SECONDS)
    if found is not None:
        return _runs_already(found, options)
    if silent := running.silent():
        raise Stop(silent, UNREACHABLE)
    if (unit := own_unit.usable()) is not None:
        from vaultd.command import by_unit

        return served_by(unit, by_unit.start(unit, options))
    told = spawning.spawned(options)
    if told.get("held") and (found := running.first_answer(HELD_SECONDS)) is not None:  # another start was first
        return _runs_already(found, options)
    if not told.get("ok"):
        raise Stop(str(told.get("message")), int(told.get("exit", 1)))
    return _served(told)


def served_by(unit: OwnUnit, told: dict[str, Any]) -> int:
    """It serves, run by the service manager."""
    from vaultd.command import by_unit

    if said := by_unit.disagreement(unit, told):
        print(said)
    return _served(told)


def _served(told: dict[str, Any]) -> int:
    """It serves: unlock it where a person is there to do it, and say what is next."""
    try:
        if told["locked"] and told["wants_passphrase"] and sys.stdin.isatty():
            told = _unlock(told)
        introduce(told)
    except KeyboardInterrupt:
        raise stdio.interrupted(f"vaultd (pid {told['pid']}) runs {_shut(told)}") from None
    return 0


def _shut(told: dict[str, Any]) -> str:
    return "locked, and `vault-client unlock` goes on from here" if told["locked"] else "all the same"


def _foreground(options: argparse.Namespace) -> int:
    """Be the daemon: in this process, until a signal."""
    from vaultd.command.by_unit import given_once
    from vaultd.host.supervisors import ONCE
    from vaultd.lifecycle import foreground

    once = given_once(os.environ.pop(ONCE, ""))
    return foreground.main(
        port=options.port,
        config=options.config,
        debug=options.debug or "debug" in once,
        accept_rollback=options.accept_rollback or "accept-rollback" in once,
        ready_fd=options.ready_fd,
    )


# ---- it runs already ----


def _runs_already(found: dict[str, Any], options: argparse.Namespace) -> int:
    print(f"vaultd is already running (pid {found['pid']}) on http://127.0.0.1:{found['port']}")
    if found["version"] != __version__:
        print(f"it is vaultd {found['version']}, and this is {__version__}: type `vaultd restart`")
    if options.port not in {None, found["port"]}:
        print(f"--port {options.port} was ignored: to move it, type `vaultd restart --port {options.port}`")
    if options.accept_rollback and found["locked"]:
        _accept_rollback()
    elif found["locked"]:
        print(f"next: {found['locked_reason']}")
    return 0


def _accept_rollback() -> None:
    """The remedy of StoreRolledBack, typed while the daemon runs locked: the consent counts for the next `unlock`."""
    link = Link(running.places())
    body: dict[str, Any] = {"accept_rollback": True}
    if link.call("GET", "/v1/status")["store"] != "file":
        return
    if sys.stdin.isatty():
        body["passphrase"] = getpass.getpass("Passphrase of vaultd's store: ") or None
    try:
        link.call("POST", "/v1/unlock", body)
    except Refusal as refusal:
        if refusal.code != "Locked":
            raise
        print(f"the store is taken as it is found; next: {refusal.message}")
        return
    print("unlocked: the store is taken as it was found")


# ---- it serves ----


def _unlock(told: dict[str, Any]) -> dict[str, Any]:
    """The file store and a person: ask for the passphrase here (twice, when new)."""
    new = bool(told["new_store"])
    try:
        first = getpass.getpass("New passphrase for vaultd's store: " if new else "Passphrase of vaultd's store: ")
        if new and first and getpass.getpass("The same passphrase again: ") != first:
            print("vaultd: the two differ, so no store was made: type `vault-client unlock`", file=sys.stderr)
            return told
    except EOFError:
        return told
    if not first:
        return told
    link = Link(running.places())
    try:
        link.call("POST", "/v1/unlock", {"passphrase": first})
    except Refusal as refusal:
        print(f"vaultd: {refusal.message}", file=sys.stderr)
        return told
    now, before = link.call("GET", "/v1/status"), told.get("warnings", ())
    opened = [each for each in now["trouble"] if each not in before]  # only an open store tells them
    return {**told, **now, "warnings": [*before, *opened]}


def introduce(told: dict[str, Any]) -> None:
    """Endpoint, store in use, and the next step."""
    print(f"vaultd {told['version']} serves on http://127.0.0.1:{told['port']} (pid {told['pid']})")
    where = {"keyring": "the OS keyring", "file": f"the encrypted file {running.places().store}"}[str(told["store"])]
    print(f"store: {where}{', locked' if told['locked'] else ''}")
    for warning in told.get("warnings", ()):
        print(f"warning: {warning}")
    if told["locked"]:
        print(f"next: {told['locked_reason']}")
    elif wanted := told.get("keyless"):
        print(f"next: vault-client add {typed(wanted[0])} --replace")
    elif not told.get("identities"):
        print("next: vault-client add IDENTITY")
    else:
        print("next: vault-client list")
