"""What `vaultd restart` makes sure of before it stops anything: that what comes up after it would come up.

Rules
- Settings, passphrase file, home and port are tried first; what keeps a daemon from starting ends a restart while the
  old one goes on.
- The port: `--port`, else the one that the running daemon was told by `--port`, else `[listen] port`. The URL that
  open shells hold depends on it, so a move is said.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaultd.files import Files, Layout, check_runtime_dir
from vaultd.host import hardening
from vaultd.lifecycle.listening import listen_on
from vaultd.lifecycle.passphrase import PassphraseFile
from vaultd.lifecycle.surroundings import read_settings


@dataclass(frozen=True, slots=True)
class Ahead:
    """`port`: what the new daemon is to be told by --port, None for nothing. `moved`: said where the port changes."""

    port: int | None
    moved: str


def look_ahead(running: Mapping[str, Any] | None, *, port: int | None, config: Path | None) -> Ahead:
    """Raises what would keep the next daemon from starting, or the file store from opening as it is open now."""
    environ = hardening.captured(dict(os.environ))
    files, layout = Files(), Layout.find(environ)
    check_runtime_dir(environ)
    files.make_dirs(layout)
    chosen = _chosen(running, port)
    settings = read_settings(files, layout, environ, port=chosen, config=config)
    source = PassphraseFile(files, environ)
    if running is not None and running["store"] == "file" and not running["locked"]:
        source.check()
    wanted, before = settings.listen.port, None if running is None else int(running["port"])
    if wanted == before:
        return Ahead(chosen, "")
    listen_on(wanted).close()
    return Ahead(chosen, "" if before is None else _moved(before, wanted, by="--port" if port else "[listen] port"))


def _chosen(running: Mapping[str, Any] | None, port: int | None) -> int | None:
    if port is None and running is not None and running.get("port_given"):
        return int(running["port"])
    return port


def _moved(before: int, wanted: int, *, by: str) -> str:
    return (
        f"it moves from port {before} to {wanted}, because {by} says so: in shells that use a profile, type "
        "`vault-client use PROFILE` again"
    )
