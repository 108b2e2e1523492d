"""Scenarios G5, the console sign-in, and G6, the acceptance: stock clients, as processes, at the real sockets
(scenarios §4.4).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.model.test_console import PARTITIONS
from tests.scenarios.bench import Scene, SceneClock, Use, refused
from tests.scenarios.conftest import Stage
from tests.strict_sts import READINGS
from vaultd.errors import BadRequest, Locked, MfaRequired, Misconfigured, RoleDenied, StsUnavailable
from vaultd.model.console import MadeSignIn
from vaultd.model.plan import Overrides
from vaultd.model.secret import Secret

HOURS = timedelta(hours=1)
OP = "getSigninToken"
CLI = (str(Path(sys.executable).parent / "aws"), "elasticbeanstalk", "describe-applications", "--output", "text")
SCRIPT = """\
import boto3
for application in boto3.client("elasticbeanstalk").describe_applications()["Applications"]:
    print(application["ApplicationName"])
"""
CLIENTS = {"cli": CLI, "boto3": (sys.executable, "-c", SCRIPT)}


@pytest.mark.parametrize("reading", READINGS[:1], indirect=True, ids=["any"])
@pytest.mark.parametrize("client", CLIENTS)
async def test_g6_a_stock_client_sees_prod_app(stage: Stage, moto: str, client: str) -> None:
    """G6: `elasticbeanstalk describe-applications` prints prod-app, with the keys of one AssumeRole."""
    scene = await stage.open(moto=moto, serving=True, clock=SceneClock(datetime.now(UTC)))
    await scene.warm("web-admin")
    status, said = await _run(scene, scene.use("web-admin"), CLIENTS[client])

    assert (status, "prod-app" in said) == (0, True), said
    (told,) = scene.calls("DescribeApplications")
    assert told.principal.endswith(":assumed-role/WebAdmin/franklin")
    assert scene.counts() == {"GetSessionToken": 1, "AssumeRole": 1, "DescribeApplications": 1}
    assert scene.prompts() == 1


@pytest.mark.parametrize("reading", READINGS[:1], indirect=True, ids=["any"])
@pytest.mark.parametrize("client", CLIENTS)
async def test_g6_a_stock_client_sees_prod_app_through_a_door(stage: Stage, moto: str, client: str) -> None:
    """G6 on IMDSv2: the same clients, by a door of the grant's own and nothing else."""
    scene = await stage.open(moto=moto, serving=True, clock=SceneClock(datetime.now(UTC)))
    await scene.warm("web-admin")
    use = await scene.use_imds("web-admin")
    status, said = await _run(scene, use, CLIENTS[client])

    assert (status, "prod-app" in said) == (0, True), said
    (told,) = scene.calls("DescribeApplications")
    assert told.principal.endswith(":assumed-role/WebAdmin/franklin")
    assert scene.counts() == {"GetSessionToken": 1, "AssumeRole": 1, "DescribeApplications": 1}
    assert scene.prompts() == 1
    assert scene.daemon.grants.last_used(use.grant.id) is not None


@pytest.mark.parametrize("reading", READINGS[:1], indirect=True, ids=["any"])
async def test_g6_nothing_without_the_door(stage: Stage, moto: str) -> None:
    """Positive control of G6 on IMDS: revoked, its port is closed, and the same client sees nothing."""
    scene = await stage.open(moto=moto, serving=True, clock=SceneClock(datetime.now(UTC)))
    await scene.warm("web-admin")
    use = await scene.use_imds("web-admin")
    scene.daemon.grants.revoke(use.grant.id, reason="a test")
    status, said = await _run(scene, use, CLIENTS["boto3"])

    assert status != 0
    assert "prod-app" not in said
    assert scene.calls("DescribeApplications") == []


@pytest.mark.parametrize("reading", READINGS[:1], indirect=True, ids=["any"])
async def test_g6_nothing_without_the_grant(stage: Stage, moto: str) -> None:
    """Positive control of G6: the same client with a revoked grant sees nothing."""
    scene = await stage.open(moto=moto, serving=True, clock=SceneClock(datetime.now(UTC)))
    await scene.warm("web-admin")
    use = scene.use("web-admin")
    scene.daemon.grants.revoke(use.grant.id, reason="a test")
    status, said = await _run(scene, use, CLIENTS["boto3"])

    assert status != 0
    assert "prod-app" not in said
    assert scene.calls("DescribeApplications") == []


# ---- G5 ----


async def signing(scene: Scene, profile: str, hours: float | None = None, **asked: Any) -> MadeSignIn:
    """`vault-client login`, to be driven."""
    duration = None if hours is None else hours * HOURS
    plan = scene.plan(profile, Overrides(duration=duration))
    return await scene.daemon.signins.make(plan, requester="vault-client login", **asked)


async def sign_in(scene: Scene, profile: str, hours: float | None = None, **asked: Any) -> MadeSignIn:
    return await scene.drive(signing(scene, profile, hours, **asked))


def sent(scene: Scene) -> list[tuple[str | None, int]]:
    """SessionDuration and status of each getSigninToken."""
    return [(call.params.get("SessionDuration"), call.status) for call in scene.calls(OP)]


def hosts(made: MadeSignIn) -> tuple[str, str]:
    """Where the browser goes, and where it ends."""
    url = urlsplit(made.url.reveal())
    return url.netloc, urlsplit(parse_qs(url.query)["Destination"][0]).netloc


async def test_g5_via_the_mfa_session(scene: Scene) -> None:
    """G5, via M: SessionDuration is absent, and the console ends with the role session; no code beyond the first."""
    session = await scene.warm("web-admin")
    made = await sign_in(scene, "web-admin", service="s3")

    assert sent(scene) == [(None, 200)]
    assert (made.console_until, made.session.access_key_id) == (session.expiration, session.access_key_id)
    assert made.expires - scene.clock.now() == timedelta(minutes=15)
    assert hosts(made)[1] == "us-east-1.console.aws.amazon.com"
    assert scene.counts() == {"GetSessionToken": 1, "AssumeRole": 1, OP: 1}


@pytest.mark.parametrize("reading", READINGS[:1], indirect=True, ids=["visible"])
async def test_g5_direct(scene: Scene) -> None:
    """G5, direct: eight hours take a code of their own, and SessionDuration is present."""
    assert isinstance(await refused(sign_in(scene, "long-ops", 8)), MfaRequired)
    assert scene.calls(OP) == []
    await scene.answer()
    made = await sign_in(scene, "long-ops", 8)

    assert sent(scene) == [("28800", 200)]
    assert made.console_until - scene.clock.now() == 8 * HOURS
    assert scene.counts() == {"AssumeRole": 1, OP: 1}


@pytest.mark.parametrize("reading", READINGS[:1], indirect=True, ids=["visible"])
async def test_g5_direct_and_capped_is_chained(scene: Scene) -> None:
    """A role that gives an hour only is had through the MFA session: no SessionDuration, no 400."""
    assert isinstance(await refused(sign_in(scene, "web-admin", 8)), MfaRequired)
    assert isinstance(await refused(scene.answer()), MfaRequired)  # an hour at most, by the next code
    await scene.answer()
    made = await sign_in(scene, "web-admin", 8)

    assert sent(scene) == [(None, 200)]
    assert made.console_until == made.session.expiration


async def test_g5_without_mfa_is_direct(stage: Stage) -> None:
    """The role of a user without a device comes straight from the key."""
    scene = await stage.open(users=("franklin", "robot"))
    made = await sign_in(scene, "plain", 1)
    assert sent(scene) == [("3600", 200)]
    assert made.console_until - scene.clock.now() == HOURS


@pytest.mark.parametrize("reading", READINGS[:1], indirect=True, ids=["any"])
@pytest.mark.parametrize(("partition", "region", "signin", "console"), PARTITIONS)
async def test_g5_each_partition(stage: Stage, partition: str, region: str, signin: str, console: str) -> None:
    """G5: each partition's hosts out of a profile, as the daemon plans it; what is not known is said."""
    scene = await stage.open()
    await scene.warm("web-admin")
    plan = scene.plan("web-admin")
    there = f"arn:{partition}:iam::234567890123:role/WebAdmin"
    made = scene.daemon.signins._site(  # the emulator's accounts are all in `aws`
        _moved(plan, there, region), service="ec2", region=None, logout_first=False
    )
    assert urlsplit(made.destination).netloc == console
    assert made.federation == f"{scene.strict.url}/federation"
    scene.daemon.signins._override = None
    made = scene.daemon.signins._site(_moved(plan, there, region), service=None, region=None, logout_first=False)
    assert made.federation == f"https://{signin}/federation"
    assert bool(made.doubt) is (partition == "aws-eusc")


def _moved(plan: Any, role_arn: str, region: str) -> Any:
    return replace(plan, role_arn=role_arn, region=region)


async def test_g5_a_profile_without_a_role(stage: Stage) -> None:
    """GetSessionToken opens no console: refused before a code is asked for, with what to type."""
    scene = await stage.open(profiles="[profile identity]\nregion = us-east-1\n")
    error = await refused(sign_in(scene, "identity"))
    assert isinstance(error, BadRequest)
    assert "has no role_arn" in error.message
    assert not scene.asking()


async def test_g5_a_session_that_aws_has_ended_is_made_anew(scene: Scene) -> None:
    """Old enough to have ended there: one new session, one more try, no code."""
    old = await scene.warm("web-admin")
    await scene.advance(300)
    scene.strict.revoke(akid=old.access_key_id)
    made = await sign_in(scene, "web-admin")

    assert sent(scene) == [(None, 400), (None, 200)]
    assert made.session.access_key_id != old.access_key_id
    assert scene.prompts() == 1


async def test_g5_a_new_session_that_aws_refuses(scene: Scene) -> None:
    """Not for its age, so nothing is made anew: one sentence."""
    new = await scene.warm("web-admin")
    scene.strict.revoke(akid=new.access_key_id)
    error = await refused(sign_in(scene, "web-admin"))

    assert type(error) is RoleDenied
    assert error.message.endswith("`vault-client explain web-admin`")
    assert scene.counts()["AssumeRole"] == 1


async def test_g5_throttled(scene: Scene) -> None:
    """Two throttlings pass unseen; three are a sentence, and nothing is lost by them."""
    await scene.warm("web-admin")
    scene.strict.fault("http", op=OP, arg=429, times=2)
    await sign_in(scene, "web-admin")
    scene.strict.fault("http", op=OP, arg=429, times=3)
    assert isinstance(await refused(sign_in(scene, "web-admin")), StsUnavailable)
    await sign_in(scene, "web-admin")
    assert [status for _, status in sent(scene)] == [429, 429, 200, 429, 429, 429, 200]


async def test_g5_locked_meanwhile(scene: Scene) -> None:
    """A URL that is made while somebody locks is not handed out."""
    await scene.warm("web-admin")
    task = await scene.hung(signing(scene, "web-admin"), OP)
    await scene.daemon.unlocking.lock(by=None)
    await scene.unhang()
    assert isinstance(await refused(scene.drive(task)), Locked | StsUnavailable)


async def test_g5_a_federation_url_that_is_not_allowed(scene: Scene) -> None:
    """VAULTD_FEDERATION_URL is honoured on loopback or where it is listed: named, and no key leaves."""
    await scene.warm("web-admin")
    scene.daemon.signins._override = "https://signin.evil.example/federation"
    error = await refused(sign_in(scene, "web-admin"))
    assert isinstance(error, Misconfigured)
    assert "VAULTD_FEDERATION_URL=https://signin.evil.example/federation" in error.message
    assert scene.calls(OP) == []


@pytest.mark.parametrize("reading", READINGS[:1], indirect=True, ids=["any"])
async def test_g5_the_url_is_nowhere(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """G5: URL in no log, file or audit line. Control: the URL does open the emulator's console."""
    caplog.set_level("DEBUG", logger="vaultd")
    scene = await stage.open()
    await scene.warm("web-admin")
    made = await sign_in(scene, "web-admin", token_code=Secret("123456"))
    await scene.stop()
    token = parse_qs(urlsplit(made.url.reveal()).query)["SigninToken"][0]
    written = b"".join(path.read_bytes() for path in scene.options.home.rglob("*") if path.is_file())

    assert token in scene.strict._emulator.state.sessions.signins
    assert token[:30].encode() not in written
    assert token[:30] not in caplog.text
    assert "SigninToken" not in caplog.text
    assert token[:30] not in repr(made)
    await scene.start()


# ---- G6, how it is run ----


async def _run(scene: Scene, use: Use, command: tuple[str, ...]) -> tuple[int | None, str]:
    environ: Mapping[str, str] = scene.environment(use)
    process = await asyncio.create_subprocess_exec(
        *command, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, said.decode()
