"""Scenarios D: AWS away, busy, or saying no (scenarios §4.4)."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import pairwise

import pytest

from tests.scenarios.bench import PROFILES, Scene, refused, section
from tests.scenarios.conftest import Stage
from tests.strict_sts import FRANKLIN, SERIAL, role
from tests.strict_sts.faults import Faults
from vaultd.errors import IdentityBroken, MfaRequired, PolicyTooLarge, RegionDisabled, RoleDenied, StsUnavailable
from vaultd.model.plan import Overrides

BUSY = [f"team-{number:02}" for number in range(20)]
TEAM = "".join(section(name, "Audit", mfa_serial=SERIAL, role_session_name=name) for name in BUSY)
OFF = {"name": "ap-east-1", "account": "123456789012", "sts": False}
HONG_KONG = '[identities.identity]\nregion = "ap-east-1"\n'
FALLBACK = '[aws]\nsts_region_fallback = "us-east-1"\n'


def _mend(scene: Scene) -> None:
    """AWS is well again; `reset` would end every session with the faults."""
    scene.strict._emulator.faults = Faults()


async def test_d1_two_failures_are_waited_out(scene: Scene) -> None:
    """D1: 500, 500, then well: served, with three calls."""
    scene.strict.fault("http", op="AssumeRole", times=2)
    await scene.warm("web-admin")

    assert scene.counts() == {"GetSessionToken": 1, "AssumeRole": 3}
    assert scene.prompts() == 1


@pytest.mark.parametrize("seed", [1, 2])
async def test_d2_an_outage_is_sat_out_on_the_old_session(stage: Stage, seed: int) -> None:
    """D2: 503 for ten minutes with half an hour left: the old session is served, with at most 20 calls, jittered."""
    scene = await stage.open(jitter=random.Random(seed))
    first = await scene.warm("web-admin")
    use = scene.use("web-admin")
    await scene.advance((first.left(scene.clock.now())).total_seconds() - 2000)
    assert await scene.get(use) is first
    scene.mark()
    scene.strict.fault("http", op="AssumeRole", times=0, arg=503)
    while not scene.calls("AssumeRole"):
        await scene.advance(10)
    for _ in range(60):
        await scene.advance(10)
        assert await scene.get(use) is first
    tried = [call.time.timestamp() for call in scene.calls("AssumeRole")]
    pauses = [round(after - before, 1) for before, after in pairwise(tried)]

    assert 5 <= len(tried) <= 20
    assert len(set(pauses[-4:])) > 1
    assert scene.state("web-admin").last_error is not None
    _mend(scene)
    await scene.advance(100)
    assert await scene.get(use) is not first
    assert scene.prompts() == 1


@pytest.mark.parametrize("kind", ["http", "reset"])
async def test_d2_an_outage_after_silence_costs_one_patience(scene: Scene, kind: str) -> None:
    """D2 for an idle grant: its first GET tries for a new session; it and all others have the old one, in time."""
    first = await scene.warm("audit")
    use = scene.use("audit")
    await scene.advance(3000)
    scene.mark()
    scene.strict.fault(kind, times=0, arg=503 if kind == "http" else None)
    kept = []
    for _ in range(20):
        began = scene.clock.boottime()
        assert await scene.get(use) is first
        kept.append(scene.clock.boottime() - began)
        await scene.advance(1)

    assert kept[0] <= 0.81
    assert set(kept[1:]) == {0}
    assert 1 <= len(scene.calls("AssumeRole")) <= 6
    assert scene.prompts() == 1
    _mend(scene)
    await scene.advance(100)
    assert await scene.get(use) is not first


@pytest.mark.parametrize("kind", ["http", "reset"])
async def test_d3_an_outage_without_a_session_is_told(scene: Scene, kind: str) -> None:
    """D3: an error within a second and a half that gives the reason; nothing stale."""
    await scene.warm("audit")
    use = scene.use("audit")
    await scene.advance(3700)  # unused for so long, it was not kept fresh; M lives on
    scene.strict.fault(kind, times=0, arg=503 if kind == "http" else None)
    for _ in range(3):
        began = scene.clock.boottime()
        with pytest.raises(StsUnavailable, match="AWS in us-east-1 is unavailable: "):
            await scene.get(use)
        assert scene.clock.boottime() - began < 1.5
        await scene.advance(2)

    assert scene.prompts() == 1
    assert scene.state("audit").last_error is not None
    _mend(scene)
    await scene.advance(100)
    await scene.get(use)


async def test_d3_a_cold_start_without_aws(scene: Scene) -> None:
    """D3: nobody is asked for a code that could only be lost."""
    use = scene.use("audit")
    scene.strict.fault("http", times=0, arg=503)
    began = scene.clock.boottime()
    with pytest.raises(StsUnavailable, match="AWS in us-east-1 is unavailable: "):
        await scene.get(use)

    assert scene.clock.boottime() - began < 1.5
    assert scene.prompts() == 0


def _half(seed: int) -> Iterable[int]:
    """Which calls are throttled: every other one on the whole, in a random order."""
    chance = random.Random(seed)
    return (number + chance.randrange(2) for number in range(1, 400, 2))


@pytest.mark.parametrize("seed", [1, 2])
async def test_d5_half_of_all_calls_are_throttled(stage: Stage, seed: int) -> None:
    """D5: twenty profiles fall due at once: all are renewed within a minute, with at most three times the calls."""
    scene = await stage.open(profiles=PROFILES + TEAM)
    await scene.warm("audit")
    for name in BUSY:
        await scene.ask(name)
    await scene.advance(1790)
    uses = [scene.use(name) for name in BUSY]
    before = {name: (await scene.get(use)).access_key_id for name, use in zip(BUSY, uses, strict=True)}
    scene.mark()
    for number in _half(seed):
        scene.strict.fault("throttle", op="AssumeRole", nth=number)
    while not scene.calls("AssumeRole"):
        await scene.advance(1)
    await scene.advance(60)
    after = {name: (await scene.get(use)).access_key_id for name, use in zip(BUSY, uses, strict=True)}

    assert all(after[name] != before[name] for name in BUSY)
    assert 20 < scene.counts()["AssumeRole"] <= 60
    assert scene.prompts() == 1


async def test_d6_an_mfa_session_that_aws_ended(scene: Scene) -> None:
    """D6: ExpiredToken on M: it is dropped, one question, then the role is assumed."""
    await scene.warm("web-admin")
    assert scene.strict.revoke(kind="gst-mfa", as_="expired") == 1
    scene.mark()
    assert isinstance(await refused(scene.ask("audit")), MfaRequired)
    await scene.answer()
    await scene.ask("audit")

    assert [call.error for call in scene.calls("AssumeRole")] == ["ExpiredToken", ""]
    assert scene.counts() == {"AssumeRole": 2, "GetSessionToken": 1}
    assert scene.prompts() == 2


@pytest.mark.parametrize("profile", ["web-admin", "plain"])
async def test_d8_a_wrong_secret_is_told_without_asking(stage: Stage, profile: str) -> None:
    """D8: the stored secret is named as wrong, after one call, and nobody is asked for a code."""
    scene = await stage.open(users=("franklin", "robot"))
    for user in ("franklin", "robot"):
        scene.strict.mutate(key={"user": user, "id": scene.strict.key(user).id, "secret": "another/secret"})
    await scene.restart()
    scene.mark()
    for _ in range(2):
        with pytest.raises(IdentityBroken, match=r"stored secret of identity .* is wrong"):
            await scene.ask(profile)

    assert len(scene.calls()) == 1
    assert scene.prompts() == 0


async def test_d10_sts_is_off_in_the_region(stage: Stage) -> None:
    """D10: region and account are named."""
    scene = await stage.open(settings=HONG_KONG)
    scene.strict.mutate(region=OFF)
    await refused(scene.ask("audit"))
    with pytest.raises(RegionDisabled, match="ap-east-1 for account 123456789012"):
        await scene.answer()
    with pytest.raises(RegionDisabled, match="ap-east-1 for account 123456789012"):
        await scene.ask("audit")

    assert scene.prompts() == 1
    assert scene.counts() == {"GetSessionToken": 1}


async def test_d10_the_fallback_region_takes_over(stage: Stage) -> None:
    """D10: configured, it serves; the code that went to the region that is off is not sent again."""
    scene = await stage.open(settings=HONG_KONG + FALLBACK)
    scene.strict.mutate(region=OFF)
    await refused(scene.ask("audit"))
    told = await refused(scene.answer())
    assert "ap-east-1" in told.message
    assert "us-east-1" in told.message
    assert scene.question().attempts_left == 3
    await scene.answer()
    await scene.ask("audit")

    assert [call.region for call in scene.calls() if call.op != "GetCallerIdentity"] == [
        "ap-east-1",
        "us-east-1",
        "us-east-1",
    ]
    assert scene.prompts() == 1


async def test_d11_a_policy_that_does_not_fit(stage: Stage) -> None:
    """D11: AWS's percentage is surfaced; the second request is answered from memory."""
    scene = await stage.open(knobs={"packed_limit_bytes": 100})
    statement = '{"Effect":"Allow","Action":"elasticbeanstalk:Describe*","Resource":"*"}'
    large = Overrides(policy='{"Version":"2012-10-17","Statement":[' + ",".join([statement] * 4) + "]}")
    await refused(scene.ask("web-admin", large))
    await scene.answer()
    for _ in range(2):
        with pytest.raises(PolicyTooLarge, match=r"3\d\d%"):
            await scene.ask("web-admin", large)

    assert scene.counts() == {"GetSessionToken": 1, "AssumeRole": 1}
    assert scene.prompts() == 1
    await scene.ask("web-admin")  # without it, it is served


STYLES = ("bare", "2021", "2026")
NEVER = {"Effect": "Deny", "Action": "sts:AssumeRole", "Resource": role("Hidden")}


async def _forbidden(stage: Stage, style: str) -> Scene:
    """Franklin is told no, by a policy that the newest style names."""
    scene = await stage.open(knobs={"denied_style": style})
    document = {"Version": "2012-10-17", "Statement": NEVER}
    scene.strict.mutate(policy={"principal": FRANKLIN, "name": "never", "document": document})
    await refused(scene.ask("hidden"))
    await scene.answer()
    return scene


@pytest.mark.parametrize("style", STYLES)
async def test_d12_a_denial_in_every_style_is_one(stage: Stage, style: str) -> None:
    """D12: whatever AWS appends, it is the same refusal, told in `status` in AWS's words, and no reason to ask."""
    scene = await _forbidden(stage, style)
    errors = [await refused(scene.ask("hidden")) for _ in range(2)]

    assert {type(error) for error in errors} == {RoleDenied}
    assert scene.counts() == {"GetSessionToken": 1, "AssumeRole": 1}
    assert scene.prompts() == 1
    last = scene.state("hidden").last_error
    assert last is not None
    assert last["code"] == "RoleDenied"
    assert "AWS refused: sts:AssumeRole on arn:aws:iam::234567890123:role/Hidden" in last["message"]
    assert last["message"].endswith("`vault-client explain hidden`")
    assert scene.state("hidden").state == "error"


async def test_d12_the_styles_do_differ(stage: Stage) -> None:
    """Positive control of D12: the three worlds word it differently."""
    texts = set()
    for style in STYLES:
        scene = await _forbidden(stage, style)
        await refused(scene.ask("hidden"))
        texts.add(next(event["errorMessage"] for event in scene.strict.audit() if event.get("errorMessage")))
    assert len(texts) == len(STYLES)
