"""One step's life: (cell, event, moment) → (cell, effects). Pure: no clock, no chance, no await.

Rules (architecture.md §5, aws-facts §1.3 and §1.5)
- A session is renewed min(30 min, half its life) before its end, up to 10 % earlier by jitter, so that what is served
  has 25 min left where its lifetime allows; with less than 15 s it is not served at all.
- A final refusal is cached for 60 s, a temporary failure backs off 1, 2, 4 … 60 s; both by boottime, so that a clock
  that is set can neither prolong nor skip them. Neither touches a session that still lives.
- Whether a policy sees the code of the very call that carries it is not known (§1.2, conflict 1). A direct call that
  is denied is tried by way of the MFA session, for an hour; that is remembered once it has worked.
- AWS has no error for "MFA too old" (§1.3.2). A denial under an MFA session older than 60 s asks for one code; when
  the role opens with it, the age at the denial is the limit; when not, the original denial stands, and further
  denials under that same MFA session ask for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Literal

from vaultd.errors import (
    DurationTooLong,
    IdentityBroken,
    Misconfigured,
    NeedsPerson,
    Refused,
    RoleDenied,
    StsUnavailable,
    VaultdError,
)
from vaultd.model.credentials import SERVE_FLOOR, MfaHandle, RoleSession

#: Renewed this long before its end, or at half its life.
LEAD = timedelta(minutes=30)
#: Of that lead, what a session that is tended never falls below: 25 min of 30 (architecture.md §5).
TENDED = 5 / 6
#: A code is asked for ahead of time at the earliest this long before the served session ends (interface.md §4).
EARLY_QUESTION = timedelta(minutes=20)
#: An MFA session serves a role until this long before the limit (aws-facts §1.3.1) …
EDGE = timedelta(seconds=60)
#: … and each active role is assumed once more from here on (§1.3.3).
TOP_UP = timedelta(seconds=120)
#: Under an MFA session younger than this a denial is not about its age (§1.3.2).
YOUNG = timedelta(seconds=60)
#: How long a final refusal answers for AWS, and a broken key, which only a person mends.
REFUSED_SECONDS, BROKEN_SECONDS = 60.0, 600.0
#: Back-off: doubles from the first to the last; a call without a code is repeated at once this often (row 19).
BACK_OFF_FIRST, BACK_OFF_LAST, REPEATS = 1.0, 60.0, 2
#: What AWS grants every role and every chained session (rows 16, 17).
ONE_HOUR = timedelta(seconds=3600)


@dataclass(frozen=True, slots=True)
class Moment:
    """Wall time for what AWS dates, boottime for what we wait for."""

    now: datetime
    boot: float


@dataclass(frozen=True, slots=True)
class Failure:
    """The last thing that went wrong. Until `until` (boottime) no call is made; `final`: it answers instead of AWS."""

    error: VaultdError
    time: datetime
    until: float
    final: bool


@dataclass(frozen=True, slots=True)
class Denial:
    """AWS said no under the MFA session of `issued`, then `age` old; the first error is kept."""

    error: VaultdError
    issued: datetime
    age: timedelta


@dataclass(frozen=True, slots=True)
class Cell:
    """A step's state: the last good session (or the handle of an MFA session) and what is known of the way to it.

    `limit` is the learned MFA-age limit, `duration` what AWS accepted, `barren` the issue time of a fresh MFA session
    under which the role was denied all the same. `unsure`: the denial of a direct call, until `duration` has worked.
    `doubted`: AWS may have ended the session; `asked`: a person was asked for the code of its next one.
    """

    session: RoleSession | None = None
    handle: MfaHandle | None = None
    renew_at: datetime | None = None
    failure: Failure | None = None
    failures: int = 0
    denial: Denial | None = None
    barren: datetime | None = None
    limit: timedelta | None = None
    duration: timedelta | None = None
    unsure: VaultdError | None = None
    doubted: bool = False
    asked: bool = False

    @property
    def learned(self) -> Cell:
        """What outlives a lock and a clear: never what is still being tried."""
        return Cell(limit=self.limit, duration=self.duration if self.unsure is None else None)


# ---- events ----


@dataclass(frozen=True, slots=True)
class Minted:
    """A session came; `source` is the issue time of the MFA session it came from, `jitter` in [0, 1)."""

    session: RoleSession
    jitter: float
    source: datetime | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """An MFA session came."""

    handle: MfaHandle


@dataclass(frozen=True, slots=True)
class Failed:
    """A call failed. `source` as in Minted; `asked` is the DurationSeconds that went along, `jitter` in [0, 1).

    `direct`: AssumeRole with the code itself.
    """

    error: VaultdError
    jitter: float
    source: datetime | None = None
    asked: timedelta | None = None
    direct: bool = False


@dataclass(frozen=True, slots=True)
class Dropped:
    """The session is dead at AWS, or was cleared."""


@dataclass(frozen=True, slots=True)
class Doubted:
    """Its source has ended, and the session perhaps with it: served while there is no other, due now, not kept."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A person is asked ahead of time for the code of the next session."""


Event = Minted | Opened | Failed | Dropped | Doubted | Asked


class Effect(Enum):
    """What the caller has to do after an event."""

    SEAL_SESSION = auto()
    SEAL_LIMIT = auto()
    SEAL_DURATION = auto()
    DROP_SESSION = auto()
    #: A new code is needed; then the step is tried once more.
    ASK = auto()
    #: Call again after `pause()` seconds, within the same flight.
    AGAIN = auto()


Next = tuple[Cell, tuple[Effect, ...]]


def advance(cell: Cell, event: Event, moment: Moment) -> Next:
    """The only way in which a cell changes."""
    match event:
        case Minted():
            return _minted(cell, event, moment)
        case Opened():
            return replace(cell, handle=event.handle, failure=None, failures=0), ()
        case Failed():
            return _failed(cell, event, moment)
        case Dropped():
            return replace(cell, session=None, handle=None, renew_at=None), ()
        case Doubted():
            return replace(cell, renew_at=moment.now, doubted=True, asked=False), (Effect.DROP_SESSION,)
        case Asked():
            return replace(cell, asked=True), ()


def _minted(cell: Cell, event: Minted, moment: Moment) -> Next:
    session = event.session
    if session.left(moment.now) < 2 * SERVE_FLOOR:
        # An Expiration in the past (row 12's cousin: this clock is off): taking it would mean a call a second.
        gone = StsUnavailable(
            "AWS gave a session that has ended by this machine's clock: check the clock with `vault-client doctor`."
        )
        return _backed_off(cell, gone, moment, event.jitter)
    effects = [Effect.SEAL_SESSION]
    limit = cell.limit
    if cell.denial is not None and event.source is not None and event.source > cell.denial.issued:
        learned = _whole_hours(cell.denial.age)
        limit = min(limit or learned, learned)
        effects.append(Effect.SEAL_LIMIT)
    if cell.unsure is not None:
        effects.append(Effect.SEAL_DURATION)
    fresh = replace(cell, session=session, renew_at=renewal_time(session, event.jitter), limit=limit)
    fresh = replace(fresh, doubted=False, asked=False)
    return replace(fresh, failure=None, failures=0, denial=None, barren=None, unsure=None), tuple(effects)


def _whole_hours(age: timedelta) -> timedelta:
    """The limit is at most the age at the denial; people write whole hours, so the hour below it is the better guess.

    Too low costs a code a little early, too high a denial and a session that could have been topped up.
    """
    return age if age < ONE_HOUR else age // ONE_HOUR * ONE_HOUR


def renewal_time(session: RoleSession, jitter: float) -> datetime:
    """When it is due: min(30 min, half-life) before the end, up to 10 % of that earlier."""
    return session.expiration - _lead(session) * (1 + 0.1 * jitter)


def _lead(session: RoleSession) -> timedelta:
    return min(LEAD, session.lifetime / 2)


def _failed(cell: Cell, event: Failed, moment: Moment) -> Next:
    error = event.error
    if isinstance(error, DurationTooLong):
        return _too_long(cell, event, moment)
    if type(error) is RoleDenied and event.direct and event.asked is not None and event.asked > ONE_HOUR:
        return replace(cell, duration=ONE_HOUR, unsure=error), (Effect.ASK,)
    if type(error) is RoleDenied and event.source is not None:
        return _denied(cell, event, event.source, moment)
    if isinstance(error, RoleDenied | IdentityBroken | Misconfigured):
        return _refused(cell, error, moment), ()
    if isinstance(error, NeedsPerson | Refused):
        return cell, ()  # a code, an unlock, an `add`: nothing that AWS said of this step
    return _backed_off(cell, error, moment, event.jitter)


def _too_long(cell: Cell, event: Failed, moment: Moment) -> Next:
    """Rows 16, 17: one fallback to an hour, remembered."""
    if event.asked is None or event.asked <= ONE_HOUR:
        return _refused(cell, event.error, moment), ()
    return replace(cell, duration=ONE_HOUR), (Effect.SEAL_DURATION, Effect.AGAIN)


def _denied(cell: Cell, event: Failed, source: datetime, moment: Moment) -> Next:
    age = moment.now - source
    denial = cell.denial
    if age <= YOUNG or cell.barren == source:
        error = cell.unsure or (denial.error if denial is not None else event.error)
        kept = None if cell.unsure is not None else cell.duration  # an hour was not the way either
        return replace(_refused(cell, error, moment), denial=None, barren=source, duration=kept, unsure=None), ()
    first = denial.error if denial is not None else event.error
    noted = Denial(error=first, issued=source, age=age)
    return replace(cell, denial=noted, failure=_failure(first, moment, 0.0, final=False)), (Effect.ASK,)


def _refused(cell: Cell, error: VaultdError, moment: Moment) -> Cell:
    seconds = BROKEN_SECONDS if isinstance(error, IdentityBroken) else REFUSED_SECONDS
    return replace(cell, failure=_failure(error, moment, seconds, final=True))


def _backed_off(cell: Cell, error: VaultdError, moment: Moment, jitter: float) -> Next:
    """Jitter only lengthens (up to half), so that the count of calls has a bound that chance cannot lift (D2)."""
    failures = cell.failures + 1
    seconds = min(BACK_OFF_LAST, BACK_OFF_FIRST * 2 ** min(failures - 1, 10)) * (1 + jitter / 2)
    again = (Effect.AGAIN,) if failures <= REPEATS and isinstance(error, StsUnavailable) else ()
    return replace(cell, failures=failures, failure=_failure(error, moment, seconds, final=False)), again


def _failure(error: VaultdError, moment: Moment, seconds: float, *, final: bool) -> Failure:
    return Failure(error=error, time=moment.now, until=moment.boot + seconds, final=final)


# ---- questions to a cell ----


def servable(cell: Cell, now: datetime) -> RoleSession | None:
    """The session, if it may still be handed out."""
    session = cell.session
    return session if session is not None and session.servable(now) else None


def due(cell: Cell, now: datetime) -> bool:
    """True from the renewal time on."""
    return cell.renew_at is not None and now >= cell.renew_at


def untended(cell: Cell, now: datetime) -> bool:
    """True when less is left than of any session in use: nobody asked for it when it fell due (flow 2)."""
    if cell.session is None or not due(cell, now):
        return False
    return cell.session.left(now) < _lead(cell.session) * TENDED


def failed_since(cell: Cell, since: datetime | None) -> bool:
    """True when the last call went wrong, at `since` or later; None: ever."""
    return cell.failure is not None and (since is None or cell.failure.time >= since)


def freshness(cell: Cell, now: datetime) -> Literal["none", "fresh", "due", "expired"]:
    """The first four of interface.md §6's words."""
    if cell.session is None:
        return "none"
    if servable(cell, now) is None:
        return "expired"
    return "due" if due(cell, now) else "fresh"


def refusal(cell: Cell, boot: float) -> VaultdError | None:
    """The final error that answers instead of AWS, while it is remembered."""
    failure = cell.failure
    return failure.error if failure is not None and failure.final and boot < failure.until else None


def pause(cell: Cell, boot: float) -> float:
    """Seconds until AWS may be called again for this cell; 0 when now."""
    return 0.0 if cell.failure is None else max(0.0, cell.failure.until - boot)


def edge(handle: MfaHandle, limit: timedelta | None) -> datetime:
    """When an MFA session no longer opens a role of that MFA-age limit."""
    return handle.expiration if limit is None else min(handle.expiration, handle.issued + limit)


def usable(handle: MfaHandle, limit: timedelta | None, now: datetime) -> bool:
    """True while a call made now is sure to arrive before the edge."""
    return now < edge(handle, limit) - EDGE


def spoiled(cell: Cell, handle: MfaHandle) -> bool:
    """True when the role was denied under this MFA session (or a later one) and waits for a newer."""
    return cell.denial is not None and handle.issued <= cell.denial.issued


def renewal(cell: Cell, source_ends: datetime | None) -> datetime | None:
    """When to make the next session: when due, or in the last moment that its source still allows (top-up)."""
    if cell.session is None or cell.renew_at is None:
        return None
    if source_ends is None or cell.session.issued >= source_ends - TOP_UP:
        return cell.renew_at
    return min(cell.renew_at, source_ends - TOP_UP)


def question_time(cell: Cell) -> datetime | None:
    """From when on a person may be asked ahead of time for the code of the next session; of a doubted one, once now."""
    if cell.session is None or cell.renew_at is None:
        return None
    if cell.doubted and not cell.asked:
        return cell.renew_at
    return max(cell.renew_at, cell.session.expiration - EARLY_QUESTION)
