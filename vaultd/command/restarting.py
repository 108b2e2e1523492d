"""`vaultd restart`: stop, then start; and before anything is stopped, that what comes up after it would come up.

Rules
- Sessions, grants and tokens survive it.
- Settings, passphrase file, home and port are tried first; what keeps a daemon from starting ends a restart while the
  old one goes on. One that another run directory hides is named: it holds this home, and perhaps the port.
- The settings: `--config`, else the one that the running daemon was told by it, which is said; else config.toml.
- The port: `--port`, else the one that the running daemon was told by `--port`, else `[listen] port`. The URL that
  open shells hold depends on it, so a move is said.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vault_client.errors import UNREACHABLE, Stop
from vaultd.command import by_unit, own_unit, running, starting, stopping
from vaultd.command.own_unit import OwnUnit
from vaultd.errors import Unwritable, VaultdError
from vaultd.files import Files
from vaultd.host import hardening
from vaultd.layout import Layout, check_runtime_dir
from vaultd.lifecycle.holding import holder_of
from vaultd.lifecycle.listening import listen_on
from vaultd.lifecycle.passphrase import PassphraseFile
from vaultd.lifecycle.surroundings import read_settings


def run(options: argparse.Namespace) -> int:
    """What would keep it from starting again is found first."""
    found = running.heard()
    if found is None and (silent := running.silent()):
        raise Stop(silent, UNREACHABLE)
    if (unit := own_unit.usable()) is not None:
        return _by_unit(unit, options, found)
    with _nothing_stopped(found):
        ahead = look_ahead(found, port=options.port, config=options.config)
    options.port, options.config = ahead.port, ahead.config
    stopping.run(options)
    for each in ahead.said:
        print(each)
    return starting.run(options)


def _by_unit(unit: OwnUnit, options: argparse.Namespace, found: dict[str, Any] | None) -> int:
    """By the service manager, and from a daemon without units over to it."""
    with _nothing_stopped(found):
        by_unit.once(unit, options)
        theirs = found is not None and unit.supervisor.pid() == found["pid"]
        if found is not None or not unit.supervisor.listens():
            look_ahead(found, port=unit.port, config=None)
    if found is not None and not theirs:
        stopping.run(options)
        found = None
    return starting.served_by(unit, by_unit.restart(unit, options, found))


@contextmanager
def _nothing_stopped(found: Mapping[str, Any] | None) -> Iterator[None]:
    """What is refused in here is refused while the daemon goes on: it is said."""
    try:
        yield
    except VaultdError as exc:
        goes_on = "" if found is None else f"nothing was stopped, vaultd (pid {found['pid']}) goes on: "
        raise Stop(goes_on + exc.message, exc.exit) from exc


@dataclass(frozen=True, slots=True)
class Ahead:
    """`port`, `config`: what the new daemon is to be told by --port and --config, None for nothing. `said`: of a port
    that changes, of a --config that is kept.
    """

    port: int | None
    config: Path | None
    said: tuple[str, ...]


def look_ahead(found: Mapping[str, Any] | None, *, port: int | None, config: Path | None) -> Ahead:
    """Raises what would keep the next daemon from starting, or the file store from opening as it is open now."""
    environ = hardening.captured(dict(os.environ))
    files, layout = Files(), Layout.find(environ)
    check_runtime_dir(environ)
    files.make_dirs(layout)
    if found is None and (holder := holder_of(layout.state)) is not None and holder.run != layout.run:
        raise Unwritable(holder.told(layout.run))
    chosen, kept = _chosen(found, port), _kept(found) if config is None else None
    settings = read_settings(files, layout, environ, port=chosen, config=config or kept)
    said = () if kept is None else (_keeps(kept),)
    source = PassphraseFile(files, environ)
    if found is not None and found["store"] == "file" and not found["locked"]:
        source.check()
    wanted, before = settings.listen.port, None if found is None else int(found["port"])
    if wanted == before:
        return Ahead(chosen, config or kept, said)
    listen_on(wanted).close()
    if before is not None:
        said = (*said, _moved(before, wanted, by="--port" if port else "[listen] port"))
    return Ahead(chosen, config or kept, said)


def _chosen(found: Mapping[str, Any] | None, port: int | None) -> int | None:
    if port is None and found is not None and found.get("port_given"):
        return int(found["port"])
    return port


def _kept(found: Mapping[str, Any] | None) -> Path | None:
    given = None if found is None else found.get("config_given")
    return Path(given) if given else None


def _keeps(config: Path) -> str:
    return f"it keeps --config {config}: to go back to config.toml, type `vaultd stop`, then `vaultd start`"


def _moved(before: int, wanted: int, *, by: str) -> str:
    return (
        f"it moves from port {before} to {wanted}, because {by} says so: in shells that use a profile, type "
        "`vault-client use PROFILE` again"
    )
