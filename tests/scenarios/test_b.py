"""Scenarios B: the MFA session's age, and the role's limit on it (scenarios §4.4, aws-facts §1.3)."""

from __future__ import annotations

from tests.scenarios.bench import Scene, Use, refused
from tests.scenarios.conftest import Stage
from tests.strict_sts import role
from vaultd.errors import MfaRequired
from vaultd.model.credentials import RoleSession

#: web-admin's limit as a person who knows the role's policy writes it down.
KNOWN = '[profiles.web-admin]\nmfa_max_age = "1h"\n'


async def _poll(scene: Scene, use: Use, *, until: float, each: float = 60) -> list[RoleSession]:
    """An SDK that asks from time to time, until the MFA session is `until` seconds old (it began with the scene)."""
    served = []
    while (left := until - scene.age()) > 0:
        await scene.advance(min(each, left))
        served.append(await scene.get(use))
    return served


async def test_b1_a_renewal_under_a_young_mfa_session_is_silent(scene: Scene) -> None:
    """B1: M is 3,400 s old, the session near its end: one AssumeRole, nobody is asked. Idle until then, the first GET
    waits for it.
    """
    first = await scene.warm("web-admin")
    await scene.advance(3400 - scene.age())
    use = scene.use("web-admin")
    scene.mark()
    second = await scene.get(use)

    assert second is not first
    assert second.left(scene.clock.now()).total_seconds() == 3600
    assert scene.counts() == {"AssumeRole": 1}
    assert scene.prompts() == 1
    assert not scene.asking()


async def test_b2_near_the_limit_no_denial_reaches_a_client(stage: Stage) -> None:
    """B2: M is 3,550 s old: the margin is respected, so AWS is not asked for what it may refuse on arrival."""
    scene = await stage.open(settings=KNOWN)
    await scene.warm("audit")  # the code, and M
    await scene.advance(3550 - scene.age())
    error = await refused(scene.ask("web-admin"))
    assert isinstance(error, MfaRequired)
    assert scene.prompts() == 2
    await scene.answer()
    await scene.ask("web-admin")

    assert all(not call.error for call in scene.calls())
    assert scene.counts() == {"GetSessionToken": 2, "AssumeRole": 2}


async def test_b2_an_active_profile_is_topped_up_before_the_limit(stage: Stage) -> None:
    """B2, §1.3.3: polled through the hour it is assumed once more just before the edge, and lasts almost two hours."""
    scene = await stage.open(settings=KNOWN)
    await scene.warm("web-admin")
    await _poll(scene, scene.use("web-admin"), until=3550)
    last = scene.calls("AssumeRole")[-1]

    assert 3480 <= (last.time - scene.began).total_seconds() < 3540
    assert all(not call.error for call in scene.calls())
    assert scene.prompts() == 1
    assert scene.state("web-admin").seconds_left == 3600 - (3550 - 3480)


async def test_b3_past_the_limit_one_prompt(scene: Scene) -> None:
    """B3: M is 3,601 s old and GetSessionToken's session valid for eleven hours more: one question, then it serves."""
    await scene.warm("web-admin")
    await scene.advance(3601 - scene.age())
    scene.mark()
    assert isinstance(await refused(scene.ask("web-admin")), MfaRequired)
    assert [call.error for call in scene.calls("AssumeRole")] == ["AccessDenied"]
    await scene.answer()
    await scene.ask("web-admin")

    assert scene.prompts() == 2
    assert scene.counts() == {"AssumeRole": 2, "GetSessionToken": 1}


async def test_b3_the_limit_is_learned_and_outlives_a_restart(scene: Scene) -> None:
    """B3, §1.3.2: the denial taught it: the next hour is topped up in time and the denial does not come back."""
    await scene.warm("web-admin")
    await scene.advance(3601 - scene.age())
    await scene.warm("web-admin")
    await scene.restart()
    scene.mark()
    use = scene.use("web-admin")
    begun = scene.clock.now()
    for _ in range(65):
        await scene.advance(60)
        await scene.get(use)

    assert (scene.clock.now() - begun).total_seconds() == 3900
    assert all(not call.error for call in scene.calls())
    assert scene.prompts() == 2


async def test_b5_an_idle_profile_is_not_topped_up(stage: Stage) -> None:
    """B5: unused for 30 min when the top-up is due: no AssumeRole for it; for the one in use there is one."""
    idle_too = KNOWN + KNOWN.replace("web-admin", "audit")
    scene = await stage.open(settings=idle_too)
    await scene.warm("web-admin")
    await scene.warm("audit")
    await scene.get(scene.use("web-admin"))
    audit = scene.use("audit")
    await _poll(scene, audit, until=1860)  # the half-way renewal, for which both still count as used
    scene.mark()
    await _poll(scene, audit, until=3590)

    assert [call.role for call in scene.calls("AssumeRole")] == [role("Audit")]
    assert scene.prompts() == 1
    assert (scene.state("web-admin").seconds_left or 0) < 1900  # the idle one just runs out
