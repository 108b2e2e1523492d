"""The templates are what decides: a tampered copy changes the outcome of its scenario, seen through the broker.

Rule (issue 3 item 8): each outcome function runs a scenario in the true world and in the tampered one; `before` and
`after` are the tamper's own words. Scenarios E (rotation) are not this issue's.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest

from tests.scenarios.bench import PROFILES, Scene, refused, section
from tests.scenarios.conftest import Stage
from tests.strict_sts import READINGS, SERIAL, role
from tests.strict_sts.bench import Bench
from tests.strict_sts.bench import outcome as outcome_of
from tests.strict_sts.tampered import DENIED, OK, TAMPERS, UNDENIABLE, Tamper
from vaultd.errors import MfaRequired, RoleDenied, VaultdError
from vaultd.model.credentials import RoleSession

STRANGER = "arn:aws:iam::999999999999:user/stranger"
STRANGERS_DEVICE = "arn:aws:iam::999999999999:mfa/stranger"
MORE = (
    PROFILES
    + section("bare", "WebAdmin", source="robot")
    + section("strange", "WebAdmin", source="stranger", mfa_serial=STRANGERS_DEVICE)
)


async def _outcome(asked: Awaitable[RoleSession]) -> str:
    """In the words of the tampers: what AWS said to the last call, as the broker tells it."""
    try:
        await asked
    except (RoleDenied, MfaRequired):
        return DENIED
    return OK


async def webadmin(scene: Scene) -> str:
    """A1."""
    return await _outcome(scene.warm("web-admin"))


async def bare_key_opens_webadmin(scene: Scene) -> str:
    """A1's reason: without a code there is no way in."""
    await scene.add("robot")
    return await _outcome(scene.ask("bare"))


async def _at_age(seconds: float, scene: Scene) -> str:
    """B1, B3: a session under an MFA session of that age, without a further question."""
    await scene.warm("audit")
    await scene.advance(seconds - scene.age())
    return await _outcome(scene.ask("web-admin"))


async def webadmin_for_twelve_hours(scene: Scene) -> str:
    """C2: whether the first call, for twelve hours, was taken."""
    await refused(scene.ask("web-admin-12h"))
    try:
        await scene.answer()
    except VaultdError:
        return scene.calls("AssumeRole")[0].error
    return OK if (await scene.ask("web-admin-12h")).lifetime.total_seconds() == 43200 else DENIED


async def stranger_opens_webadmin(scene: Scene) -> str:
    """D12: somebody of another account, with MFA and every permission of their own."""
    everything = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}
    scene.strict.mutate(
        user={"arn": STRANGER},
        key={"user": STRANGER.rpartition("/")[2], "id": "AKIASTRANGERSTRANGER", "secret": "stranger"},
        device={"serial": STRANGERS_DEVICE, "user": STRANGER},
        policy={"principal": STRANGER, "name": "all", "document": everything},
    )
    await scene.add("stranger", mfa_serial=STRANGERS_DEVICE)
    return await _outcome(scene.warm("strange"))


async def role_nobody_was_given(scene: Scene) -> str:
    """D12: a role that trusts the identity account, but that franklin's policies do not name."""
    trusting = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "123456789012"}}
    scene.strict.mutate(role={"arn": role("Hidden"), "trust": {"Version": "2012-10-17", "Statement": trusting}})
    return await _outcome(scene.warm("hidden"))


async def describe_applications(scene: Scene) -> str:
    """G6: stock boto3 with what the broker serves."""
    session = await scene.warm("web-admin")
    keys = {
        "AccessKeyId": session.access_key_id,
        "SecretAccessKey": session.secret_access_key.reveal(),
        "SessionToken": session.session_token.reveal(),
    }
    bench = Bench(scene.strict)
    client = bench.client("elasticbeanstalk", keys)
    return await asyncio.to_thread(outcome_of, client.describe_applications)


async def bare_key_lists_devices(scene: Scene) -> str:
    """A16: the detection that `add` makes with the bare key."""
    endpoint = scene.plan("web-admin").last.endpoint
    try:
        found = await scene.drive(scene.keeper.detect("identity", endpoint=endpoint))
    except RoleDenied:
        return DENIED
    return OK if list(found) == [SERIAL] else "nothing"


OUTCOMES: Mapping[str, Callable[[Scene], Awaitable[str]]] = {
    "webadmin": webadmin,
    "bare_key_opens_webadmin": bare_key_opens_webadmin,
    "webadmin_at_age_3400": functools.partial(_at_age, 3400),
    "webadmin_at_age_3600": functools.partial(_at_age, 3600),
    "webadmin_at_age_3601": functools.partial(_at_age, 3601),
    "webadmin_for_twelve_hours": webadmin_for_twelve_hours,
    "stranger_opens_webadmin": stranger_opens_webadmin,
    "role_nobody_was_given": role_nobody_was_given,
    "describe_applications": describe_applications,
    "bare_key_lists_devices": bare_key_lists_devices,
}
CHOSEN = [tamper for tamper in TAMPERS if tamper.probe in OUTCOMES]


def test_there_are_ten_and_more() -> None:
    """Issue 3 item 8; what is left out is rotation's."""
    assert len(CHOSEN) >= 10
    assert all(tamper.scenario[0] == "E" for tamper in TAMPERS if tamper not in CHOSEN)


@pytest.mark.parametrize("reading", READINGS[:1], indirect=True, ids=["any"])
@pytest.mark.parametrize("tamper", [*CHOSEN, UNDENIABLE], ids=lambda tamper: tamper.name)
async def test_outcome(stage: Stage, tmp_path: Path, moto: str, tamper: Tamper) -> None:
    """The true templates give `before`, the tampered ones `after`; an edit of no effect changes nothing."""
    seen = []
    for templates in ({}, tamper.templates(tmp_path)):
        data = moto if tamper.probe == "describe_applications" else None
        scene = await stage.open(profiles=MORE, templates=templates, moto=data)
        seen.append(await OUTCOMES[tamper.probe](scene))

    assert seen == [tamper.before, tamper.after]
