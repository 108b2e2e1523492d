"""Scenario G6 on both dialects: the acceptance. Stock clients, as processes, at the real sockets (scenarios §4.4)."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.scenarios.bench import Scene, SceneClock, Use
from tests.scenarios.conftest import Stage
from tests.strict_sts import READINGS

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


async def _run(scene: Scene, use: Use, command: tuple[str, ...]) -> tuple[int | None, str]:
    environ: Mapping[str, str] = scene.environment(use)
    process = await asyncio.create_subprocess_exec(
        *command, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, said.decode()
