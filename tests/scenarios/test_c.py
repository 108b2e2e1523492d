"""Scenarios C: durations, chains, and how much life a served session has left (scenarios §4.4)."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest

from tests.scenarios.bench import Scene, refused
from tests.scenarios.conftest import Stage
from tests.strict_sts import role
from vaultd.errors import MfaRequired, RoleDenied

HOUR = timedelta(hours=1)


def _visible(stage: Stage) -> bool:
    return bool(stage.reading["direct_mfa_visible_to_identity_policy"])


async def test_c1_two_hours_are_taken_with_the_code(stage: Stage) -> None:
    """C1: AssumeRole from the key itself with serial and code; no GetSessionToken, so no chain's limit.

    Where ForceMFA does not see the code of that very call (aws-facts §1.2, conflict 1) AWS refuses it, and an hour by
    way of GetSessionToken is served in its place, with a warning.
    """
    scene = await stage.open()
    await refused(scene.ask("long-ops"))
    if not _visible(stage):
        assert isinstance(await refused(scene.answer()), MfaRequired)
    await scene.answer()
    session = await scene.ask("long-ops")

    first, *rest = [call for call in scene.calls() if call.op != "GetCallerIdentity"]
    assert (first.op, first.mfa, first.params["DurationSeconds"]) == ("AssumeRole", True, "7200")
    assert not any("1 hour session limit" in str(event.get("errorMessage")) for event in scene.strict.audit())
    assert scene.prompts() == 1
    if _visible(stage):
        assert rest == []
        assert session.lifetime == 2 * HOUR
    else:
        assert [call.op for call in rest] == ["GetSessionToken", "AssumeRole"]
        assert session.lifetime == HOUR
        assert "3600 s at most" in scene.state("long-ops").warnings[0]


async def test_c1_an_hour_is_not_learned_from_a_role_that_is_denied(scene: Scene) -> None:
    """C1: denied with the code and denied with the MFA session: it was not the way, so the duration stays as asked."""
    scene.strict.mutate(role={"arn": role("LongOps"), "trust": {"Version": "2012-10-17", "Statement": []}})
    await refused(scene.ask("long-ops"))
    assert isinstance(await refused(scene.answer()), MfaRequired)
    await scene.answer()
    for _ in range(3):
        assert isinstance(await refused(scene.ask("long-ops")), RoleDenied)
    assert scene.counts() == {"AssumeRole": 2, "GetSessionToken": 1}
    assert scene.prompts() == 1
    assert not scene.asking()

    await scene.advance(61)
    await refused(scene.ask("long-ops"))
    assert isinstance(await refused(scene.answer()), RoleDenied)  # the MFA session is there: one code only
    assert [call.params["DurationSeconds"] for call in scene.calls("AssumeRole")] == ["7200", "3600", "7200", "3600"]


async def test_c2_twelve_hours_of_a_role_that_gives_one(scene: Scene) -> None:
    """C2: one fallback to an hour with a warning, remembered over a restart; two codes at most."""
    await refused(scene.ask("web-admin-12h"))
    with pytest.raises(MfaRequired, match=r"one hour at most .* next code"):
        await scene.answer()
    assert scene.question().attempts_left == 3
    await scene.answer()
    session = await scene.ask("web-admin-12h")

    assert session.lifetime == HOUR
    assert scene.counts() == {"AssumeRole": 2, "GetSessionToken": 1}
    assert len(scene.codes_sent()) == 2
    assert scene.prompts() == 1
    assert "3600 s at most, not the configured 43200 s" in scene.state("web-admin-12h").warnings[0]
    await scene.restart()
    await scene.advance(1900)
    scene.mark()
    await scene.get(scene.use("web-admin-12h"))
    await scene.calm()
    assert [call.params["DurationSeconds"] for call in scene.calls("AssumeRole")] == ["3600"]


async def test_c2_an_mfa_session_saves_the_second_code(scene: Scene) -> None:
    """C2: where an MFA session is open already, the fallback takes it."""
    await scene.warm("audit")
    await scene.advance(300)
    session = await scene.warm("web-admin-12h")

    assert session.lifetime == HOUR
    assert len(scene.codes_sent()) == 2
    assert not scene.asking()


async def test_c4_the_parent_is_refreshed_first(scene: Scene) -> None:
    """C4: each child comes from a parent that lives, and the child is never served past its own Expiration."""
    await scene.warm("web-admin")
    await scene.advance(1500)
    first = await scene.ask("chained")
    use = scene.use("chained")
    for _ in range(30):
        await scene.advance(60)
        await scene.get(use)
    second = await scene.get(use)

    made = scene.calls("AssumeRole")
    order = [call.role.rpartition("/")[2] for call in made]
    assert order == ["WebAdmin", "Chained", "WebAdmin", "Chained"]
    assert made[-1].akid == made[-2].issued  # the refreshed parent's
    assert second.access_key_id != first.access_key_id
    assert all(not call.error for call in made)
    assert scene.prompts() == 1
    await scene.advance(2 * 3601)  # nobody polls, nobody answers: parent and child end, and nothing stale is served
    assert isinstance(await refused(scene.get(use)), MfaRequired)


async def test_c6_fifteen_minutes_are_warned_about(stage: Stage) -> None:
    """C6: a client that signs each second for half an hour costs at most one AssumeRole in five minutes."""
    scene = await stage.open(jitter=random.Random(6))
    await scene.warm("web-admin-15m")
    use = scene.use("web-admin-15m")
    for _ in range(1800):
        await scene.advance(1)
        await scene.get(use)

    assert scene.counts()["AssumeRole"] <= 6
    assert scene.prompts() == 1
    assert any("900 s" in problem for problem in scene.plan("web-admin-15m").problems)
    assert any("under 1800 s" in warning for warning in scene.state("web-admin-15m").warnings)


@pytest.mark.parametrize(("profile", "codes"), [("web-admin", 3), ("audit", 1)])
async def test_c7_what_is_served_lasts_a_quarter_of_an_hour(stage: Stage, profile: str, codes: int) -> None:
    """C7: polled each minute for three hours; only while a question waits may less be left."""
    scene = await stage.open(jitter=random.Random(7))
    await scene.warm(profile)
    use = scene.use(profile)
    waited = 0
    for _ in range(180):
        await scene.advance(60)
        session = await scene.get(use)
        left = session.left(scene.clock.now())
        assert left >= timedelta(minutes=15) or scene.asking()
        waited = waited + 1 if scene.asking() else 0
        if waited == 3:  # a person who was away for two minutes
            await scene.answer()

    assert len(scene.codes_sent()) <= codes
    assert scene.counts()["AssumeRole"] <= 12
