"""Every path of ours (interface.md §1), from the environment of `vaultd start`; and which of them cannot be used.

Rule: a path follows from the environment alone, without I/O, so that client, units and daemon agree on it before
anything is there.
"""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vaultd.errors import Misconfigured

#: sun_path less its closing zero byte (security.md §2.1 item 4).
SOCKET_PATH_LIMIT = {"darwin": 103}


@dataclass(frozen=True, slots=True)
class Layout:
    """Every path of interface.md §1, computed without I/O from the environment of `vaultd start`."""

    config: Path
    run: Path
    state: Path
    data: Path

    @classmethod
    def find(cls, environ: Mapping[str, str], *, platform: str = sys.platform) -> Layout:
        """VAULTD_HOME, else the platform's places; a relative XDG path is ignored, as its specification says."""
        if chosen := environ.get("VAULTD_HOME"):
            root = Path(os.path.abspath(_expand(chosen, environ)))  # noqa: PTH100 - a link in it stays as typed
            return cls(config=root / "config", run=root / "run", state=root / "state", data=root / "data")
        home = _home(environ)
        if platform == "darwin":
            support = home / "Library/Application Support/vaultd"
            return cls(config=home / ".config/vaultd", run=home / "Library/Caches/vaultd", state=support, data=support)
        state = _xdg(environ, "XDG_STATE_HOME", home / ".local/state") / "vaultd"
        runtime = environ.get("XDG_RUNTIME_DIR", "")
        return cls(
            config=_xdg(environ, "XDG_CONFIG_HOME", home / ".config") / "vaultd",
            run=Path(runtime, "vaultd") if runtime.startswith("/") else state / "run",
            state=state,
            data=_xdg(environ, "XDG_DATA_HOME", home / ".local/share") / "vaultd",
        )

    @property
    def config_toml(self) -> Path:
        """The user's settings; may be a link."""
        return self.config / "config.toml"

    @property
    def control_sock(self) -> Path:
        """The control API's socket; see `check_socket_path`."""
        return self.run / "control.sock"

    @property
    def doors_sock(self) -> Path:
        """Where `vaultd link-local` hands listening sockets over."""
        return self.run / "doors.sock"

    @property
    def lock_file(self) -> Path:
        """Held by flock while a daemon lives."""
        return self.run / "vaultd.lock"

    @property
    def keeper_lock(self) -> Path:
        """Held by flock while a keeper process lives: the next one opens no store before that is gone."""
        return self.state / "keeper.lock"

    @property
    def endpoint_json(self) -> Path:
        """Port and pid of the daemon that lives."""
        return self.run / "endpoint.json"

    @property
    def grant_tokens(self) -> Path:
        """The directory of `ID.token`."""
        return self.run / "grants"

    @property
    def identities_json(self) -> Path:
        """The index, without secrets."""
        return self.state / "identities.json"

    @property
    def grants_json(self) -> Path:
        """Token hashes and metadata keys."""
        return self.state / "grants.json"

    @property
    def sessions_sealed(self) -> Path:
        """Sessions, codes, limits and heads under the data key."""
        return self.state / "sessions.sealed"

    @property
    def audit_jsonl(self) -> Path:
        """The audit log (interface.md §8)."""
        return self.state / "audit.jsonl"

    @property
    def log_file(self) -> Path:
        """The daemon's own log."""
        return self.state / "vaultd.log"

    @property
    def locked_marker(self) -> Path:
        """There while the daemon is locked (architecture.md §7)."""
        return self.state / "locked"

    @property
    def secrets_seen(self) -> Path:
        """The highest generation of `secrets.sealed` that was seen here (security.md §2.2 item 26)."""
        return self.state / "secrets.seen"

    @property
    def secrets_sealed(self) -> Path:
        """The encrypted-file store."""
        return self.data / "secrets.sealed"

    @property
    def directories(self) -> tuple[Path, ...]:
        """Every directory of ours, outer ones first."""
        return (self.config, self.state, self.data, self.run, self.grant_tokens)

    @staticmethod
    def aws_config(environ: Mapping[str, str]) -> Path:
        """The profiles, read only."""
        return _expand(environ.get("AWS_CONFIG_FILE") or "~/.aws/config", environ)

    @staticmethod
    def aws_credentials(environ: Mapping[str, str]) -> Path:
        """The SDKs' plain-text file: looked at for a `[default]` that an SDK would prefer."""
        return _expand(environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials", environ)


def check_socket_path(path: Path, *, platform: str = sys.platform) -> None:
    """Raise Misconfigured when the kernel would refuse the path for a unix socket."""
    limit = SOCKET_PATH_LIMIT.get(platform, 107)
    if (length := len(os.fsencode(path))) > limit:
        raise Misconfigured(
            f"The socket path {path} has {length} bytes, {limit} are allowed: "
            "set VAULTD_HOME to a shorter directory and run `vaultd start` again."
        )


def check_runtime_dir(environ: Mapping[str, str], *, platform: str = sys.platform) -> None:
    """Raise Misconfigured when XDG_RUNTIME_DIR names no directory: of a session that has ended, or another user's.

    It is never made (only the login may, on a file system of its own), and nothing else is taken instead in silence:
    client and daemon would look for each other in two places as soon as it is there.
    """
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    used = runtime.startswith("/") and not environ.get("VAULTD_HOME") and platform != "darwin"
    if used and not os.path.isdir(runtime):  # noqa: PTH112
        raise Misconfigured(
            f"XDG_RUNTIME_DIR names {runtime}, which is no directory: type `unset XDG_RUNTIME_DIR` in each shell "
            "that is to use vaultd, or log in again, and then `vaultd start`."
        )


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir)


def _xdg(environ: Mapping[str, str], name: str, default: Path) -> Path:
    value = environ.get(name, "")
    return Path(value) if value.startswith("/") else default


def _expand(text: str, environ: Mapping[str, str]) -> Path:
    if text == "~" or text.startswith("~/"):
        return _home(environ) / text[2:]
    return Path(text)
