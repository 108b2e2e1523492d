"""A keeper behind the wire, on one loop: RemoteKeeper, a real socketpair, and what a keeper process runs at its end.

Rule: everything but the process is the product's own; `Wired.die` is the SIGKILL that a process would get.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Callable

from vaultd import __version__
from vaultd.engine.seams import Residence, SignedIn, SignIn
from vaultd.errors import StsUnavailable, VaultdError
from vaultd.keeper import wire
from vaultd.keeper.line import Line
from vaultd.keeper.process import Outside, Served, Whole
from vaultd.keeper.remote import RemoteKeeper

_PIDS = itertools.count(100_000)


class NoOutlook:
    """Nothing is known of the outside."""

    def __init__(self) -> None:
        self.skewed: float | None = None
        self.warmed = 0

    def residence(self) -> Residence:
        return Residence(os.getpid(), apart=False, dumpable=True)

    def skew(self) -> float | None:
        return self.skewed

    async def warm(self) -> None:
        self.warmed += 1

    async def keyring(self) -> str | None:
        return "secret-service"

    async def url(self, order: SignIn) -> SignedIn:
        raise StsUnavailable("AWS is not there: try again.")


class WiredChild:
    """The keeper's end, with what `keeper` is at its start. `deaf`: a process that hangs."""

    def __init__(self, keeper: Whole, outlook: Outside) -> None:
        self._ours, self._theirs = socket.socketpair()
        self.pid = next(_PIDS)
        self.how = "killed by SIGKILL"
        self.kills = 0
        self.deaf = False
        self._served = Served(keeper, outlook)
        self._line: Line | None = None

    @property
    def sock(self) -> socket.socket:
        """Asked for on the loop, and the keeper is there from then on: a rig is made before there is one."""
        _ = self.line
        return self._ours

    @property
    def line(self) -> Line:
        if self._line is None:
            self._line = self._served.line = Line(self._theirs, take=self._take, gone=lambda _: None)
            self.say({"hello": wire.packed(wire.Hello(self.pid, dumpable=False))})
        return self._line

    def _take(self, message: wire.Message) -> None:
        if not self.deaf:
            self._served.take(message)

    def say(self, message: wire.Message) -> None:
        self.line.send(message)

    def nonsense(self) -> None:
        """Bytes that are no frame."""
        self._theirs.send(b"\xff" * 64)

    def kill(self) -> None:
        self.kills += 1
        for task in self._served._tasks.values():
            task.cancel()
        self.line.close()

    def end(self, *, patience: float) -> str:
        self.kill()
        return self.how


class Wired:
    """Makes RemoteKeepers; `die` kills the process of the last one made, `close` is for the end of a test."""

    def __init__(self, outlook: Outside | None = None) -> None:
        self.outlook = outlook or NoOutlook()
        self.children: list[WiredChild] = []
        self.said: list[wire.Said] = []
        self.fails: OSError | None = None
        self._keepers: list[RemoteKeeper] = []

    def remote(self, make: Callable[[], Whole]) -> RemoteKeeper:
        """`make` gives the keeper of each process, the first at once."""

        def spawn() -> WiredChild:
            if self.fails is not None:
                raise self.fails
            self.children.append(WiredChild(make(), self.outlook))
            return self.children[-1]

        self._keepers.append(RemoteKeeper(spawn, say=self.said.append))
        return self._keepers[-1]

    @property
    def child(self) -> WiredChild:
        return self.children[-1]

    def die(self, how: str = "killed by SIGKILL") -> None:
        self.child.how = how
        self.child.kill()

    async def close(self) -> None:
        for keeper in self._keepers:
            await keeper.end()
        for child in self.children:
            child.kill()


def errors() -> list[type[VaultdError]]:
    """Every class of the tree."""

    def below(kind: type[VaultdError]) -> list[type[VaultdError]]:
        return [kind, *(each for child in kind.__subclasses__() for each in below(child))]

    return sorted(set(below(VaultdError)), key=lambda each: each.__name__)


def setup() -> wire.Setup:
    """What a process is told first."""
    return wire.Setup(
        version=__version__,
        directories=("/c", "/r", "/s", "/d"),
        backend="auto",
        persist=True,
        log_level=20,
        https_proxy="http://franklin:proxy-canary@proxy.example:3128",
    )
