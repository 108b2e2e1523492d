"""A real `systemd --user` for the units, with the machine's own /run/systemd and control groups left alone.

Rule: a systemd whose control group is the root takes every process of the machine into its init.scope. So it is started
in a group of its own, looked at before it becomes systemd, and sees no other hierarchy; the group goes with it.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.process.harness import ROOT, Ran, stop, until

SYSTEMD = Path("/lib/systemd/systemd")
_GROUPS = Path("/sys/fs/cgroup")
#: Without these a manager ends at once, or does not know how to end; none of the machine's own user units.
_STOCK = Path("/usr/lib/systemd/user")
_NEEDED = ("basic.target", "sockets.target", "paths.target", "timers.target", "shutdown.target", "exit.target",
           "systemd-exit.service")  # fmt: skip

#: $1: the name of the group; then what becomes systemd. The hierarchies of controllers are taken out of sight: only
#: processes are tracked.
_BECOME = """
set -eu
mount -t tmpfs tmpfs /run/systemd
mkdir /run/systemd/system
@OPEN@
for each in /sys/fs/cgroup/*; do
  case $each in */systemd | */unified) continue ;; esac
  ! mountpoint -q "$each" || umount -l "$each"
done
for line in $(grep -E '^[0-9]+:(name=systemd)?:' /proc/self/cgroup); do
  case $line in *:/"$1") ;; *) echo "not in a group of its own: $line" >&2; exit 1 ;; esac
done
shift
exec "$@" /lib/systemd/systemd --user --log-target=console
"""

#: In the same mounts, before that: what the manager's user may not pass shows him only what he needs of it.
_OPEN = """
number=0
for each in @BELOW@; do
  number=$((number + 1))
  mkdir -p "/run/systemd/kept/$number"
  mount --bind "$each" "/run/systemd/kept/$number"
done
mount -t tmpfs -o mode=755 tmpfs @SHUT@
number=0
for each in @BELOW@; do
  number=$((number + 1))
  mkdir -p "$each"
  mount --move "/run/systemd/kept/$number" "$each"
done
"""


def _hierarchies() -> list[Path]:
    """Where systemd keeps track of processes."""
    if (_GROUPS / "cgroup.procs").exists():
        return [_GROUPS]
    return [each for each in (_GROUPS / "systemd", _GROUPS / "unified") if (each / "cgroup.procs").exists()]


@contextmanager
def _own_group() -> Iterator[str]:
    """The name of a control group that exists in each hierarchy until the block ends."""
    name = f"vaultd-test-{secrets.token_hex(4)}"
    made = [each / name for each in _hierarchies()]
    if not made:
        raise OSError("there is no control group file system")
    try:
        for each in made:
            each.mkdir()
        yield name
    finally:
        for each in made:
            for inner in sorted(each.rglob("*"), reverse=True):
                if inner.is_dir():
                    with suppress(OSError):
                        inner.rmdir()
            with suppress(OSError):
                each.rmdir()


@dataclass(frozen=True)
class Manager:
    """A systemd that knows no units but those of a directory."""

    environment: dict[str, str]
    log: Path
    #: Put before a command: in the manager's mounts, as its user.
    inside: tuple[str, ...] = ()

    @classmethod
    @contextmanager
    def running(
        cls, units: Path, runtime: Path, *, user: str = "", environment: Mapping[str, str] | None = None
    ) -> Iterator[Manager]:
        """`user`: without any privilege, as a real one is; its home is to be its own already.

        Raises OSError where it may not be tried, AssertionError with its log where it does not come up.
        """
        runtime.mkdir(mode=0o700)
        targets = runtime / "targets"
        targets.mkdir()
        for name in _NEEDED:
            (targets / name).symlink_to(_STOCK / name)
        (targets / "default.target").write_text("[Unit]\nDescription=Nothing but what a test starts\n")
        given = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(runtime),
            "XDG_RUNTIME_DIR": str(runtime),
            "SYSTEMD_UNIT_PATH": f"{units}:{targets}",
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path={runtime}/bus",
            **(environment or {}),
        }
        log = runtime / "log"
        with _own_group() as group, log.open("w") as out:
            if user:
                _give(user, runtime, *(each / group for each in _hierarchies()))
            joined = [str(each / group / "cgroup.procs") for each in _hierarchies()]
            join = "for file in " + " ".join(joined) + '; do echo $$ > "$file"; done; exec unshare -m sh -c "$0" - "$@"'
            command = ["sh", "-ec", join, _BECOME.replace("@OPEN@", _opening() if user else ""), group, *_as(user)]
            with subprocess.Popen(command, env=given, stdout=out, stderr=out, text=True) as process:
                inside = ("nsenter", f"--mount=/proc/{process.pid}/ns/mnt", *_as(user)) if user else ()
                made = cls(given, log, inside)
                try:
                    until(lambda: process.poll() is not None or made.answers(), "systemd --user", seconds=10)
                    assert process.poll() is None, made.log.read_text()
                    yield made
                finally:
                    stop(process)

    def answers(self) -> bool:
        """It listens before it is able to answer."""
        return self.ctl("show", "--property=Version").status == 0

    def ctl(self, *words: str) -> Ran:
        done = subprocess.run(
            [*self.inside, "systemctl", "--user", *words],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)


def _as(user: str) -> tuple[str, ...]:
    if not user:
        return ()
    uid, gid = pwd.getpwnam(user)[2:4]
    return ("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--inh-caps=-all", "--")


def _give(user: str, *directories: Path) -> None:
    uid, gid = pwd.getpwnam(user)[2:4]
    for directory in directories:
        for each in (directory, *(found for found in directory.rglob("*") if not found.is_symlink())):
            os.chown(each, uid, gid)


def _opening() -> str:
    """Python and this tree may be below a directory that only root may pass."""
    wanted = dict.fromkeys(Path(each) for each in (sys.base_prefix, sys.prefix, str(ROOT)))
    shut = {each: _shut(each) for each in wanted}
    lines = []
    for top in dict.fromkeys(each for each in shut.values() if each is not None):
        below = [shlex.quote(str(each)) for each, found in shut.items() if found == top]
        lines.append(_OPEN.replace("@SHUT@", shlex.quote(str(top))).replace("@BELOW@", " ".join(below)))
    return "".join(lines)


def _shut(path: Path) -> Path | None:
    """The outermost directory above `path` that others may not pass."""
    return next((each for each in reversed(path.parents) if not each.stat().st_mode & 0o001), None)


def groups() -> dict[str, str]:
    """Where pid 1 and this process are: nobody may be moved by a test."""
    return {pid: Path(f"/proc/{pid}/cgroup").read_text() for pid in ("1", str(os.getpid()))}
