"""The units that `vaultd service install` has put where the user's service manager looks, if they are this home's.

Rule: cheap where there is none, because every command asks; the units of another VAULTD_HOME are none of ours.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vault_client.places import Places

if TYPE_CHECKING:
    from vaultd.host.supervisors import Run, Supervisor

_PORT = re.compile(
    r"^ListenStream=127\.0\.0\.1:(\d+)$|<key>SockServiceName</key>\s*<string>(\d+)</string>", re.MULTILINE
)
_CONTROL = re.compile(r"^ListenStream=(/.*)$|<key>SockPathName</key>\s*<string>([^<]*)</string>", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class OwnUnit:
    """`name` is what holds the sockets; `port` and `control` are what they are bound to."""

    name: str
    port: int
    control: str
    supervisor: Supervisor

    def asleep(self) -> bool:
        """The sockets are there and no daemon behind them: to connect would start one."""
        return self.supervisor.listens() and self.supervisor.pid() is None


def folder(environ: Mapping[str, str], *, platform: str = sys.platform) -> Path:
    """Where the user's service manager looks for units of his own."""
    home = environ.get("HOME") or os.path.expanduser("~")  # noqa: PTH111 (as Places does)
    if platform == "darwin":
        return Path(home, "Library/LaunchAgents")
    config = environ.get("XDG_CONFIG_HOME", "")
    return Path(config if config.startswith("/") else f"{home}/.config", "systemd/user")


def socket_file(environ: Mapping[str, str], *, platform: str = sys.platform) -> Path:
    """The file that says what is listened on."""
    return folder(environ, platform=platform) / ("vaultd.plist" if platform == "darwin" else "vaultd.socket")


def bound(environ: Mapping[str, str], *, platform: str = sys.platform) -> tuple[int, str] | None:
    """(port, control socket) of the units that are installed, whoever's home they are for."""
    try:
        text = socket_file(environ, platform=platform).read_text(errors="replace")
    except OSError:
        return None
    port, control = _PORT.search(text), _CONTROL.search(text)
    if port is None or control is None:
        return None
    path = control[1].replace("%%", "%") if control[1] else _unescaped(control[2])
    return int(port[1] or port[2]), path


def _unescaped(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def find(
    environ: Mapping[str, str] | None = None, *, platform: str = sys.platform, run: Run | None = None
) -> OwnUnit | None:
    """None where no units are installed, or another home's."""
    environ = os.environ if environ is None else environ
    found = bound(environ, platform=platform)
    if found is None or found[1] != Places(environ, platform=platform).socket:
        return None
    file = socket_file(environ, platform=platform)
    return OwnUnit(file.name, *found, supervisor(environ, platform=platform, run=run))


def usable() -> OwnUnit | None:
    """The units of this home, where somebody runs them; else they are passed over, and that is said."""
    unit = find()
    if unit is None or unit.supervisor.answers():
        return unit
    print(f"{unit.supervisor.name} does not run for you here, so {unit.name} is passed over", file=sys.stderr)
    return None


def supervisor(environ: Mapping[str, str], *, platform: str = sys.platform, run: Run | None = None) -> Supervisor:
    """The user's; whether it runs, it has to be asked."""
    from vaultd.host import supervisors

    run = run or supervisors.command(environ)
    if platform == "darwin":
        return supervisors.Launchd(run, socket_file(environ, platform=platform))
    return supervisors.Systemd(run)
