"""RemoteKeeper: the keeper's seams and `Outlook` over a socketpair, and the life of the process behind it.

Rules (architecture.md §3, §6.6, §7)
- A call has a deadline; a keeper that passes one is hung and is killed. A cancelled call is cancelled below.
- A dead keeper is started again at once. What was under way ends in KeeperEnded, and a code in it counts as sent; what
  may be said twice without harm (open, note, close) is said again to the new one; an open not after a lock, which the
  new one would undo: it knows of it by the marker only, and an `unlock` takes that away.
- Until the new one was opened again as far as it goes without a person, calls wait for that (`watch`), 10 s at most.
- `close` is sent in the turn in which it is called, and whatever lands after it is Locked, whoever was quicker.
- A keeper that dies five times in a minute is lost: every call says so, and `watch` ends the daemon.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal, Protocol

from vaultd.engine.seams import (
    ForeignStore,
    Head,
    Minted,
    MintMfa,
    MintRole,
    MintServed,
    Note,
    Offer,
    Opened,
    Residence,
    Rotated,
    SignedIn,
    SignIn,
)
from vaultd.errors import KeeperEnded, Locked, Unwritable, VaultdError
from vaultd.keeper import wire
from vaultd.keeper.line import Line
from vaultd.model.credentials import Identity, IdentityKey, MfaHandle
from vaultd.model.partitions import Endpoint
from vaultd.model.rotation import Wish
from vaultd.model.secret import Secret

#: Seconds after which a keeper that has not answered is hung. Above what each call allows itself: a keyring has 30 s a
#: call and an open makes three; AWS has 10 s a call, and `add` makes two of those and two of the keyring's. A step of a
#: rotation makes four and four and waits for another terminal's first: ended in between, it would cost the key.
DEADLINES = {
    "open": 150.0, "mint": 60.0, "note": 20.0, "close": 5.0, "warm": 90.0, "keyring": 60.0, "rotate": 400.0,
    "adopt": 200.0, "discard": 200.0, "offers": 200.0,
}  # fmt: skip
DEADLINE = 120.0
#: How long a call waits for a keeper that was started again.
REOPEN_SECONDS = 10.0
#: Of a process that says nothing at all, once somebody had given up on it.
HUNG_SECONDS = 20.0
#: How long a keeper that was let go may take to end; and, on the loop, one whose end of the line is closed already.
END_SECONDS, DYING_SECONDS = 3.0, 0.2
#: So many deaths within so long a time are no accident.
DEATHS, DEATHS_SECONDS = 5, 60.0

_LOCKED = "vaultd is locked; run `vault-client unlock`"
_LOST = f"vaultd's keeper process ended {DEATHS} times within a minute"

log = logging.getLogger(__name__)


class Child(Protocol):
    """A keeper process that was just started, with the daemon's end of the socketpair to it."""

    @property
    def sock(self) -> socket.socket:
        """Its first frame was sent already."""

    @property
    def pid(self) -> int:
        """Of the process."""

    def kill(self) -> None:
        """SIGKILL."""

    def end(self, *, patience: float) -> str:
        """Wait so many seconds for its end, then kill it; how it ended, in words (`killed by SIGKILL`)."""


@dataclass(slots=True)
class _Call:
    name: str
    code: bool
    landed: asyncio.Future[wire.Message]


class RemoteKeeper:
    """`spawn` starts a keeper process; the first is started by the constructor, before there is a loop.

    `say` takes what the keeper logs.
    """

    def __init__(self, spawn: Callable[[], Child], *, say: Callable[[wire.Said], None]) -> None:
        self._spawn = spawn
        self._say = say
        self._child: Child | None = spawn()
        self._line: Line | None = None
        self._calls: dict[int, _Call] = {}
        self._numbers = itertools.count(1)
        self._state = wire.State()
        self._closes = 0
        self._was_open = False
        self._ending = False
        self._died: deque[float] = deque(maxlen=DEATHS)
        self._deaths: list[str] = []
        self._news: asyncio.Future[None] | None = None
        self._reopening: asyncio.Future[None] | None = None
        self._lost: VaultdError | None = None
        self._proving = False
        self._hello: wire.Hello | None = None
        self._restarts = 0

    @property
    def pid(self) -> int | None:
        """Of the process that is there now."""
        return None if self._child is None else self._child.pid

    @property
    def expects(self) -> Literal["keyring", "file"]:
        """As DaemonKeeper's."""
        return self._state.expects

    # ---- Keeper ----

    async def open(
        self, *, passphrase: Secret | None = None, unlock: bool = False, accept_rollback: bool = False
    ) -> Opened:
        """See the seam. What was opened before a lock that came meanwhile is locked."""
        closes = self._closes
        given = {"passphrase": passphrase, "unlock": unlock, "accept_rollback": accept_rollback}
        opened: Opened | None = await self._again("open", given, while_=lambda: closes == self._closes)
        if opened is None or closes != self._closes:
            return Opened(self._closes, self.expects, locked=True, reason=_LOCKED)
        self._was_open = not opened.locked
        if self._was_open:
            self._settle()
        return replace(opened, epoch=self._closes)

    async def mint(self, order: MintMfa | MintRole | MintServed) -> Minted:
        """See the seam."""
        closes = self._closes
        code = not isinstance(order, MintServed) and order.token_code is not None
        try:
            minted: Minted = await self._call("mint", {"order": order}, code=code)
        except VaultdError as exc:
            if closes != self._closes and not isinstance(exc, Locked):
                raise Locked(_LOCKED) from exc
            raise
        if closes != self._closes:
            raise Locked(_LOCKED)
        return minted

    async def note(self, note: Note) -> None:
        """See the seam."""
        await self._again("note", {"note": note})

    async def close(self, head: Head | None, *, lock: bool = True) -> int:
        """See the seam. A keeper that died of it has forgotten everything, too; only the marker needs another one."""
        self._closes += 1
        self._was_open = False
        given = {"head": head, "lock": lock}
        try:
            await (self._again("close", given) if lock else self._call("close", given))
        except VaultdError as exc:
            if not isinstance(exc, KeeperEnded) and self._lost is None:
                raise
            if lock:
                raise Unwritable(
                    "vaultd is locked, but its keeper ended before it could write that down, and a restart may open "
                    "the store again: type `vault-client lock` again."
                ) from exc
        return self._closes

    # ---- Custody ----

    def list(self) -> tuple[Identity, ...]:
        """The index as the keeper told it last."""
        return self._state.identities

    async def add(
        self, key: IdentityKey, *, endpoint: Endpoint, mfa_serial: str | None = None, replace: bool = False
    ) -> Identity:
        """See the seam."""
        given = {"key": key, "endpoint": endpoint, "mfa_serial": mfa_serial, "replace": replace}
        identity: Identity = await self._call("add", given)
        return identity

    async def remove(self, name: str) -> None:
        """See the seam."""
        await self._call("remove", {"name": name})

    async def probe(self, name: str, *, endpoint: Endpoint) -> str:
        """See the seam."""
        arn: str = await self._call("probe", {"name": name, "endpoint": endpoint})
        return arn

    async def detect(self, name: str, *, endpoint: Endpoint) -> Sequence[str]:
        """See the seam."""
        found: Sequence[str] = await self._call("detect", {"name": name, "endpoint": endpoint})
        return found

    async def rotate(
        self, name: str, *, endpoint: Endpoint, handle: MfaHandle | None, wish: Wish, grace: timedelta | None
    ) -> Rotated:
        """See the seam. Not said again to a new keeper: what became of a step under way is its successor's to find."""
        given = {"name": name, "endpoint": endpoint, "handle": handle, "wish": wish, "grace": grace}
        rotated: Rotated = await self._call("rotate", given)
        return rotated

    async def date(self, name: str, *, endpoint: Endpoint, handle: MfaHandle | None) -> Identity:
        """See the seam."""
        identity: Identity = await self._call("date", {"name": name, "endpoint": endpoint, "handle": handle})
        return identity

    # ---- Importer ----

    async def offers(
        self, source: ForeignStore, *, passphrase: Secret | None, names: tuple[str, ...]
    ) -> tuple[Offer, ...]:
        """See the seam."""
        found: tuple[Offer, ...] = await self._call(
            "offers", {"source": source, "passphrase": passphrase, "names": names}
        )
        return found

    async def adopt(
        self, source: ForeignStore, name: str, *, passphrase: Secret | None, endpoint: Endpoint, mfa_serial: str | None
    ) -> Identity:
        """See the seam."""
        given = {"passphrase": passphrase, "endpoint": endpoint, "mfa_serial": mfa_serial}
        identity: Identity = await self._call("adopt", {"source": source, "name": name, **given})
        return identity

    async def discard(self, source: ForeignStore, name: str, *, passphrase: Secret | None) -> None:
        """See the seam."""
        await self._call("discard", {"source": source, "name": name, "passphrase": passphrase})

    async def holds(self, key: IdentityKey) -> bool:
        """See the seam."""
        held: bool = await self._call("holds", {"key": key})
        return held

    # ---- Outlook ----

    def residence(self) -> Residence:
        """See the seam. One that has not greeted yet is not hardened yet, either, and holds nothing."""
        hello = self._hello
        if hello is None:
            return Residence(self.pid, apart=True, dumpable=False, restarts=self._restarts)
        return Residence(self.pid, True, hello.dumpable, self._restarts, hello.warnings)

    def skew(self) -> float | None:
        """As the keeper told it last."""
        return self._state.skew

    async def warm(self) -> None:
        """See the seam."""
        await self._call("warm", {})

    async def keyring(self) -> str | None:
        """See the seam."""
        found: str | None = await self._call("keyring", {})
        return found

    # ---- Console ----

    async def url(self, order: SignIn) -> SignedIn:
        """See the seam."""
        signed: SignedIn = await self._call("url", {"order": order})
        return signed

    # ---- life ----

    async def watch(self, reopen: Callable[[str], Awaitable[None]]) -> None:
        """For ever: `reopen` after each death, told how it died. Raises once the keeper is lost."""
        while True:
            if self._lost is not None:
                raise self._lost
            if not self._deaths:
                self._news = asyncio.get_running_loop().create_future()
                await self._news
                continue
            said = "; ".join(self._deaths)
            self._deaths.clear()
            try:
                await reopen(said)
            finally:
                if not self._deaths:
                    self._settle()

    async def end(self) -> None:
        """The process ends: by the end of the socketpair, and by force where that does not do."""
        self._ending = True
        child, self._child = self._child, None
        if self._line is not None:
            self._line.close()
        self._fail(KeeperEnded("vaultd stops: type `vaultd start`"))
        if child is not None:
            child.sock.close()
            said = await asyncio.to_thread(child.end, patience=END_SECONDS)
            log.info("end keeper pid=%d how=%r", child.pid, said)

    # ---- calls ----

    async def _again(self, name: str, given: Mapping[str, object], *, while_: Callable[[], bool] = lambda: True) -> Any:
        """A call that does no harm twice: said to each keeper until one has heard it, or None once not `while_`."""
        while while_():
            try:
                return await self._call(name, given)
            except KeeperEnded:
                if self._ending or self._lost is not None:
                    raise
        return None

    async def _call(self, name: str, given: Mapping[str, object], *, code: bool = False) -> Any:
        if name not in {"open", "close"}:
            await self._reopened()
        if self._lost is not None:
            raise _copy(self._lost)
        if self._child is None:
            raise KeeperEnded("vaultd stops: type `vaultd start`", code_sent=False)
        number, line = next(self._numbers), self._attached(self._child)
        landed: asyncio.Future[wire.Message] = asyncio.get_running_loop().create_future()
        self._calls[number] = _Call(name, code, landed)
        line.send(wire.call(number, name, given))
        try:
            await asyncio.wait({landed}, timeout=DEADLINES.get(name, DEADLINE))
        except asyncio.CancelledError:
            line.send({"cancel": number})
            self._prove_life()
            raise
        finally:
            self._calls.pop(number, None)
        if not landed.done():
            self._hung(name)
            raise _ended(f"did not answer in {DEADLINES.get(name, DEADLINE):.0f} s and was ended", code=code)
        try:
            return wire.result_of(name, landed.result())
        except wire.Malformed as exc:
            self._hung(name)
            raise _ended("talked nonsense and was ended", code=code) from exc

    async def _reopened(self) -> None:
        """While a new keeper is being opened: wait for it."""
        if self._reopening is not None:
            done, _ = await asyncio.wait({self._reopening}, timeout=REOPEN_SECONDS)
            if not done:
                raise _ended("was started again, and its store is not open yet", code=False)

    def _settle(self) -> None:
        reopening, self._reopening = self._reopening, None
        if reopening is not None and not reopening.done():
            reopening.set_result(None)

    def _prove_life(self) -> None:
        """Whoever gave up may have waited for a process that hangs, and the deadline of his call went with him."""
        child, line = self._child, self._line
        if child is None or line is None or self._proving:
            return
        self._proving = True
        line.send({"ping": True})
        asyncio.get_running_loop().call_later(HUNG_SECONDS, self._proved, child)

    def _proved(self, child: Child) -> None:
        if self._proving and child is self._child:
            self._hung("ping")
        self._proving = False

    def _hung(self, name: str) -> None:
        """Or worse: it is of no use any more, and its end brings another one."""
        log.error("kill keeper pid=%s call=%s", self.pid, name)
        if self._child is not None:
            self._child.kill()

    # ---- what comes up ----

    def _attached(self, child: Child) -> Line:
        if self._line is None:
            self._line = Line(child.sock, take=self._take, gone=self._gone)
        return self._line

    def _take(self, message: wire.Message) -> None:
        self._proving = False
        if "id" in message:
            number = message["id"]
            found = self._calls.get(number) if isinstance(number, int) else None
            if found is not None and not found.landed.done():
                found.landed.set_result(message)
        elif "state" in message:
            self._state = wire.unpacked(wire.State, message["state"])
        elif "said" in message:
            self._say(wire.unpacked(wire.Said, message["said"]))
        elif "pong" not in message:
            self._greeted(wire.unpacked(wire.Hello, message.get("hello")))

    def _greeted(self, hello: wire.Hello) -> None:
        self._hello = hello
        if hello.refused:
            self._lose(hello.refused)
            return
        log.info("start keeper pid=%d dumpable=%s", hello.pid, hello.dumpable)

    def _gone(self, nonsense: bool) -> None:
        """The other end is closed, or talks nonsense: that one is over."""
        child, self._child, self._line = self._child, None, None
        if child is None or self._ending:
            return
        if nonsense:
            child.kill()
        said = child.end(patience=DYING_SECONDS)
        said = f"talking nonsense and was {said}" if nonsense else said
        log.error("die keeper pid=%d how=%r calls=%d", child.pid, said, len(self._calls))
        if self._lost is None and not self._replaced(said):
            self._lose(f"{_LOST}, at last {said}: type `vaultd logs`, then `vaultd start`")
        self._fail(self._lost or _ended(f"was {said}, and another one has been started", code=False))
        self._deaths.append(said)
        self._told()

    def _replaced(self, said: str) -> bool:
        """A new one in its place, unless too many have died."""
        now = time.monotonic()
        self._died.append(now)
        if len(self._died) == DEATHS and now - self._died[0] < DEATHS_SECONDS:
            return False
        try:
            self._child = self._spawn()
        except OSError as exc:
            self._lose(f"vaultd's keeper was {said}, and none can be started ({exc.strerror}): type `vaultd restart`")
            return True
        self._restarts += 1
        self._hello = None
        if self._was_open and self._reopening is None:
            self._reopening = asyncio.get_running_loop().create_future()
        self._attached(self._child)
        return True

    def _fail(self, error: VaultdError) -> None:
        """Whoever waits is told; a code that was handed down counts as sent."""
        for each in self._calls.values():
            if not each.landed.done():
                told = _copy(error)
                told.details |= {"code_sent": each.code}
                each.landed.set_result({"error": wire.packed_error(told)})

    def _lose(self, why: str) -> None:
        self._lost = VaultdError(why)
        self._settle()
        self._told()

    def _told(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


def _ended(how: str, *, code: bool) -> KeeperEnded:
    return KeeperEnded(f"vaultd's keeper process {how}: try again, or type `vaultd logs`", code_sent=code)


def _copy(error: VaultdError) -> VaultdError:
    return type(error)(error.message, **error.details)
