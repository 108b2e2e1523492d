"""Rotations that are killed: real processes, SIGKILL at each step and within each call to AWS, then gone on with.

`python -m tests.process.rotations` prints the table: both keys at AWS after the kill, what the daemon says, the end.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from tests.process.harness import Emulator, Home, alive, short_directory, until
from vault_client.errors import Stop

ROUTE = "/v1/identities/identity/rotate"
#: The old key is deleted at once, so that its end is met, too.
AT_ONCE = {"grace_seconds": 0}
Who = Literal["daemon", "keeper"]


@dataclass(frozen=True)
class Point:
    """After `steps` steps; or within the next one's call `op`, before AWS has done it or after."""

    steps: int
    op: str = ""
    when: str = ""

    @property
    def name(self) -> str:
        return f"{self.when} {self.op}" if self.op else f"after {self.steps} steps ({DONE[self.steps]})"


#: What was done last after so many steps.
DONE = ("nothing", "intent", "pending", "tried", "tried", "tried", "swapped", "inactive")
WITHIN = ((0, "ListAccessKeys"), (1, "CreateAccessKey"), (2, "GetCallerIdentity"), (6, "UpdateAccessKey"),
          (7, "DeleteAccessKey"))  # fmt: skip
POINTS = (
    *(Point(steps) for steps in range(len(DONE))),
    *(Point(steps, op, when) for steps, op in WITHIN for when in ("before", "after")),
)


@dataclass
class Row:
    """What was seen. Keys are told as `old` and `new`, `lost` for one whose secret nobody got."""

    point: Point
    who: Who
    killed: dict[str, str]
    stage: str
    said: str
    end: dict[str, str]

    def line(self) -> str:
        def told(keys: dict[str, str]) -> str:
            return ", ".join(f"{name} {status}" for name, status in keys.items())

        seen = f"{self.who:<7} {self.point.name:<27} {told(self.killed):<27} {self.stage:<9}"
        return f"{seen} {self.said:<28} {told(self.end)}"


def rotated(home: Home, emulator: Emulator, point: Point, who: Who) -> Row:
    """One rotation in a home with a running daemon: up to the point, killed, and on to the end."""
    old, _ = emulator.key()
    assert home.client("mfa", "identity", "--token-code", emulator.code()).status == 0
    for done in DONE[1 : point.steps + 1]:
        assert home.link("POST", ROUTE, AT_ONCE)["did"] == done
    if point.op:
        _within(home, emulator, point, who)
    else:
        _kill(home, who)
    killed = keys(emulator, old)
    if who == "daemon":
        started = home.run("vaultd", "start")
        assert started.status == 0, started
    until(lambda: not home.link("GET", "/v1/status")["locked"], "the store is open again")
    (identity,) = home.link("GET", "/v1/identities")["identities"]
    stage = identity["rotation"]["stage"] if identity["rotation"] else "none"
    assert home.client("export", "web-admin").status == 0, "credentials are served at any point"
    said = _go_on(home, emulator)
    return Row(point, who, killed, stage, said, keys(emulator, old))


def _within(home: Home, emulator: Emulator, point: Point, who: Who) -> None:
    """The kill comes while AWS has the call, and has done it or not."""
    before = emulator.count(point.op)
    emulator.fault("hang", op=point.op, when=point.when)
    asking = threading.Thread(target=_step, args=(home,))
    asking.start()
    until(lambda: emulator.count(point.op) > before, f"{point.op} is under way")
    _kill(home, who)
    asking.join()


def _step(home: Home) -> None:
    with suppress(Stop):
        home.link("POST", ROUTE, AT_ONCE)


def _kill(home: Home, who: Who) -> None:
    if who == "daemon":
        home.kill()
        return
    pid = home.link("GET", "/v1/status")["keeper_pid"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid), f"keeper {pid} is gone")
    until(lambda: home.link("GET", "/v1/status")["keeper_pid"] not in {pid, None}, "another keeper is there")


def _go_on(home: Home, emulator: Emulator) -> str:
    """`rotate` again; a key whose secret nobody got is deleted when asked, and the rotation begun anew."""
    ran = home.client("rotate", "identity", "--grace", "0s")
    if ran.status == 1 and "nobody has that" in ran.err:
        assert emulator.count("DeleteAccessKey") == 0, "never unasked"
        assert home.client("rotate", "identity", "--abandon").status == 0
        again = home.client("rotate", "identity", "--grace", "0s")
        assert again.status == 0, again
        return "named, --abandon, anew"
    assert ran.status == 0, ran
    return "gone on"


def keys(emulator: Emulator, old: str) -> dict[str, str]:
    """AWS's keys, the old one and any other."""
    found: dict[str, Any] = emulator.ctl("keys")["keys"]
    return {"old" if key == old else "new": str(status) for key, status in found.items()}


def table(rows: Sequence[Row]) -> str:
    head = (
        f"{'killed':<7} {'when':<27} {'both keys at AWS then':<27} {'stage':<9} {'with `rotate` again':<28} at the end"
    )
    return "\n".join((head, *(row.line() for row in rows)))


def main() -> int:
    rows = []
    with Emulator.running() as emulator:
        for who in ("daemon", "keeper"):
            for point in POINTS:
                emulator.ctl("reset", {})
                with short_directory() as directory, Home.make(directory, emulator).daemon() as home:
                    assert home.add(emulator).status == 0
                    rows.append(rotated(home, emulator, point, who))
                    print(rows[-1].line(), flush=True)
    print("\n" + table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
