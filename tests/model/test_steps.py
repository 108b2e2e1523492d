"""One step's life, as a table and as properties."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import START
from vaultd.errors import (
    CodeRefused,
    DurationTooLong,
    IdentityBroken,
    Locked,
    MfaRequired,
    RoleDenied,
    StsUnavailable,
    Throttled,
    UnknownIdentity,
    VaultdError,
)
from vaultd.model import steps
from vaultd.model.credentials import MfaHandle, RoleSession
from vaultd.model.secret import Secret
from vaultd.model.steps import Cell, Effect, Failed, Minted, Moment

MINUTE = timedelta(minutes=1)


def session(issued: datetime = START, life: timedelta = timedelta(hours=1)) -> RoleSession:
    return RoleSession("ASIA1", Secret("s"), Secret("t"), issued, issued + life, "234567890123")


def at(seconds: float = 0.0) -> Moment:
    return Moment(now=START + timedelta(seconds=seconds), boot=1000.0 + seconds)


def minted(*, jitter: float = 0.0, life: timedelta = timedelta(hours=1)) -> Cell:
    return steps.advance(Cell(), Minted(session(life=life), jitter), at())[0]


def fail(cell: Cell, error: VaultdError, moment: Moment, **more: datetime | timedelta) -> steps.Next:
    return steps.advance(cell, Failed(error=error, jitter=0.0, **more), moment)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("life", "jitter", "left"),
    [
        (timedelta(hours=1), 0.0, 30 * MINUTE),
        (timedelta(hours=1), 0.999, 32.997 * MINUTE),
        (timedelta(hours=12), 0.0, 30 * MINUTE),
        (timedelta(seconds=900), 0.0, timedelta(seconds=450)),
        (timedelta(seconds=900), 0.5, timedelta(seconds=472.5)),
    ],
)
def test_renewal_time(life: timedelta, jitter: float, left: timedelta) -> None:
    """min(30 min, half-life) before the end, 0–10 % of that earlier."""
    cell = minted(jitter=jitter, life=life)

    assert cell.renew_at is not None
    assert START + life - cell.renew_at == left


def test_the_four_words() -> None:
    """none, fresh, due, expired; under 15 s nothing is servable."""
    cell = minted()
    words = [steps.freshness(cell, at(seconds).now) for seconds in (0, 1799, 1800, 3585, 3586)]

    assert [steps.freshness(Cell(), START), *words] == ["none", "fresh", "fresh", "due", "due", "expired"]


@pytest.mark.parametrize("jitter", [0.0, 0.999])
@pytest.mark.parametrize(("life", "least"), [(43200, 1500), (3600, 1500), (1800, 750), (900, 375)])
def test_untended_is_less_than_a_tended_session_ever_has(life: int, least: int, jitter: float) -> None:
    """§5: 25 min where the lifetime allows; whoever renews when due, at once or a minute late, never falls below it."""
    cell = minted(life=timedelta(seconds=life), jitter=jitter)
    assert not steps.untended(cell, at(life - least).now)
    assert steps.untended(cell, at(life - least + 1).now)
    assert cell.renew_at is not None
    assert not steps.untended(cell, cell.renew_at + timedelta(seconds=60))
    assert not steps.untended(Cell(), at(life).now)


def test_a_failure_counts_since_the_renewal_fell_due() -> None:
    """What went wrong before says nothing of AWS now."""
    early, _ = fail(minted(), StsUnavailable("down"), at(600))
    late, _ = fail(minted(), StsUnavailable("down"), at(1900))
    assert [steps.failed_since(each, each.renew_at) for each in (minted(), early, late)] == [False, False, True]
    assert steps.failed_since(early, None)


def test_back_off_doubles_to_a_minute_and_repeats_twice_at_once() -> None:
    """1, 2, 4 … 60 s; the first two failures are repeated within the flight (row 19); success forgets them."""
    cell, pauses, again = Cell(), [], []
    for _ in range(8):
        cell, effects = fail(cell, Throttled("Rate exceeded."), at())
        pauses.append(steps.pause(cell, 1000.0))
        again.append(Effect.AGAIN in effects)

    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert again == [True, True, False, False, False, False, False, False]
    assert steps.advance(cell, Minted(session(), 0.0), at())[0].failures == 0


def test_a_refusal_is_remembered_for_a_minute_by_boottime() -> None:
    """A clock that is set back does not prolong it."""
    cell, _ = fail(minted(), RoleDenied("no"), at(10))

    assert steps.refusal(cell, 1069.9) is not None
    assert steps.refusal(cell, 1070.0) is None
    assert steps.servable(cell, START) is not None


@pytest.mark.parametrize(
    "error", [MfaRequired("m"), CodeRefused("c"), Locked("l"), UnknownIdentity("u")], ids=lambda error: error.kind
)
def test_what_a_person_mends_is_no_failure_of_the_step(error: VaultdError) -> None:
    """Neither refusal nor back-off: the next call after the mending goes through."""
    assert fail(Cell(), error, at()) == (Cell(), ())


def test_a_broken_key_is_remembered_longer() -> None:
    """Only a person mends it, and asking again would ask for a code."""
    cell, _ = fail(Cell(), IdentityBroken("b"), at())

    assert steps.refusal(cell, 1599.0) is not None


def test_one_fallback_to_an_hour() -> None:
    """Rows 16, 17: remembered; an hour refused as well is final."""
    cell, effects = fail(Cell(), DurationTooLong("d"), at(), asked=timedelta(hours=12))
    assert cell.duration == timedelta(hours=1)
    assert effects == (Effect.SEAL_DURATION, Effect.AGAIN)

    cell, effects = fail(cell, DurationTooLong("d"), at(), asked=timedelta(hours=1))
    assert effects == ()
    assert steps.refusal(cell, 1000.0) is not None


def test_a_limit_is_learned_when_a_newer_mfa_session_opens_the_role() -> None:
    """§1.3.2: the limit is at most the age at the denial (the whole hour below it), and never grows."""
    cell, effects = fail(Cell(), RoleDenied("no"), at(3700), source=START)
    assert effects == (Effect.ASK,)
    assert steps.refusal(cell, at(3700).boot) is None
    old = MfaHandle("franklin", "serial", START, START + timedelta(hours=12))
    assert steps.spoiled(cell, old)

    made = Minted(session(issued=at(3800).now), 0.0, source=at(3790).now)
    cell, effects = steps.advance(cell, made, at(3800))
    assert effects == (Effect.SEAL_SESSION, Effect.SEAL_LIMIT)
    assert cell.limit == timedelta(hours=1)
    cell, _ = fail(cell, RoleDenied("no"), at(19000), source=at(3790).now)
    cell, _ = steps.advance(cell, Minted(session(issued=at(19100).now), 0.0, source=at(19090).now), at(19100))
    assert cell.limit == timedelta(hours=1)
    cell, _ = fail(cell, RoleDenied("no"), at(20990), source=at(19090).now)
    cell, _ = steps.advance(cell, Minted(session(issued=at(21100).now), 0.0, source=at(21000).now), at(21100))
    assert cell.limit == timedelta(seconds=1900)


def test_a_denial_after_the_new_code_is_the_first_one() -> None:
    """The original denial stands for a minute; further denials under that M ask for nothing."""
    cell, _ = fail(Cell(), RoleDenied("first"), at(3700), source=START)
    cell, effects = fail(cell, RoleDenied("second"), at(3800), source=at(3790).now)
    assert effects == ()
    known = steps.refusal(cell, at(3801).boot)
    assert known is not None
    assert known.message == "first"

    cell, effects = fail(cell, RoleDenied("third"), at(9000), source=at(3790).now)
    assert effects == ()
    assert Effect.ASK in fail(cell, RoleDenied("fourth"), at(20000), source=at(10000).now)[1]


def test_a_second_old_mfa_session_is_no_retry() -> None:
    """Denied again under a newer M that was not fresh: a code is asked for, and the first denial is kept."""
    cell, _ = fail(Cell(), RoleDenied("first"), at(7200), source=START)
    cell, effects = fail(cell, RoleDenied("second"), at(9000), source=at(3000).now)

    assert effects == (Effect.ASK,)
    assert cell.denial is not None
    assert (cell.denial.error.message, cell.denial.age) == ("first", timedelta(seconds=6000))


def test_edges_of_an_mfa_session() -> None:
    """Usable until 60 s before limit or expiration, whichever is first; topped up from 120 s before."""
    handle = MfaHandle("franklin", "serial", START, START + timedelta(hours=2))
    hour = timedelta(hours=1)

    assert steps.usable(handle, hour, at(3539).now)
    assert not steps.usable(handle, hour, at(3540).now)
    assert steps.usable(handle, None, at(7139).now)
    assert not steps.usable(handle, timedelta(hours=5), at(7140).now)
    assert steps.renewal(minted(life=timedelta(hours=2)), START + hour) == at(3480).now
    assert steps.renewal(minted(), START + hour) == at(1800).now
    late = steps.advance(Cell(), Minted(session(issued=at(3490).now), 0.0), at(3490))[0]
    assert steps.renewal(late, START + hour) == at(3490 + 1800).now


def test_a_question_comes_at_the_earliest_20_min_before_the_end() -> None:
    """And never before the session is due at all."""
    assert steps.question_time(minted()) == at(2400).now
    assert steps.question_time(minted(life=timedelta(seconds=900))) == at(450).now
    assert steps.question_time(Cell()) is None


def test_a_dead_on_arrival_session_is_a_failure() -> None:
    """An Expiration in the past would otherwise be renewed in a tight loop."""
    cell, effects = steps.advance(Cell(), Minted(session(life=timedelta(seconds=29)), 0.0), at())

    assert cell.session is None
    assert Effect.SEAL_SESSION not in effects
    assert steps.pause(cell, 1000.0) > 0


_CALL = st.tuples(
    st.sampled_from(["ok", "short", "past", "denied", "down", "throttled", "broken", "too long", "needs code"]),
    st.floats(0, 0.999),
)


def _event(outcome: str, jitter: float, moment: Moment) -> steps.Event:
    lives = {"ok": timedelta(hours=1), "short": timedelta(minutes=15), "past": timedelta(seconds=-60)}
    if outcome in lives:
        return Minted(session(issued=moment.now, life=lives[outcome]), jitter, source=START)
    errors: dict[str, VaultdError] = {
        "denied": RoleDenied("no"),
        "down": StsUnavailable("down"),
        "throttled": Throttled("slow"),
        "broken": IdentityBroken("broken"),
        "too long": DurationTooLong("long"),
        "needs code": MfaRequired("code"),
    }
    return Failed(error=errors[outcome], jitter=jitter, asked=timedelta(hours=1))


@given(st.lists(_CALL, min_size=1, max_size=60), st.integers(1, 40))
def test_a_driver_that_keeps_to_the_cell_never_hammers_aws(outcomes: list[tuple[str, float]], tick: int) -> None:
    """Whatever AWS answers: at most 80 calls in any hour, never two successes within 6 s, nothing served too late."""
    cell, calls, successes, queue = Cell(), [], [], list(outcomes)
    for seconds in range(0, 3600 * 2, tick):
        moment = at(seconds)
        served = steps.servable(cell, moment.now)
        assert served is None or served.expiration - moment.now >= timedelta(seconds=15)
        wanted = served is None or steps.due(cell, moment.now)
        if not wanted or steps.pause(cell, moment.boot) > 0 or not queue:
            continue
        outcome, jitter = queue[seconds % len(queue)]
        if outcome == "needs code":
            continue  # the broker asks instead of calling
        calls.append(seconds)
        before = cell
        cell, effects = steps.advance(cell, _event(outcome, jitter, moment), moment)
        if Effect.SEAL_SESSION in effects:
            successes.append(seconds)
        else:
            assert cell.session is before.session  # a failure never costs the session that still lives

    assert all(after - before >= 6 for before, after in itertools.pairwise(successes))
    assert max(sum(1 for other in calls if 0 <= other - call < 3600) for call in [*calls, 0]) <= 80


def test_the_property_can_fail() -> None:
    """Positive control: a driver that ignores pause() would break the bound within an hour."""
    cell, ignored = Cell(), 0
    for seconds in range(3600):
        ignored += steps.pause(cell, at(seconds).boot) > 0
        cell, _ = fail(cell, StsUnavailable("down"), at(seconds))

    assert ignored > 80
