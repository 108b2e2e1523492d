"""Where the daemon's socket, log and store are: interface.md §1 restated, because the client never imports vaultd.

Rule: equal to vaultd.layout.Layout for every environment; a test compares the two.
"""

# pathlib may not load at start-up (architecture.md §2), so os.path it is.
# ruff: noqa: PTH100
from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class Places:
    """The directories and the four files that the client names or opens."""

    __slots__ = ("data", "run", "state")

    def __init__(self, environ: Mapping[str, str], *, platform: str = sys.platform) -> None:
        chosen = environ.get("VAULTD_HOME")
        if chosen:
            root = os.path.abspath(_expand(chosen, environ))
            self.run, self.state, self.data = (f"{root}/{part}" for part in ("run", "state", "data"))
            return
        if platform == "darwin":
            self.state = self.data = _home(environ) + "/Library/Application Support/vaultd"
            self.run = _home(environ) + "/Library/Caches/vaultd"
            return
        self.state = _xdg(environ, "XDG_STATE_HOME", ".local/state") + "/vaultd"
        self.data = _xdg(environ, "XDG_DATA_HOME", ".local/share") + "/vaultd"
        runtime = environ.get("XDG_RUNTIME_DIR", "")
        self.run = runtime.rstrip("/") + "/vaultd" if runtime.startswith("/") else self.state + "/run"

    @property
    def socket(self) -> str:
        """The control API."""
        return self.run + "/control.sock"

    @property
    def log(self) -> str:
        """The daemon's own log, which every message about a daemon that is away names."""
        return self.state + "/vaultd.log"

    @property
    def store(self) -> str:
        """The encrypted-file store; its absence means that `unlock` makes a new one."""
        return self.data + "/secrets.sealed"


def aws_credentials(environ: Mapping[str, str]) -> str:
    """The AWS CLI's own plaintext file: `add --from-credentials-file`, and what an SDK would prefer in it."""
    return environ.get("AWS_SHARED_CREDENTIALS_FILE") or _home(environ) + "/.aws/credentials"


def aws_config(environ: Mapping[str, str]) -> str:
    """The caller's own profiles; the daemon may have been started with others."""
    return environ.get("AWS_CONFIG_FILE") or _home(environ) + "/.aws/config"


def _xdg(environ: Mapping[str, str], name: str, default: str) -> str:
    value = environ.get(name, "")
    return value.rstrip("/") if value.startswith("/") else f"{_home(environ)}/{default}"


def _expand(text: str, environ: Mapping[str, str]) -> str:
    return _home(environ) + text[1:] if text == "~" or text.startswith("~/") else text


def _home(environ: Mapping[str, str]) -> str:
    home = environ.get("HOME")
    if not home:
        import pwd  # rarely needed: services without HOME

        home = pwd.getpwuid(os.getuid()).pw_dir
    return home.rstrip("/")
