"""What `vaultd restart` makes sure of before it stops anything: that what comes up after it would come up.

Rules
- Settings, passphrase file, home and port are tried first; what keeps a daemon from starting ends a restart while the
  old one goes on. One that another run directory hides is named: it holds this home, and perhaps the port.
- The settings: `--config`, else the one that the running daemon was told by it, which is said; else config.toml.
- The port: `--port`, else the one that the running daemon was told by `--port`, else `[listen] port`. The URL that
  open shells hold depends on it, so a move is said.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaultd.errors import Unwritable
from vaultd.files import Files
from vaultd.host import hardening
from vaultd.layout import Layout, check_runtime_dir
from vaultd.lifecycle.holding import holder_of
from vaultd.lifecycle.listening import listen_on
from vaultd.lifecycle.passphrase import PassphraseFile
from vaultd.lifecycle.surroundings import read_settings


@dataclass(frozen=True, slots=True)
class Ahead:
    """`port`, `config`: what the new daemon is to be told by --port and --config, None for nothing. `said`: of a port
    that changes, of a --config that is kept.
    """

    port: int | None
    config: Path | None
    said: tuple[str, ...]


def look_ahead(running: Mapping[str, Any] | None, *, port: int | None, config: Path | None) -> Ahead:
    """Raises what would keep the next daemon from starting, or the file store from opening as it is open now."""
    environ = hardening.captured(dict(os.environ))
    files, layout = Files(), Layout.find(environ)
    check_runtime_dir(environ)
    files.make_dirs(layout)
    if running is None and (holder := holder_of(layout.state)) is not None and holder.run != layout.run:
        raise Unwritable(holder.told(layout.run))
    chosen, kept = _chosen(running, port), _kept(running) if config is None else None
    settings = read_settings(files, layout, environ, port=chosen, config=config or kept)
    said = () if kept is None else (_keeps(kept),)
    source = PassphraseFile(files, environ)
    if running is not None and running["store"] == "file" and not running["locked"]:
        source.check()
    wanted, before = settings.listen.port, None if running is None else int(running["port"])
    if wanted == before:
        return Ahead(chosen, config or kept, said)
    listen_on(wanted).close()
    if before is not None:
        said = (*said, _moved(before, wanted, by="--port" if port else "[listen] port"))
    return Ahead(chosen, config or kept, said)


def _chosen(running: Mapping[str, Any] | None, port: int | None) -> int | None:
    if port is None and running is not None and running.get("port_given"):
        return int(running["port"])
    return port


def _kept(running: Mapping[str, Any] | None) -> Path | None:
    given = None if running is None else running.get("config_given")
    return Path(given) if given else None


def _keeps(config: Path) -> str:
    return f"it keeps --config {config}: to go back to config.toml, type `vaultd stop`, then `vaultd start`"


def _moved(before: int, wanted: int, *, by: str) -> str:
    return (
        f"it moves from port {before} to {wanted}, because {by} says so: in shells that use a profile, type "
        "`vault-client use PROFILE` again"
    )
