"""The user's service manager as a command: `systemctl --user`, or launchctl. Both own our sockets and start the daemon.

Rules
- Nothing of a service manager is parsed but what it prints for programs, and every call has an end (90 s: a start may
  take 60).
- A way that is not there (no systemd for this user, as in a container or after `su`) is told, never waited for.
- The launchd half was written from its manual and tested against a stand-in; it has not run on a Mac.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from vaultd.errors import Unwritable
from vaultd.host.clock import SystemClock

SOCKET, DAEMON = "vaultd.socket", "vaultd.service"
LABEL = "vaultd"
#: Options of one start alone, for a daemon that is not ours to give words to: read by `vaultd start --foreground`, and
#: until that moment of boottime only. Who closes the terminal under a start leaves them behind in the manager, and a
#: consent to an older store is not to be given to each daemon of a login.
ONCE = "VAULTD_ONCE"
SECONDS = 90.0

_JOURNAL = "journalctl --user -n 20 -u"
_SHOWN = ("ActiveState", "SubState", "MainPID", "Result", "StatusText", "ExecMainStatus", "NeedDaemonReload")


@dataclass(frozen=True, slots=True)
class Ran:
    """A finished command; 127 where there is none of that name."""

    status: int
    out: str
    err: str


#: Runs a command with the caller's environment; a test has its own.
Run = Callable[[tuple[str, ...]], Ran]


class Supervisor(Protocol):
    """What starts and stops the daemon and its sockets once its units are installed."""

    @property
    def name(self) -> str:
        """As a person knows it."""

    def answers(self) -> bool:
        """Whether one runs for this user."""

    def listens(self) -> bool:
        """Whether it holds our sockets, so that a connection to them starts the daemon."""

    def pid(self) -> int | None:
        """The daemon's, while it runs or is being started by it."""

    def start(self, once: Iterable[str] = ()) -> None:
        """Sockets and daemon; returns once it serves. Raises Unwritable with what it said."""

    def restart(self, once: Iterable[str] = (), *, sockets: bool) -> None:
        """The daemon; `sockets` as well, where what they listen on has changed."""

    def stop(self) -> None:
        """The sockets first, so that nobody starts it again."""

    def enable(self, *, now: bool = True) -> None:
        """Take the units as they are on disk now, and hold the sockets from each login on; `now`: at once, too."""

    def forget(self) -> None:
        """Stop everything, and do not begin again at the next login."""

    def reload(self) -> None:
        """Take note of units that were removed."""


def command(environ: Mapping[str, str]) -> Run:
    """The real thing."""

    def run(words: tuple[str, ...]) -> Ran:
        try:
            done = subprocess.run(  # noqa: S603 (systemctl and launchctl, words of ours)
                words, env=dict(environ), capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except OSError as exc:
            return Ran(127, "", f"{words[0]}: {exc.strerror}")
        except subprocess.TimeoutExpired:
            return Ran(124, "", f"{words[0]} was not done in {SECONDS:.0f} s")
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


def _said(done: Ran) -> str:
    """The last line that is no advice, without a closing stop, for a sentence."""
    lines = [each.strip() for each in done.err.splitlines() if each.strip()]
    return (lines[0] if lines else f"exit status {done.status}").rstrip(".")


@dataclass(frozen=True, slots=True)
class Systemd:
    """`systemctl --user`."""

    run: Run
    name: str = "systemd"

    def answers(self) -> bool:
        """By the cheapest question that it has to answer itself."""
        return self._ctl("show", "--property=Version").status == 0

    def listens(self) -> bool:
        """Active, whether it waits for the first connection or has handed the sockets over."""
        return self.shown(SOCKET)["ActiveState"] == "active"

    def pid(self) -> int | None:
        """Of a unit that is active, or on its way there."""
        found = self.shown(DAEMON)
        return int(found["MainPID"]) or None if found["ActiveState"] in {"active", "activating", "reloading"} else None

    def start(self, once: Iterable[str] = ()) -> None:
        """Raises Unwritable with the daemon's own reason, where it gave one."""
        self._with_once(once, "start", SOCKET, DAEMON)

    def restart(self, once: Iterable[str] = (), *, sockets: bool) -> None:
        """The sockets stay open meanwhile: who connects waits for the new daemon, and nobody can take the port."""
        if sockets:
            self.stop()
        self._with_once(once, *(("start", SOCKET, DAEMON) if sockets else ("restart", DAEMON)))

    def stop(self) -> None:
        """Raises Unwritable."""
        self._must("stop", SOCKET, DAEMON)

    def enable(self, *, now: bool = True) -> None:
        """The socket alone: the first use starts the daemon. Raises Unwritable."""
        self._must("daemon-reload")
        self._must("enable", SOCKET)
        if now and self.pid() is None:  # a socket cannot be opened anew under a daemon that has it
            self._must("restart", SOCKET)

    def forget(self) -> None:
        """Raises Unwritable."""
        self._must("disable", "--now", SOCKET, DAEMON)

    def reload(self) -> None:
        """Raises Unwritable."""
        self._must("daemon-reload")
        self._ctl("reset-failed", SOCKET, DAEMON)  # 1 where it had not failed

    def shown(self, unit: str) -> dict[str, str]:
        """Its properties; of a unit that is unknown as well."""
        done = self._ctl("show", unit, *(f"--property={each}" for each in _SHOWN))
        pairs = (line.partition("=") for line in done.out.splitlines())
        return {**dict.fromkeys(_SHOWN, ""), "MainPID": "0", **{name: value for name, _, value in pairs}}

    def _with_once(self, once: Iterable[str], *words: str) -> None:
        options = ",".join(once)
        if options:
            self._must("set-environment", f"{ONCE}={options}@{SystemClock().boottime() + SECONDS:.0f}")
        try:
            done = self._ctl(*words)
        finally:
            if options:
                self._ctl("unset-environment", ONCE)
        if done.status:
            raise self._failed(done)

    def _failed(self, done: Ran) -> Unwritable:
        daemon, sockets = self.shown(DAEMON), self.shown(SOCKET)
        if daemon["StatusText"]:  # the daemon's own sentence, which ends in what to type
            status = daemon["ExecMainStatus"]
            return Unwritable(daemon["StatusText"], exit=int(status) if status.isdecimal() else 1)
        if sockets["ActiveState"] == "failed":
            return Unwritable(
                f"systemd cannot open the sockets ({sockets['Result']}), perhaps another process has the port: type "
                f"`vaultd check`, then `{_JOURNAL} {SOCKET}`"
            )
        return Unwritable(
            f"systemd did not start vaultd ({daemon['Result'] or _said(done)}): type `{_JOURNAL} {DAEMON}`"
        )

    def _must(self, *words: str) -> None:
        if (done := self._ctl(*words)).status:
            raise Unwritable(
                f"`systemctl --user {' '.join(words)}` failed ({_said(done)}): mend that, then type the same again"
            )

    def _ctl(self, *words: str) -> Ran:
        return self.run(("systemctl", "--user", *words))


@dataclass(frozen=True, slots=True)
class Launchd:
    """`launchctl`, for one agent in the domain of a user's login."""

    run: Run
    plist: Path
    uid: int = field(default_factory=os.geteuid)
    name: str = "launchd"

    @property
    def _domain(self) -> str:
        return f"gui/{self.uid}"

    @property
    def _target(self) -> str:
        return f"{self._domain}/{LABEL}"

    def answers(self) -> bool:
        """There is none over ssh to a Mac on which nobody is logged in."""
        return self._ctl("print", self._domain).status == 0

    def listens(self) -> bool:
        """A job that is loaded has its sockets."""
        return self._ctl("print", self._target).status == 0

    def pid(self) -> int | None:
        """As `launchctl print` shows it."""
        found = re.search(r"^\s*pid = (\d+)$", self._ctl("print", self._target).out, re.MULTILINE)
        return int(found[1]) if found else None

    def start(self, once: Iterable[str] = ()) -> None:
        """Raises Unwritable; options of one start are not to be had from launchd."""
        _refuse_once(once)
        if not self.listens():
            self._must("bootstrap", self._domain, str(self.plist))
        self._must("kickstart", self._target)

    def restart(self, once: Iterable[str] = (), *, sockets: bool) -> None:
        """Raises Unwritable."""
        _refuse_once(once)
        if sockets:
            self.stop()
            self.start()
        else:
            self._must("kickstart", "-k", self._target)

    def stop(self) -> None:
        """Until the next login, or `vaultd start`. Raises Unwritable."""
        if self.listens():
            self._must("bootout", self._target)

    def enable(self, *, now: bool = True) -> None:
        """Raises Unwritable. What is in ~/Library/LaunchAgents is loaded at each login."""
        if now and self.pid() is None:
            self.stop()
            self._must("bootstrap", self._domain, str(self.plist))

    def forget(self) -> None:
        """What is not in ~/Library/LaunchAgents is not begun again. Raises Unwritable."""
        self.stop()

    def reload(self) -> None:
        """It reads a plist only when that is bootstrapped."""

    def _must(self, *words: str) -> None:
        if (done := self._ctl(*words)).status:
            raise Unwritable(f"`launchctl {' '.join(words)}` failed ({_said(done)}): type `vaultd logs`")

    def _ctl(self, *words: str) -> Ran:
        return self.run(("launchctl", *words))


def _refuse_once(once: Iterable[str]) -> None:
    if words := " ".join(f"--{each}" for each in once):
        raise Unwritable(f"launchd takes no options for one start: type `vaultd stop`, then `vaultd start {words}`")
