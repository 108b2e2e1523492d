"""Scenarios A: the code, asked once and sent once (scenarios §4.4)."""

from __future__ import annotations

import pytest

from tests.scenarios.bench import NOBODY, PROFILES, Scene, refused, section
from tests.scenarios.conftest import Stage
from tests.strict_sts import FRANKLIN, ROBOT, SERIAL, role
from vaultd.errors import (
    BadRequest,
    CodeRefused,
    CodeSpent,
    DeviceRefused,
    InvalidCode,
    MfaRequired,
    RoleDenied,
    StsUnavailable,
    TooManyAttempts,
)
from vaultd.model.credentials import RoleSession
from vaultd.model.environment import CREDENTIALS_PATH

FIVE = ("web-admin", "audit", "long-audit", "ext", "name-lock")


def _prompt(ended: object) -> str:
    assert isinstance(ended, MfaRequired), ended
    return str(ended.details["prompt"]["id"])


def _session(ended: object) -> RoleSession:
    assert isinstance(ended, RoleSession), ended
    return ended


async def test_a1_cold_call_takes_one_prompt(scene: Scene) -> None:
    """A1: one question, one GetSessionToken, one AssumeRole; the served Expiration is STS's."""
    with pytest.raises(MfaRequired) as needed:
        await scene.ask("web-admin")
    assert needed.value.details["prompt"]["id"] == scene.question().id
    await scene.answer()
    session = await scene.ask("web-admin")

    assert scene.prompts() == 1
    assert scene.counts() == {"GetSessionToken": 1, "AssumeRole": 1}
    assert scene.ends(session)


async def test_a2_another_role_takes_no_prompt(scene: Scene) -> None:
    """A2: under an MFA session ten minutes old the other account's role costs one AssumeRole."""
    await scene.warm("web-admin")
    await scene.advance(600)
    scene.mark()

    session = await scene.ask("audit")

    assert scene.prompts() == 1
    assert scene.counts() == {"AssumeRole": 1}
    assert session.account_id == "345678901234"


async def test_a3_twenty_cold_clients_are_one(scene: Scene) -> None:
    """A3: one question, one GetSessionToken, one AssumeRole, and one key id for all twenty."""
    use = scene.use("web-admin")
    prompts = {_prompt(each) for each in await scene.together(scene.got(use) for _ in range(20))}
    assert prompts == {scene.question().id}
    await scene.answer()
    sessions = [_session(each) for each in await scene.together(scene.got(use) for _ in range(20))]

    assert len({session.access_key_id for session in sessions}) == 1
    assert scene.prompts() == 1
    assert scene.counts() == {"GetSessionToken": 1, "AssumeRole": 1}


async def test_a3_two_hundred_callers_of_five_profiles(scene: Scene) -> None:
    """Issue 3: one question, one GetSessionToken, five AssumeRole, none fails once the code is given."""
    prompts = {_prompt(each) for each in await scene.together(scene.asked(profile) for profile in FIVE * 40)}
    assert prompts == {scene.question().id}
    await scene.answer()
    sessions = [_session(each) for each in await scene.together(scene.asked(profile) for profile in FIVE * 40)]

    assert len(sessions) == 200
    assert len({session.access_key_id for session in sessions}) == 5
    assert scene.prompts() == 1
    assert scene.counts() == {"GetSessionToken": 1, "AssumeRole": 5}


async def test_a5_a_wrong_code_is_asked_again(scene: Scene) -> None:
    """A5: the question stays and says why; the right code succeeds."""
    await refused(scene.ask("web-admin"))
    with pytest.raises(CodeRefused, match="AWS refused the code") as wrong:
        await scene.answer("000000")
    assert wrong.value.details["attempts_left"] == 2
    assert "refused the code" in scene.question().wire()["note"]
    await scene.answer()
    await scene.ask("web-admin")

    assert scene.prompts() == 1
    assert scene.counts() == {"GetSessionToken": 2, "AssumeRole": 1}


async def test_a6_three_wrong_codes_cool_down(scene: Scene) -> None:
    """A6: three calls at most, a clear error at once, and a cool-down in which nobody is asked."""
    await refused(scene.ask("web-admin"))
    began = scene.clock.boottime()
    for code in ("000000", "111111"):
        await refused(scene.answer(code))
    with pytest.raises(TooManyAttempts, match="AWS refused 3 codes") as enough:
        await scene.answer("222222")
    assert scene.clock.boottime() - began < 2
    assert 0 < enough.value.details["retry_after_seconds"] <= 120
    assert isinstance(await refused(scene.ask("web-admin")), TooManyAttempts)
    use = scene.use("web-admin")
    assert "AWS refused 3 codes" in (await refused(scene.get(use))).message

    assert scene.counts() == {"GetSessionToken": 3}
    assert not scene.asking()
    assert scene.prompts() == 1
    await scene.advance(121)
    await scene.warm("web-admin")  # and then it goes on
    assert scene.prompts() == 2


async def test_a7_a_code_typed_again_is_not_sent(scene: Scene) -> None:
    """A7: refused here, with the seconds until the next one."""
    typed = await scene.code()
    await refused(scene.ask("web-admin"))
    await scene.answer(typed)
    await scene.ask("web-admin")
    await scene.advance(7)
    await refused(scene.ask("long-ops"))  # takes a code of its own
    scene.mark()

    with pytest.raises(CodeSpent) as spent:
        await scene.answer(typed)

    assert spent.value.details["retry_after_seconds"] == 23
    assert "wait 23 s" in spent.value.message
    assert scene.counts() == {}
    assert scene.question().attempts_left == 3


async def test_a9_a_code_lost_on_the_way_back_is_spent(scene: Scene) -> None:
    """A9: a 500 after AWS took the code: sent once, not counted as wrong, the next one works."""
    scene.strict.fault("http", op="GetSessionToken", when="after")
    await refused(scene.ask("web-admin"))
    with pytest.raises(StsUnavailable, match="next"):
        await scene.answer()
    assert scene.counts() == {"GetSessionToken": 1}
    assert scene.question().attempts_left == 3
    await scene.answer()
    await scene.ask("web-admin")

    assert scene.prompts() == 1
    assert scene.counts() == {"GetSessionToken": 2, "AssumeRole": 1}


async def test_a10_a_throttled_code_goes_again(scene: Scene) -> None:
    """A10: the one case where a code is sent again: twice at most, within its thirty seconds."""
    scene.resends = True
    scene.strict.fault("throttle", op="GetSessionToken", times=2)
    await refused(scene.ask("web-admin"))
    began = scene.clock.boottime()
    await scene.answer()
    assert scene.clock.boottime() - began < 30
    await scene.ask("web-admin")

    assert scene.codes_sent() == [1, 1, 1]
    assert scene.prompts() == 1


async def test_a10_and_never_a_third_time(scene: Scene) -> None:
    """A10: a throttling that goes on costs three calls, and then the next code."""
    scene.resends = True
    scene.strict.fault("throttle", op="GetSessionToken", times=3)
    await refused(scene.ask("web-admin"))
    typed = await scene.code()
    with pytest.raises(StsUnavailable):
        await scene.answer(typed)
    assert isinstance(await refused(scene.answer(typed)), CodeSpent)
    await scene.answer()

    assert scene.codes_sent() == [1, 1, 1, 2]
    assert scene.prompts() == 1


async def test_a11_a_hanging_call_is_given_up(stage: Stage) -> None:
    """A11: within ten seconds, after one attempt; other profiles go on meanwhile; then the next code works."""
    robots = section("robots", "IfExists", source="robot")
    scene = await stage.open(profiles=PROFILES + robots, users=("franklin", "robot"))
    served = await scene.ask("plain")
    plain = scene.use("plain")
    await refused(scene.ask("web-admin"))
    began = scene.clock.boottime()
    answering = await scene.hung(scene.answered(await scene.code()), "GetSessionToken")
    assert await scene.get(plain) is served
    assert (await scene.ask("robots")).role_arn == role("IfExists")
    with pytest.raises(StsUnavailable, match="wait for the next one"):
        await scene.drive(answering)

    assert scene.clock.boottime() - began <= 10
    assert scene.counts()["GetSessionToken"] == 1
    assert scene.question().attempts_left == 3
    await scene.unhang()
    await scene.answer()
    await scene.ask("web-admin")
    assert scene.prompts() == 1


async def test_a12_what_is_no_code_is_not_sent(scene: Scene) -> None:
    """A12: refused here, no call, no attempt less."""
    await refused(scene.ask("web-admin"))
    for typed in ("12345", "1234567", "12a456", "١٢٣٤٥٦", " "):
        with pytest.raises(InvalidCode, match="six digits"):
            await scene.answer(typed)

    assert scene.counts() == {}
    assert scene.question().attempts_left == 3


async def test_a12_spaces_are_no_matter(scene: Scene) -> None:
    """A12: ` 123 456 ` is 123456."""
    await refused(scene.ask("web-admin"))
    code = await scene.code()
    await scene.answer(f" {code[:3]} {code[3:]} ")
    await scene.ask("web-admin")

    assert scene.counts() == {"GetSessionToken": 1, "AssumeRole": 1}


async def test_a13_a_cancel_holds_off_a_storm(scene: Scene) -> None:
    """A13: 100 requests a second for a minute after a cancel: no further question, every error at once."""
    use = scene.use("web-admin")
    await refused(scene.get(use))
    scene.daemon.desk.cancel(scene.question().id)
    grant = scene._endpoint.grant(use.token.reveal_bytes())
    plan = scene._endpoint.plan(grant, CREDENTIALS_PATH + grant.slug)
    slow = 0
    for _ in range(60):
        before = scene.clock.boottime()
        errors = [await refused(scene._endpoint.made(grant, plan, NOBODY)) for _ in range(100)]
        slow += scene.clock.boottime() != before
        assert {type(error) for error in errors} == {MfaRequired}
        assert all("vault-client mfa identity" in error.message for error in errors)
        await scene.advance(1)

    assert slow == 0
    assert scene.prompts() == 1
    assert not scene.asking()
    assert scene.counts() == {}


async def test_a14_a_replaced_device_is_found_once(stage: Stage) -> None:
    """A14: the serial found at `add` is gone: one detection, the question moves, the new device's code works."""
    scene = await stage.open(profiles=section("web-admin", "WebAdmin"))
    new = "arn:aws:iam::123456789012:mfa/franklins-new-phone"
    scene.strict.mutate(device={"serial": new, "user": FRANKLIN, "seed": scene.strict.seed()})
    typed = await scene.code()
    await refused(scene.ask("web-admin"))
    scene.strict.mutate(device={"serial": SERIAL, "removed": True})
    with pytest.raises(CodeRefused, match="franklins-new-phone"):
        await scene.answer(typed)
    assert scene.question().mfa_serial == new
    assert scene.question().attempts_left == 3
    await scene.advance(30)
    await scene.answer()
    await scene.ask("web-admin")

    assert scene.counts() == {"GetSessionToken": 2, "ListMFADevices": 1, "AssumeRole": 1}
    assert scene.prompts() == 1


async def test_a14_a_device_that_is_gone_is_named(stage: Stage) -> None:
    """A14: nothing has taken its place: the serial is named, the question ends, nobody is asked again."""
    scene = await stage.open(profiles=section("web-admin", "WebAdmin"))
    typed = await scene.code()
    await refused(scene.ask("web-admin"))
    scene.strict.mutate(device={"serial": SERIAL, "removed": True})
    with pytest.raises(DeviceRefused, match="mfa/franklin as one of identity: type `vault-client add"):
        await scene.answer(typed)
    again = await refused(scene.ask("web-admin"))

    assert isinstance(again, DeviceRefused)
    assert not scene.asking()
    assert scene.prompts() == 1
    assert scene.counts() == {"GetSessionToken": 1, "ListMFADevices": 1}


async def test_a16_one_authenticator_beside_a_passkey(stage: Stage) -> None:
    """A16: STS takes no passkey, so the authenticator is the device."""
    scene = await stage.open(users=())
    scene.strict.mutate(
        device={"serial": "arn:aws:iam::123456789012:u2f/user/franklin/key", "user": FRANKLIN, "kind": "u2f"}
    )
    added = await scene.add()

    assert added.mfa_serial == SERIAL
    endpoint = scene.plan("web-admin").last.endpoint
    assert list(await scene.drive(scene.keeper.detect("identity", endpoint=endpoint))) == [SERIAL]


async def test_a16_two_authenticators_are_asked_about(stage: Stage) -> None:
    """A16: both are named and nothing is stored; with the one that is chosen it goes."""
    scene = await stage.open(users=())
    second = "arn:aws:iam::123456789012:mfa/second"
    scene.strict.mutate(device={"serial": second, "user": FRANKLIN})
    with pytest.raises(BadRequest, match=r"several MFA devices: .*--mfa-serial ARN") as several:
        await scene.add()
    assert sorted(several.value.details["mfa_serials"]) == [SERIAL, second]
    assert scene.keeper.list() == ()

    assert (await scene.add(mfa_serial=SERIAL)).mfa_serial == SERIAL
    await scene.warm("web-admin")


async def test_a16_no_device_is_explained(stage: Stage) -> None:
    """A16: a user without one is stored without one; what that costs is said, and no code is asked."""
    bare = section("bare", "WebAdmin", source="robot") + "[profile robot]\nregion = us-east-1\n"
    scene = await stage.open(profiles=bare, users=("robot",))
    (robot,) = scene.keeper.list()
    assert (robot.user_arn, robot.mfa_serial) == (ROBOT, None)
    assert any("has no MFA device" in problem for problem in scene.plan("robot").problems)
    error = await refused(scene.ask("bare"))

    assert isinstance(error, RoleDenied)
    assert not scene.asking()
    assert scene.counts() == {"AssumeRole": 1}
