"""Whether the store is open: at start, by `unlock`, until `lock`; and what a person is told while it is not.

Rules
- A keyring that does not answer holds nobody up: after 3 s the daemon serves, locked, and the opening goes on by
  itself. However late it ends, its error becomes the reason that `status` gives.
- What a person can mend by `unlock` leaves the daemon locked; damage ends a start, naming the file.
- A wrong passphrase costs 0.1 s more each time, up to 10 s, one attempt at a time; nothing is ever locked out for good
  (security.md §3.3: an offline copy would ignore that, and it is a way to deny service).
- A lock holds at once; where its marker cannot be written, so that a restart would open the store, the lock says so.
- A keeper whose process ended is opened again as a start would, without a person, when it was open; where that takes a
  person, what is at hand is served on and the daemon says so. One that a person had locked stays locked.
- A consent to an older store (`--accept-rollback`) holds until a store is open: the passphrase may come later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Literal, Protocol

from vaultd.engine.audit import Audit
from vaultd.engine.broker import Broker
from vaultd.engine.flights import within
from vaultd.engine.seams import Clock, Custody, Head, Keeper, Note, Opened
from vaultd.errors import (
    BadRequest,
    FileRefused,
    KeyringBusy,
    Locked,
    Misconfigured,
    StoreDamaged,
    StoreUnavailable,
    Unwritable,
    VaultdError,
    WrongPassphrase,
)
from vaultd.keeper import losses
from vaultd.keeper.opening import Kind
from vaultd.lifecycle.passphrase import PassphraseFile
from vaultd.model.credentials import Identity
from vaultd.model.peer import Peer
from vaultd.model.secret import Secret

#: A keyring that does not answer holds nobody up: past this the daemon serves, locked, and the opening goes on.
OPEN_SECONDS = 3.0
#: What each wrong passphrase adds to the wait for its answer, and the most that one waits (security.md §3.3).
WRONG_SECONDS, MOST_SECONDS = 0.1, 10.0
#: How long no code is taken where it is not known which were sent (keeper/codes.py), and how its warning says so.
MUTE_SECONDS, _MUTE = 30.0, "for the first 30 s"
#: How long a stop waits for an opening that it has cancelled.
CANCEL_SECONDS = 1.0

_OPENING = "the store is still being opened: unlock your keyring, or type `vault-client unlock`"
#: Why it was locked, as the audit line names it, and as a person is told.
LockReason = Literal["command", "idle", "suspend", "screen", "signal"]
_LOCKED: dict[LockReason, str] = {
    "command": "locked by `vault-client lock`: type `vault-client unlock`",
    "idle": "locked since nobody used it for as long as [store] lock_after_idle says: type `vault-client unlock`",
    "suspend": "locked because the machine slept ([store] lock_on_suspend): type `vault-client unlock`",
    "screen": "locked together with the screen ([store] lock_on_screen_lock): type `vault-client unlock`",
    "signal": "locked by SIGUSR1: type `vault-client unlock`",
}
_BROKE = "vaultd made an error while it opened the store: type `vaultd logs`, then `vault-client unlock`"

log = logging.getLogger(__name__)


class Openable(Keeper, Custody, Protocol):
    """DaemonKeeper, or RemoteKeeper."""

    @property
    def expects(self) -> Kind:
        """The kind of store that `open` tries first."""


class Unlocking:
    """`changed` is called when the identities may be others than before.

    `passphrase` is the one on file, for an `unlock` that brings none; `marked`: a person has locked it; `new_store`: an
    open would make the encrypted file.
    """

    def __init__(
        self,
        *,
        keeper: Openable,
        broker: Broker,
        audit: Audit,
        clock: Clock,
        passphrase: PassphraseFile,
        marked: Callable[[], bool],
        new_store: Callable[[], bool],
        changed: Callable[[], None],
    ) -> None:
        self._keeper = keeper
        self._broker = broker
        self._audit = audit
        self._clock = clock
        self._passphrase = passphrase
        self._marked = marked
        self._new_store = new_store
        self._changed = changed
        self._accept_rollback = False
        self._opening: asyncio.Task[None] | None = None
        self._trying: asyncio.Future[None] | None = None
        self._dropping: set[asyncio.Future[None]] = set()
        self._wrong = 0
        self._unsafe = ""
        self._confirmed = False
        self._sealed: Head | None = None
        self.audit_warnings: tuple[str, ...] = ()
        self._opened_with: tuple[str, ...] = ()
        self._keyless: tuple[Identity, ...] = ()
        self._opened_at = 0.0
        self.store: Kind = "keyring"
        self.reason = _OPENING
        #: Which lock it was, while one holds; "" for a store that was never open, and for a lock of before the start.
        self.locked_by: LockReason | Literal[""] = ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong with the store or the audit log, as far as it could be seen."""
        return (*self.audit_warnings, *self.store_warnings)

    @property
    def store_warnings(self) -> tuple[str, ...]:
        """Of the last open; what holds for its first 30 s is told no longer than that."""
        over = self._clock.boottime() - self._opened_at >= MUTE_SECONDS
        told = (each for each in self._opened_with if not (over and _MUTE in each))
        return (*(losses.of_key(name) for name in self.keyless), *told)

    @property
    def keyless(self) -> tuple[str, ...]:
        """The identities that are listed, and had no key in the store when it was opened, nor got one since."""
        listed = self._keeper.list() if self._keyless else ()
        return tuple(each.name for each in self._keyless if each in listed)

    # ---- at start ----

    async def begin(self, *, accept_rollback: bool, passphrase: Secret | None = None) -> None:
        """Open as far as it goes without a person, for at most 3 s; raises what ends the start. `passphrase` goes
        before the one on file.
        """
        self._accept_rollback = accept_rollback
        self._opening = opening = asyncio.ensure_future(self._open_alone(passphrase or self._on_file()))
        if await within(self._clock, {opening}, OPEN_SECONDS):
            _result_of(opening)
            return
        opening.add_done_callback(self._late)
        self.store = self._keeper.expects
        log.warning("wait store kind=%s", self.store)
        self._changed()

    async def _open_alone(self, passphrase: Secret | None) -> None:
        try:
            opened = await self._keeper.open(passphrase=passphrase, accept_rollback=self._accept_rollback)
        except (WrongPassphrase, StoreUnavailable, KeyringBusy, BadRequest) as exc:
            self.store = self._keeper.expects
            self.reason = self._named(exc).message
            log.warning("open store failed error=%s reason=%s", exc.kind, exc.message)
            self._changed()
            return
        await self._take(opened)
        if opened.locked and passphrase is None and not self.locked_by:
            self.reason = self._why_shut(opened)

    def _on_file(self) -> Secret | None:
        """The passphrase, unless others may read or write it: it is then not taken, and the store stays shut."""
        try:
            self._unsafe, found = "", self._passphrase.read()
        except (FileRefused, Misconfigured) as exc:
            log.warning("refuse passphrase-file reason=%s", exc.message)
            self._unsafe, found = exc.message, None
        return found

    def _why_shut(self, opened: Opened) -> str:
        """The reason, or what is wrong with the passphrase file where that is why."""
        if opened.store != "file" or self._marked():
            return opened.reason
        return self._unsafe or self._passphrase.missing(new=self._new_store()) or opened.reason

    def _named(self, exc: VaultdError) -> VaultdError:
        """Of a passphrase that came from the file: the error names it."""
        wrong = self._passphrase.wrong() if isinstance(exc, WrongPassphrase) else ""
        return WrongPassphrase(wrong) if wrong else exc

    def _late(self, opening: asyncio.Task[None]) -> None:
        """It was over after the start: damage then leaves the daemon locked, and says so."""
        if opening.cancelled() or (exc := opening.exception()) is None:
            return
        self.reason = exc.message if isinstance(exc, VaultdError) else _BROKE
        log.error("open store failed error=%s", type(exc).__name__, exc_info=exc)

    async def stop(self) -> None:
        """An opening that is still under way is given up."""
        if self._opening is not None and not self._opening.done():
            self._opening.cancel()
            await asyncio.wait({self._opening}, timeout=CANCEL_SECONDS)

    # ---- by a person ----

    async def unlock(self, passphrase: Secret | None, *, accept_rollback: bool, by: Peer | None) -> dict[str, bool]:
        """Open the store for a person who is there. What happened: `{"created": True}` for a store that was not there,
        `{"open": True}` for one that was open already, so that nobody takes the passphrase he gave for verified.
        """
        self._accept_rollback = self._accept_rollback or accept_rollback
        while self._trying is not None:
            await asyncio.wait({self._trying})
        if not self._person_needed():
            return {"open": True}
        new = self._new_store()
        self._trying = trying = asyncio.get_running_loop().create_future()
        try:
            await self._attempt(passphrase, by)
        finally:
            self._trying = None
            trying.set_result(None)
        return {"created": True} if new and self.store == "file" else {}

    async def _attempt(self, given: Secret | None, by: Peer | None) -> None:
        phrase = given or self._passphrase.read()
        try:
            opened = await self._keeper.open(passphrase=phrase, unlock=True, accept_rollback=self._accept_rollback)
        except VaultdError as exc:
            named = exc if given else self._named(exc)
            if not (given and isinstance(exc, WrongPassphrase)):  # a slip of the fingers is not why the store is shut
                self.reason = named.message
            await self._refused(named, by)
            raise named from exc
        if opened.locked:
            self.reason = opened.reason if phrase else self._why_shut(opened)
            raise Locked(self.reason)
        self._wrong = 0
        before = self.warnings
        await self._take(opened)
        said = [each for each in self.warnings if each not in before]
        self._audit.record("unlock", decision="allow", peer=by, reason="; ".join(said) or None)

    async def _refused(self, exc: VaultdError, by: Peer | None) -> None:
        log.warning("unlock store failed error=%s", exc.kind)
        self._audit.record("unlock", decision="deny", peer=by, reason=exc.kind)
        if isinstance(exc, WrongPassphrase):
            self._wrong += 1
            await self._clock.sleep(min(WRONG_SECONDS * self._wrong, MOST_SECONDS))

    async def lock(self, *, by: Peer | None, reason: LockReason = "command") -> None:
        """Flow 6: nothing is served from the turn of the audit line on, and all is forgotten when it returns.

        Raises Unwritable when it is locked, but a restart would open it again.
        """
        self.shut(reason, by=by)
        await self.drop()

    def shut(self, reason: LockReason, *, by: Peer | None = None) -> None:
        """The one turn of a lock: audit line, cells emptied, flights, questions and holds ended. `drop` follows."""
        self._audit.flush_now()
        self._audit.record("lock", sync=True, peer=by, reason=reason)
        self._broker.lock_now()
        self.reason, self.locked_by = _LOCKED[reason], reason

    async def drop(self) -> None:
        """The keeper's side: keys and sessions gone, then the marker. Raises Unwritable when that is not written."""
        over = asyncio.get_running_loop().create_future()
        self._dropping.add(over)
        try:
            await self._keeper.close(self._audit.head)
        except VaultdError as exc:  # it is locked, but a restart would open it: status says so
            self.reason = exc.message
            raise
        finally:
            self._broker.lock_now()  # an `unlock` that came before the keeper had closed has opened nothing
            self._dropping.discard(over)
            over.set_result(None)

    async def dropped(self) -> None:
        """Once every lock that is under way is acknowledged, or could not be; whoever began it."""
        while self._dropping:
            await asyncio.wait(self._dropping)

    @property
    def openable(self) -> bool:
        """It is open, or is about to be: there is something to lock."""
        opening = self._opening is not None and not self._opening.done()
        return not self._broker.locked or opening or self._trying is not None

    # ---- after the keeper's end ----

    async def reopen(self, how: str) -> None:
        """The keeper's process ended (`how`) and another one is there: open that, unless a person had locked it."""
        if self._person_needed():
            return
        self._sealed = None
        said = f"the keeper process was {how}"
        try:
            opened = await self._keeper.open(passphrase=self._on_file())
        except VaultdError as exc:
            self._strand(said, self._named(exc).message)
            return
        if self._person_needed():  # locked meanwhile
            return
        if opened.locked:
            self._strand(said, self._why_shut(opened))
            return
        await self._take(opened)
        log.warning("reopen store reason=%r", said)
        self._audit.record("unlock", decision="allow", reason=f"{said} and opened again")

    def _person_needed(self) -> bool:
        return self._broker.locked or self._broker.stranded

    def _strand(self, said: str, why: str) -> None:
        """What is at hand is served on; for all else a person is needed."""
        self._broker.lose_keeper()
        self.reason = f"{said}, what is at hand is served on, and {why}"
        log.error("strand daemon reason=%r", self.reason)
        self._audit.record("lock", sync=True, reason=said)

    # ---- open ----

    async def _take(self, opened: Opened) -> None:
        self.store = opened.store
        if not (opened.locked and self.locked_by):  # a lock came meanwhile, and has said why
            self.reason = opened.reason
        if not opened.locked:
            self._accept_rollback, self.locked_by = False, ""
            self._opened_with, self._opened_at = opened.warnings, self._clock.boottime()
            self._keyless = opened.keyless
        if not opened.locked and not self._confirmed:
            self._confirmed = True
            self.audit_warnings = self._unsealed() if opened.head is None else self._audit.confirm(opened.head)
        self._broker.restore(opened)
        self._changed()
        await self.seal_head()

    def _unsealed(self) -> tuple[str, ...]:
        """Lines, and no sealed head to hold them against: the sealed log was taken away. A new home has no keys yet."""
        if not (self._audit.head.seq and self._keeper.list()):
            return ()
        said = "The audit log had no sealed end when it was opened, so whether lines were cut is not known"
        return (f"{said}: see what is there with `vault-client log`.",)

    async def seal_head(self) -> None:
        """The audit head under the data key, so that a cut tail is seen after a kill (architecture.md §7)."""
        head = self._audit.head
        if self._person_needed() or not head.seq or head == self._sealed:
            return
        with contextlib.suppress(Unwritable, Locked):  # told by the audit's own lost lines
            await self._keeper.note(Note(kind="head", head=head))
            self._sealed = head


def _result_of(opening: asyncio.Task[None]) -> None:
    """Damage ends a start, so what mends it ends in another start: nobody is there yet to take an `unlock`."""
    try:
        opening.result()
    except StoreDamaged as exc:
        raise StoreDamaged(exc.message.replace("`vault-client unlock`", "`vaultd start`"), **exc.details) from exc
