"""Scenarios E: a key is rotated, by its owner or behind his back (scenarios §4.4, aws-facts §2.1)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest

from tests.scenarios.bench import Scene, Use, refused, section
from tests.scenarios.conftest import Stage
from tests.strict_sts import FRANKLIN, SERIAL
from vaultd.engine.seams import Rotated
from vaultd.errors import IdentityBroken, MfaRequired, RoleDenied, RotationStopped, StsUnavailable, VaultdError
from vaultd.model.rotation import GRACE, LOOK_AGAIN, USABLE, Wish
from vaultd.model.secret import Secret

STEPS = ["intent", "pending", *["tried"] * USABLE, "swapped", "inactive"]
ENDS = {"inactive", "kept", "deleted", "reactivated", "abandoned"}
OWN_KEYS = "arn:aws:iam::123456789012:user/franklin"


async def step(scene: Scene, wish: Wish = "go", grace: timedelta | None = None) -> Rotated:
    """One step, to be driven; a code is typed where one is wanted."""
    rotations = scene.daemon.rotations
    try:
        return await rotations.step("identity", requester="vault-client rotate", by=None, wish=wish, grace=grace)
    except MfaRequired:
        code = Secret(await next_code(scene))
        return await rotations.step(
            "identity", requester="vault-client rotate", by=None, token_code=code, wish=wish, grace=grace
        )


async def next_code(scene: Scene) -> str:
    """`Scene.code` for what is driven: the person waits for the next one by the clock."""
    while (shown := scene.strict.totp()) in scene._typed:
        await scene.clock.sleep(30 - scene.clock.now().timestamp() % 30)
    scene._typed.add(shown)
    return shown


async def rotated(scene: Scene, grace: timedelta | None = None) -> list[Rotated]:
    """As the client does it, to be driven: step by step, two seconds between two looks."""
    done = [await step(scene, grace=grace)]
    while done[-1].did not in ENDS:
        if done[-1].did == "tried":
            await scene.clock.sleep(LOOK_AGAIN.total_seconds())
        done.append(await step(scene, grace=grace))
    return done


async def rotate(scene: Scene, grace: timedelta | None = None) -> list[str]:
    return [each.did for each in await scene.drive(rotated(scene, grace))]


def keys(scene: Scene) -> dict[str, str]:
    """AWS's keys of franklin, by their status."""
    return {key.id: key.status for key in scene.strict._emulator.state.world.keys_of(FRANKLIN)}


def asked(scene: Scene) -> list[tuple[str, str]]:
    """The calls of a rotation, and who signed them: a session (ASIA), or a long-term key (AKIA)."""
    own = ("AccessKey", "GetCallerIdentity", "GetSessionToken")
    return [(call.op, call.akid[:4]) for call in scene.calls() if call.op.startswith(own) or "AccessKey" in call.op]


@asynccontextmanager
async def watching(scene: Scene) -> AsyncIterator[None]:
    """The daemon's own task, which ends the grace."""
    task = asyncio.ensure_future(scene.daemon.rotations.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


# ---- E1 ----


async def test_e1_the_order_of_it(scene: Scene) -> None:
    """E1: §2.1's order in the call log, through the MFA session; Inactive, then deleted by the daemon after it."""
    old = scene.strict.key().id
    assert await rotate(scene) == STEPS
    (new,) = keys(scene).keys() - {old}

    assert asked(scene) == [
        ("GetCallerIdentity", "AKIA"),  # no code is asked for by a key that is no good
        ("GetSessionToken", "AKIA"),
        ("ListAccessKeys", "ASIA"),
        ("CreateAccessKey", "ASIA"),
        *[("GetCallerIdentity", "AKIA")] * USABLE,
        ("ListAccessKeys", "ASIA"),  # the new key is Active there, or the old one stays
        ("GetAccessKeyLastUsed", "ASIA"),
        ("UpdateAccessKey", "ASIA"),
    ]
    assert [call.akid for call in scene.calls("GetCallerIdentity")] == [old, new, new, new]
    assert keys(scene) == {old: "Inactive", new: "Active"}

    async with watching(scene):
        scene.clock.jump(GRACE.total_seconds())
        await scene.advance(120)
        assert keys(scene) == {old: "Inactive", new: "Active"}, "no code is asked for it"
        assert not scene.asking()
        await scene.warm("web-admin")
        await scene.advance(60)
    assert keys(scene) == {new: "Active"}
    assert scene.daemon._keeper.list()[0].rotation is None


async def test_e1_survives_restarts(scene: Scene) -> None:
    """A restart after each step: the same end, with one key made; the grace, too, is still known."""
    old = scene.strict.key().id
    did: list[str] = []
    while "inactive" not in did:
        did.append((await scene.drive(step(scene))).did)
        if did[-1] != "tried":  # the looks count within one life
            await scene.restart()

    assert did == STEPS
    assert len(scene.calls("CreateAccessKey")) == 1
    scene.clock.jump(GRACE.total_seconds())
    await scene.warm("web-admin")
    async with watching(scene):
        await scene.advance(60)
    assert old not in keys(scene)


async def test_e1_audit(scene: Scene) -> None:
    """Each arrow is a line `identity.rotate`, which shows four characters of the key that it is about."""
    old = scene.strict.key().id
    await rotate(scene, timedelta())
    await scene.drive(step(scene))
    (new,) = keys(scene)
    lines = [each for each in scene.daemon.audit.tail(100) if each["event"] == "identity.rotate"]

    assert [(each["reason"], each["access_key_id"]) for each in lines][:5] == [
        ("intent", old[-4:]),
        ("pending", new[-4:]),
        ("swapped", new[-4:]),
        ("inactive", old[-4:]),
        ("deleted", old[-4:]),
    ]
    assert {each["identity"] for each in lines} == {"identity"}


# ---- E2 ----


async def test_e2_two_keys_already(scene: Scene) -> None:
    """E2: stops before CreateAccessKey, names the other key, and nothing has changed."""
    scene.strict.mutate(key={"id": "AKIASTRICTFRANKLIN02", "secret": "x" * 40, "user": "franklin"})
    before = keys(scene)
    error = await refused(scene.drive(step(scene)))

    assert isinstance(error, RotationStopped)
    assert "there is AKIASTRICTFRANKLIN02 (Active, made " in error.message
    assert scene.calls("CreateAccessKey") == []
    assert keys(scene) == before


# ---- E4 ----


async def test_e4_the_new_key_takes_its_time(stage: Stage) -> None:
    """E4: usable after 12 s: it waits, the old key stays Active and in use, and no call with the new one is wasted."""
    scene = await stage.open(knobs={"key_propagation_s": {"sts": 12}})
    old = scene.strict.key().id
    steps = await scene.drive(rotated(scene))
    looks = [each.usable for each in steps if each.did == "tried"]

    assert looks == [0] * (len(looks) - 3) + [1, 2, 3]
    assert len(looks) >= 8
    made = scene.calls("CreateAccessKey")[0].time
    retired = scene.calls("UpdateAccessKey")[0].time
    assert (retired - made).total_seconds() >= 12
    assert sorted(keys(scene).values()) == ["Active", "Inactive"]
    assert keys(scene)[old] == "Inactive"


async def test_e4_never_usable(stage: Stage) -> None:
    """Not within 60 s: told, and both keys are as they were; later it goes on."""
    scene = await stage.open(knobs={"key_propagation_s": {"sts": 90}})
    old = scene.strict.key().id
    error = await refused(scene.drive(rotated(scene)))

    assert isinstance(error, RotationStopped)
    assert "is not usable yet after 60 s" in error.message
    assert set(keys(scene).values()) == {"Active"}
    await scene.advance(60)
    assert await rotate(scene) == [*["tried"] * USABLE, "swapped", "inactive"]
    assert keys(scene)[old] == "Inactive"


# ---- E6 ----


def forbid(scene: Scene, *actions: str) -> None:
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": list(actions), "Resource": "*"}]}
    scene.strict.mutate(policy={"principal": OWN_KEYS, "name": "no", "document": document if actions else None})


async def test_e6_the_old_key_cannot_be_retired(scene: Scene) -> None:
    """E6: reported; both keys usable; no delete. LastUsed, which W0 never grants, stops nothing."""
    forbid(scene, "iam:UpdateAccessKey")
    error = await refused(scene.drive(rotated(scene)))

    assert isinstance(error, RoleDenied)
    assert "iam:UpdateAccessKey" in error.message
    assert "both keys are Active, and the new one is in use" in error.message
    assert set(keys(scene).values()) == {"Active"}
    assert scene.calls("DeleteAccessKey") == []
    assert [call.error for call in scene.calls("GetAccessKeyLastUsed")] == ["AccessDenied"]
    forbid(scene)
    assert await rotate(scene) == ["inactive"]


@pytest.mark.parametrize("action", ["iam:ListAccessKeys", "iam:CreateAccessKey"])
async def test_e6_nothing_is_granted(scene: Scene, action: str) -> None:
    """Denied before anything was made: reported with the action, and the key in use is untouched."""
    forbid(scene, action)
    before = keys(scene)
    error = await refused(scene.drive(rotated(scene)))

    assert isinstance(error, RoleDenied)
    assert action in error.message
    assert error.message.endswith("then type `vault-client rotate identity`")
    assert keys(scene) == before


async def test_e6_the_daemon_lets_a_refusal_be(scene: Scene) -> None:
    """DeleteAccessKey denied after the grace: asked once a day, not once a minute; the old key stays Inactive."""
    await rotate(scene)
    forbid(scene, "iam:DeleteAccessKey")
    scene.clock.jump(GRACE.total_seconds())
    await scene.warm("web-admin")
    async with watching(scene):
        await scene.advance(600)
    assert len(scene.calls("DeleteAccessKey")) == 1
    assert "Inactive" in keys(scene).values()


# ---- E7 ----


async def poll(scene: Scene, use: Use, failures: list[VaultdError], seconds: float) -> None:
    """A crowd of SDKs: a request every 0.2 s while the key is rotated, every 15 s after that, for so long."""
    began = scene.clock.boottime()
    end = began + seconds
    while scene.clock.boottime() < end:
        try:
            await scene.got(use)
        except VaultdError as exc:
            failures.append(exc)
        await scene.clock.sleep(0.2 if scene.clock.boottime() - began < 30 else 15)


@pytest.mark.parametrize("propagation", [{}, {"sts": 12, "iam": 30}])
async def test_e7_clients_notice_nothing(stage: Stage, propagation: dict[str, float]) -> None:
    """E7: clients poll through all of a rotation and for two hours after it: not one failed request."""
    scene = await stage.open(knobs={"key_propagation_s": propagation})
    await scene.warm("web-admin")
    await scene.ask("audit")
    uses = [scene.use(name) for name in ("web-admin", "audit", "web-admin")]
    failures: list[VaultdError] = []
    before = [(await scene.get(use)).access_key_id for use in uses]

    async def person() -> None:
        """Types the code that the daemon asks for early, once the old MFA session is gone."""
        while scene.clock.boottime() < end:
            if scene.asking():
                await scene.answered(await next_code(scene))
            await scene.clock.sleep(30)

    end = scene.clock.boottime() + 7200
    polls = [poll(scene, use, failures, 7200) for use in uses]
    everything: list[Any] = [*polls, rotated(scene), person()]
    outcomes = await scene.together(everything)

    assert failures == []
    assert not [each for each in outcomes if isinstance(each, BaseException)]
    assert sorted(keys(scene).values()) == ["Active", "Inactive"]
    after = [(await scene.get(use)).access_key_id for use in uses]
    assert not set(before) & set(after), "control: sessions were renewed in that time, with the new key behind them"


async def test_e7_sessions_do_not_hang_on_the_key(scene: Scene) -> None:
    """The cells' fingerprints do not hold the key id: what was at hand before the swap is served after it."""
    first = await scene.warm("web-admin")
    use = scene.use("web-admin")
    await rotate(scene)
    assert await scene.get(use) is first
    await scene.restart()
    assert (await scene.get(use)).access_key_id == first.access_key_id


async def test_e7_a_profile_without_role(stage: Stage) -> None:
    """It is served the very MFA session of the old key: on, but due; one code, and it is of the new one."""
    scene = await stage.open(profiles="[profile identity]\nregion = us-east-1\n")
    first = await scene.warm("identity")
    use = scene.use("identity")
    await rotate(scene)
    assert await scene.get(use) is first
    assert scene.asking(), "whether AWS takes it still is not known"
    await scene.answer()
    await scene.advance(1)

    assert (await scene.get(use)).access_key_id != first.access_key_id


@pytest.mark.parametrize("code_between", [True, False])
async def test_e7_a_copy_whose_session_was_replaced(stage: Stage, *, code_between: bool) -> None:
    """A code given between swap and Inactive: the keeper has nothing of the old key's to drop, and the copy of it is
    doubted all the same; its next one takes no code, and is not doubted by the end of the grace. Control: without.
    """
    profiles = "[profile identity]\nregion = us-east-1\n\n" + section("web-admin", "WebAdmin", mfa_serial=SERIAL)
    scene = await stage.open(profiles=profiles, settings='[profiles.web-admin]\nmfa_max_age = "1h"\n')
    first = await scene.warm("identity")
    use = scene.use("identity")
    while (await scene.drive(step(scene))).did != "swapped":
        await scene.advance(LOOK_AGAIN.total_seconds())
    if code_between:
        scene.clock.jump(2 * 3600)
        await scene.warm("web-admin")
    inactive = await scene.drive(step(scene, grace=timedelta(hours=1)))

    assert (inactive.did, inactive.signed_out) == ("inactive", not code_between)
    assert scene.state("identity").state == "due"
    assert await scene.get(use) is first
    assert scene.asking() is not code_between
    if not code_between:
        await scene.answer()
    await scene.advance(1)
    second = await scene.get(use)
    assert second.access_key_id != first.access_key_id
    assert scene.state("identity").state == "fresh"

    scene.clock.jump(3600)
    before = scene.prompts()
    assert (await scene.drive(step(scene))).did == "deleted"
    assert await scene.get(use) is second
    assert scene.state("identity").state == "fresh", "of the key in use"
    assert scene.prompts() == before


# ---- E8 ----


async def test_e8_a_key_that_was_deleted_elsewhere(scene: Scene) -> None:
    """E8: `identity broken, re-add`, and no person is asked for a code; not for its rotation, either."""
    scene.strict.mutate(key={"id": scene.strict.key().id, "status": "deleted"})
    error = await refused(scene.ask("web-admin"))
    rotation = await refused(scene.drive(step(scene)))

    for each in (error, rotation):
        assert isinstance(each, IdentityBroken)
        assert "`vault-client add identity --replace`" in each.message
    assert scene.prompts() == 0
    assert scene.codes_sent() == []


async def test_e8_deleted_with_a_session_open(scene: Scene) -> None:
    """The MFA session outlives it: the list says that the key is gone, and nothing is made."""
    await scene.warm("web-admin")
    old = scene.strict.key().id
    scene.strict.mutate(key={"id": old, "status": "deleted"})
    error = await refused(scene.drive(step(scene)))

    assert isinstance(error, IdentityBroken)
    assert f"has no key …{old[-4:]}" in error.message
    assert scene.calls("CreateAccessKey") == []


# ---- AWS away under way ----


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ["http", "reset", "throttle"])
async def test_create_is_sent_once(scene: Scene, kind: str, when: str) -> None:
    """500, a reset, a throttling: CreateAccessKey is not repeated blindly; what it left is found and named."""
    old = scene.strict.key().id
    await scene.drive(step(scene))
    scene.strict.fault(kind, op="CreateAccessKey", when=when)
    error = await refused(scene.drive(step(scene)))
    assert isinstance(error, StsUnavailable)
    assert len(scene.calls("CreateAccessKey")) == 1

    if len(keys(scene)) == 1:
        assert when == "before"
        assert await rotate(scene) == STEPS[1:]
        return
    (stray,) = keys(scene).keys() - {old}
    stopped = await refused(scene.drive(step(scene)))
    assert isinstance(stopped, RotationStopped)
    assert stray in stopped.message
    assert keys(scene) == {old: "Active", stray: "Inactive"}
    assert (await scene.drive(step(scene, "abandon"))).did == "abandoned"
    assert keys(scene) == {old: "Active"}
    assert await rotate(scene) == STEPS


@pytest.mark.parametrize("op", ["ListAccessKeys", "UpdateAccessKey", "DeleteAccessKey"])
async def test_what_may_be_said_twice_is(scene: Scene, op: str) -> None:
    """A lost answer to any other call is no trouble: it is sent again."""
    for when in ("before", "after"):
        scene.strict.fault("http", op=op, when=when)
    await rotate(scene, timedelta())
    await scene.drive(step(scene)) if len(keys(scene)) > 1 else None
    assert list(keys(scene).values()) == ["Active"]


async def test_a_session_that_is_dead_costs_a_code(scene: Scene) -> None:
    """M was ended at AWS: it is dropped, one code is asked for, and the step is taken."""
    await scene.warm("web-admin")
    scene.strict.revoke(user=FRANKLIN)
    assert (await scene.drive(step(scene))).did == "intent"


async def test_undo(scene: Scene) -> None:
    """The old key works again, for whatever has it; the new one is in use; after another rotate it goes."""
    old = scene.strict.key().id
    await rotate(scene)
    assert (await scene.drive(step(scene, "undo"))).did == "reactivated"
    assert set(keys(scene).values()) == {"Active"}
    assert await rotate(scene) == ["inactive"]
    assert keys(scene)[old] == "Inactive"
