"""A real `systemd --user` for the units, with the machine's own /run/systemd and control groups left alone.

Rule: a systemd whose control group is the root takes every process of the machine into its init.scope. So it is started
in a group of its own, looked at before it becomes systemd, and sees no other hierarchy; the group goes with it.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.process.harness import Ran, stop, until

SYSTEMD = Path("/lib/systemd/systemd")
_GROUPS = Path("/sys/fs/cgroup")
#: Without these a manager ends at once, or does not know how to end; none of the machine's own user units.
_STOCK = Path("/usr/lib/systemd/user")
_NEEDED = ("basic.target", "sockets.target", "paths.target", "timers.target", "shutdown.target", "exit.target",
           "systemd-exit.service")  # fmt: skip

#: $1: the name of the group. The hierarchies of controllers are taken out of sight: only processes are tracked.
_BECOME = """
set -eu
mount -t tmpfs tmpfs /run/systemd
mkdir /run/systemd/system
for each in /sys/fs/cgroup/*; do
  case $each in */systemd | */unified) continue ;; esac
  ! mountpoint -q "$each" || umount -l "$each"
done
for line in $(grep -E '^[0-9]+:(name=systemd)?:' /proc/self/cgroup); do
  case $line in *:/"$1") ;; *) echo "not in a group of its own: $line" >&2; exit 1 ;; esac
done
exec /lib/systemd/systemd --user --log-target=console
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

    @classmethod
    @contextmanager
    def running(cls, units: Path, runtime: Path) -> Iterator[Manager]:
        """Raises OSError where it may not be tried, AssertionError with its log where it does not come up."""
        runtime.mkdir(mode=0o700)
        targets = runtime / "targets"
        targets.mkdir()
        for name in _NEEDED:
            (targets / name).symlink_to(_STOCK / name)
        (targets / "default.target").write_text("[Unit]\nDescription=Nothing but what a test starts\n")
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(runtime),
            "XDG_RUNTIME_DIR": str(runtime),
            "SYSTEMD_UNIT_PATH": f"{units}:{targets}",
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path={runtime}/bus",
        }
        made = cls(environment, runtime / "log")
        with _own_group() as group, made.log.open("w") as log:
            joined = [str(each / group / "cgroup.procs") for each in _hierarchies()]
            join = "for file in " + " ".join(joined) + '; do echo $$ > "$file"; done; exec unshare -m sh -c "$0" - "$1"'
            command = ["sh", "-ec", join, _BECOME, group]
            with subprocess.Popen(command, env=environment, stdout=log, stderr=log, text=True) as process:
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
            ["systemctl", "--user", *words], env=self.environment, capture_output=True, text=True, check=False
        )
        return Ran(done.returncode, done.stdout, done.stderr)


def groups() -> dict[str, str]:
    """Where pid 1 and this process are: nobody may be moved by a test."""
    return {pid: Path(f"/proc/{pid}/cgroup").read_text() for pid in ("1", str(os.getpid()))}
