"""What the daemon does to itself before the first secret, listener, thread or child (security.md §2.2 items 18 to 20).

Rules
- Not dumpable and no core file: neither another process of this user nor a crash reporter reads our memory. `exec`
  makes a process dumpable again, so a daemon that was started in the background hardens itself, not its parent.
- The environment is cut to an allow-list, for us and for every child. What the contract reads from it (interface.md
  §7) is handed back as a mapping instead: boto3 then finds no key, profile, endpoint or proxy that we did not choose.
- umask 077: a file that some library makes is nobody else's either. The sockets take 0177 for the moment of bind.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from types import MappingProxyType

#: Stay in the environment: what a desktop, a locale, D-Bus and a service manager need. LD_*, PYTHON*, KEYRING_* and
#: whatever else was there is gone.
KEPT = frozenset({
    "HOME", "USER", "LOGNAME", "SHELL", "PATH", "TERM", "TZ", "TZDIR", "LANG", "LANGUAGE", "TMPDIR",
    "DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "GPG_TTY",
    "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC",
    "CREDENTIALS_DIRECTORY", "INVOCATION_ID", "JOURNAL_STREAM", "SSL_CERT_FILE", "SSL_CERT_DIR",
})  # fmt: skip
KEPT_BEGINNINGS = ("VAULTD_", "XDG_", "LC_")

#: Handed back, but gone from the environment: interface.md §1 and §7.
CAPTURED = frozenset({
    "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CA_BUNDLE", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "DBUS_SYSTEM_BUS_ADDRESS",
})  # fmt: skip
CAPTURED_BEGINNINGS = ("AWS_ENDPOINT_URL",)

#: Without these some interpreters do not start: a process that we start gets them, and drops them itself.
_LOADER = ("LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_LIBRARY_PATH", "DYLD_INSERT_LIBRARIES")

#: What a keeper process is started with, of what is kept: the desktop's keyring and its D-Bus, the locale, the CA
#: certificates. What AWS's endpoints, proxy and bundle are it is told by settings, never by variables.
_FOR_KEEPER = frozenset({
    "HOME", "USER", "LOGNAME", "PATH", "TZ", "TZDIR", "LANG", "LANGUAGE", "TMPDIR",
    "DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "SSL_CERT_FILE", "SSL_CERT_DIR",
})  # fmt: skip
_NOT_FOR_KEEPER = frozenset({"VAULTD_PASSPHRASE_FILE", "VAULTD_FEDERATION_URL"})

#: Enough for 1,024 connections, control clients and doors; loops over every descriptor stay short.
DESCRIPTORS = 65_536

_PARENT_DEATH = 1  # linux/prctl.h PR_SET_PDEATHSIG
_DUMPABLE = 4  # linux/prctl.h PR_SET_DUMPABLE
_DENY_ATTACH = 31  # macOS sys/ptrace.h PT_DENY_ATTACH


@dataclass(frozen=True, slots=True)
class Hardened:
    """`environ`: what the contract may read of the environment, as it was. `warnings`: what could not be done.

    `loader`: the variables without which this interpreter may not start, for a keeper process.
    """

    environ: Mapping[str, str]
    warnings: tuple[str, ...]
    loader: Mapping[str, str] = field(default_factory=dict)


def harden(environ: MutableMapping[str, str] = os.environ) -> Hardened:
    """Harden this process and cut `environ` to the allow-list. Never raises: what the system refuses is a warning."""
    warnings: list[str] = []
    os.umask(0o077)
    _no_core(warnings)
    _no_dump(warnings)
    _descriptors(warnings)
    if os.geteuid() == 0:
        warnings.append("vaultd runs as root, so every root process is its user: start it as your own user instead.")
    loader = _loader(environ)
    return Hardened(environ=captured(environ), warnings=tuple(warnings), loader=loader)


def captured(environ: MutableMapping[str, str]) -> Mapping[str, str]:
    """Cut `environ` to the allow-list, and return that with what else the contract reads."""
    before = dict(environ)
    for name in before:
        if not _kept(name):
            del environ[name]
    return MappingProxyType({name: value for name, value in before.items() if _kept(name) or _captured(name)})


def handed_on(environ: Mapping[str, str]) -> dict[str, str]:
    """What a daemon in the background is started with. What it got at its start stays in /proc/PID/environ as long as
    it lives, whatever it drops later: so what it is not to read is not given to it, the caller's own keys first.
    """
    return {**captured(dict(environ)), **_loader(environ)}


def for_keeper(hardened: Hardened) -> dict[str, str]:
    """What a keeper process is started with: an allow-list of its own, narrower than ours, and the loader's."""
    kept = {name: value for name, value in hardened.environ.items() if _keeper_needs(name)}
    return {**kept, **hardened.loader}


def _keeper_needs(name: str) -> bool:
    return name in _FOR_KEEPER or (name.startswith(KEPT_BEGINNINGS) and name not in _NOT_FOR_KEEPER)


def die_with_parent() -> None:
    """SIGKILL for this process when the one that started it ends, on Linux: one that hangs would not notice."""
    if sys.platform == "linux":
        _libc().prctl(_PARENT_DEATH, signal.SIGKILL, 0, 0, 0)


def _loader(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: environ[name] for name in _LOADER if name in environ}


def dumpable() -> bool:
    """Whether this process could be read by another of the same user: for `vaultd check` and the tests."""
    if sys.platform != "linux":
        return False
    return bool(_libc().prctl(3, 0, 0, 0, 0))  # PR_GET_DUMPABLE


def _kept(name: str) -> bool:
    return name in KEPT or name.startswith(KEPT_BEGINNINGS)


def _captured(name: str) -> bool:
    return name in CAPTURED or name.startswith(CAPTURED_BEGINNINGS)


def _no_core(warnings: list[str]) -> None:
    # Both this and the dumpable flag: the kernel ignores the limit when core_pattern is a pipe (security.md item 19).
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError):
        warnings.append("core files could not be switched off: run `ulimit -c 0` before `vaultd start`.")


def _no_dump(warnings: list[str]) -> None:
    try:
        refused = _libc().prctl(_DUMPABLE, 0, 0, 0, 0) if sys.platform == "linux" else _deny_attach()
    except (OSError, AttributeError):
        refused = -1
    if refused:
        warnings.append("other processes of this user may read the daemon's memory: see `vaultd check`.")


def _deny_attach() -> int:
    return int(_libc().ptrace(_DENY_ATTACH, 0, 0, 0))


def _descriptors(warnings: list[str]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):
        warnings.append(f"only {soft} open files are allowed: run `ulimit -n {wanted}` before `vaultd start`.")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
