"""RemoteKeeper: the keeper's seams and `Outlook` over a socketpair.

Rules (architecture.md §3, §6.6, §7)
- A call has a deadline; a keeper that passes one is hung and is killed. A cancelled call is cancelled below.
- What was under way when a keeper dies ends in KeeperEnded. What may be said twice without harm (open, note, close) is
  said again to the new one (life.py); an open not after a lock, which the new one would undo: it knows of it by the
  marker only, and an `unlock` takes that away.
- `close` is sent in the turn in which it is called, and whatever lands after it is Locked, whoever was quicker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

from vaultd.engine.seams import (
    ForeignStore,
    Head,
    Kin,
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
from vaultd.keeper.calls import Calls, ended
from vaultd.keeper.life import Child, Life
from vaultd.model.credentials import Identity, IdentityKey, MfaHandle
from vaultd.model.partitions import Endpoint
from vaultd.model.rotation import Wish
from vaultd.model.secret import Secret

#: Seconds after which a keeper that has not answered is hung. Above what each call allows itself: a keyring has 30 s a
#: call and an open makes three; AWS has 10 s a call, and `add` makes four of those and six of the keyring's, over a
#: rotation that cannot be ended. A step of a rotation makes four and four and waits for another terminal's first: ended
#: in between, it would cost the key.
DEADLINES = {
    "open": 150.0, "mint": 60.0, "note": 20.0, "close": 5.0, "warm": 90.0, "keyring": 60.0, "rotate": 400.0,
    "add": 250.0, "adopt": 200.0, "discard": 200.0, "offers": 200.0,
}  # fmt: skip
DEADLINE = 120.0
_LOCKED = "vaultd is locked; run `vault-client unlock`"

log = logging.getLogger(__name__)


class RemoteKeeper:
    """`spawn` starts a keeper process; the first is started by the constructor, before there is a loop.

    `say` takes what the keeper logs.
    """

    def __init__(self, spawn: Callable[[], Child], *, say: Callable[[wire.Said], None]) -> None:
        self._say = say
        self._calls = Calls()
        self._life = Life(spawn, calls=self._calls, take=self._take)
        self._state = wire.State()
        self._closes = 0

    @property
    def pid(self) -> int | None:
        """Of the process that is there now."""
        return self._life.pid

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
        if opened.locked:
            self._life.was_closed()
        else:
            self._life.was_opened()
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
        self._life.was_closed()
        given = {"head": head, "lock": lock}
        try:
            await (self._again("close", given) if lock else self._call("close", given))
        except VaultdError as exc:
            if not isinstance(exc, KeeperEnded) and not self._life.lost:
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

    async def kin(self, key: IdentityKey) -> Kin:
        """See the seam."""
        found: Kin = await self._call("kin", {"key": key})
        return found

    # ---- Outlook ----

    def residence(self) -> Residence:
        """See the seam. One that has not greeted yet is not hardened yet, either, and holds nothing."""
        hello = self._life.hello
        if hello is None:
            return Residence(self.pid, apart=True, dumpable=False, restarts=self._life.restarts)
        return Residence(self.pid, True, hello.dumpable, self._life.restarts, hello.warnings)

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
        """As Life's."""
        await self._life.watch(reopen)

    async def end(self) -> None:
        """As Life's."""
        await self._life.end()

    # ---- calls ----

    async def _again(self, name: str, given: Mapping[str, object], *, while_: Callable[[], bool] = lambda: True) -> Any:
        """A call that does no harm twice: said to each keeper until one has heard it, or None once not `while_`."""
        while while_():
            try:
                return await self._call(name, given)
            except KeeperEnded:
                if self._life.over:
                    raise
        return None

    async def _call(self, name: str, given: Mapping[str, object], *, code: bool = False) -> Any:
        if name not in {"open", "close"}:
            await self._life.reopened()
        line = self._life.line()
        number, landed = self._calls.begin(code=code)
        line.send(wire.call(number, name, given))
        try:
            await asyncio.wait({landed}, timeout=DEADLINES.get(name, DEADLINE))
        except asyncio.CancelledError:
            line.send({"cancel": number})
            self._life.prove_life()
            raise
        finally:
            self._calls.end(number)
        if not landed.done():
            self._life.hung(name)
            raise ended(f"did not answer in {DEADLINES.get(name, DEADLINE):.0f} s and was ended", code=code)
        try:
            return wire.result_of(name, landed.result())
        except wire.Malformed as exc:
            self._life.hung(name)
            raise ended("talked nonsense and was ended", code=code) from exc

    def _take(self, message: wire.Message) -> None:
        if "id" in message:
            self._calls.land(message)
        elif "state" in message:
            self._state = wire.unpacked(wire.State, message["state"])
        else:
            self._say(wire.unpacked(wire.Said, message.get("said")))
