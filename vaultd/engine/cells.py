"""Cells: the state of every step, by fingerprint, and of every device's MFA session (architecture.md §7).

Rule: a cell changes through `apply` only, which runs the pure machine of model/steps.py and hands its sealing effects
to the notes. MFA sessions are kept by identity and serial, so that all roles of one device share one code.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import timedelta

from vaultd.engine import seams
from vaultd.engine.notes import Notes
from vaultd.engine.seams import Clock, Note
from vaultd.model import steps
from vaultd.model.credentials import MfaHandle
from vaultd.model.plan import Step
from vaultd.model.steps import Cell, Effect, Event, Moment

EMPTY = Cell()


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose cell it is: what `clear` and `remove` go by, and the configured MFA-age limit."""

    identity: str
    profile: str
    mfa_max_age: timedelta | None


def device_key(identity: str, mfa_serial: str | None) -> str:
    """The cell of an MFA session; never a fingerprint, which is 64 hex digits."""
    return f"mfa:{identity}:{mfa_serial or ''}"


def is_device(key: str) -> bool:
    """Whether it is a device's cell, and no step's."""
    return key.startswith("mfa:")


class Cells:
    """The table of cells."""

    def __init__(self, *, clock: Clock, notes: Notes, jitter: Callable[[], float]) -> None:
        self._clock = clock
        self._notes = notes
        self.jitter = jitter
        #: Read by `Broker.peek` without a call in between: the hot path.
        self.table: dict[str, Cell] = {}
        self._owners: dict[str, Owner] = {}

    def get(self, key: str) -> Cell:
        """The cell, or an empty one."""
        return self.table.get(key, EMPTY)

    def own(self, step: Step) -> None:
        """Remember whose cell this step's is."""
        if step.fingerprint not in self._owners:
            self._owners[step.fingerprint] = Owner(step.identity, step.profile, step.mfa_max_age)

    def moment(self) -> Moment:
        """Both times, now."""
        return Moment(now=self._clock.now(), boot=self._clock.boottime())

    def apply(self, key: str, event: Event) -> tuple[Effect, ...]:
        """Run the machine, store, queue what is to be sealed."""
        cell, effects = steps.advance(self.get(key), event, self.moment())
        self.table[key] = cell
        for effect in effects:
            self._seal(key, cell, effect)
        return effects

    def _seal(self, key: str, cell: Cell, effect: Effect) -> None:
        if effect is Effect.SEAL_SESSION:
            self._notes.put(Note(kind="session", cell=key, session=cell.session))
        elif effect is Effect.DROP_SESSION:
            self._notes.put(Note(kind="drop", cell=key))
        elif effect is Effect.SEAL_LIMIT and cell.limit is not None:
            self._notes.put(Note(kind="limit", cell=key, seconds=int(cell.limit.total_seconds())))
        elif effect is Effect.SEAL_DURATION and cell.duration is not None:
            self._notes.put(Note(kind="duration", cell=key, seconds=int(cell.duration.total_seconds())))

    # ---- MFA sessions ----

    def handle(self, identity: str, mfa_serial: str | None) -> MfaHandle | None:
        """The MFA session of a device, dead or alive."""
        return self.get(device_key(identity, mfa_serial)).handle

    def limit(self, step: Step) -> timedelta | None:
        """The MFA-age limit of a role: configured, else learned (architecture.md §5)."""
        return step.mfa_max_age or self.get(step.fingerprint).limit

    def opens_all(self, handle: MfaHandle) -> bool:
        """True when this MFA session still opens every role of its identity that we know a limit of."""
        now = self._clock.now()
        keys = [key for key, owner in self._owners.items() if owner.identity == handle.identity]
        limits = [self._owners[key].mfa_max_age or self.get(key).limit for key in keys]
        return steps.usable(handle, min((each for each in limits if each), default=None), now) and not any(
            steps.spoiled(self.get(key), handle) for key in keys
        )

    def copies(self, identity: str, *, but: Collection[MfaHandle] = ()) -> list[str]:
        """The cells whose session is an MFA session of the identity's itself: those of its profiles without a role.

        Whose a session is that was restored, and not asked for since, is not known: it may be this one's. Not those of
        the handles `but`: a copy has its session's times.
        """
        known = {(each.issued, each.expiration) for each in but}
        sessions = [(key, cell.session) for key, cell in self.table.items() if cell.session is not None]
        served = [
            key for key, each in sessions if each.role_arn is None and (each.issued, each.expiration) not in known
        ]
        return [key for key in served if key not in self._owners or self._owners[key].identity == identity]

    # ---- opening, clearing ----

    def restore(self, opened: seams.Opened) -> None:
        """What the keeper kept: handles, sessions, limits and durations. A session that is newer here stays: a keeper
        that died may not have come to seal it, so it is handed down once more.
        """
        for handle in opened.handles:
            key = device_key(handle.identity, handle.mfa_serial)
            self.table[key] = replace(self.get(key), handle=handle)
        for note in opened.notes:
            self._restore(note)
        sealed = {note.cell: note.session for note in opened.notes if note.kind == "session"}
        for key, cell in self.table.items():
            if cell.session is not None and sealed.get(key) is not cell.session and not cell.doubted:
                self._notes.put(Note(kind="session", cell=key, session=cell.session))

    def _restore(self, note: Note) -> None:
        cell = self.get(note.cell)
        if note.kind == "session" and note.session is not None:
            if cell.session is not None and cell.session.expiration >= note.session.expiration:
                return
            due = steps.renewal_time(note.session, self.jitter())
            cell = replace(cell, session=note.session, renew_at=due)
        elif note.kind == "limit" and note.seconds is not None:
            cell = replace(cell, limit=timedelta(seconds=note.seconds))
        elif note.kind == "duration" and note.seconds is not None:
            cell = replace(cell, duration=timedelta(seconds=note.seconds))
        self.table[note.cell] = cell

    def lock(self) -> None:
        """Drop sessions and refusals, keep what was learned."""
        learned = {key: cell.learned for key, cell in self.table.items()}
        self.table = {key: cell for key, cell in learned.items() if cell != EMPTY}

    def clear(self, key: str) -> None:
        """Drop one cell's session and refusal, keep what was learned; the keeper is told by the caller."""
        cell = self.table.pop(key, None)
        if cell is not None and cell.learned != EMPTY:
            self.table[key] = cell.learned

    def keys_of(self, *, identity: str | None = None, profile: str | None = None) -> list[str]:
        """The cells of an identity (its devices included), of a profile, or all."""
        if identity is not None:
            owned = [key for key, owner in self._owners.items() if owner.identity == identity]
            return [*owned, *(key for key in self.table if key.startswith(device_key(identity, None)))]
        if profile is not None:
            return [key for key, owner in self._owners.items() if owner.profile == profile]
        return list(self.table)
