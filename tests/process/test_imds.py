"""A door of a real daemon: an open shell's port and metadata token, through restart, kill -9 and a squatter."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.process.harness import SHOW_KEYS, Emulator, Home, until, variables
from tests.process.test_scenarios import SHOW_APPS
from tests.process.wire import Reply, talk

pytestmark = pytest.mark.process

KEYS = "/latest/meta-data/iam/security-credentials/"


@dataclass
class Door:
    """What `use --imds` left in a shell, and what an SDK there does with it."""

    grant: dict[str, Any]
    token: str = ""

    @classmethod
    def open(cls, home: Home, emulator: Emulator, profile: str = "web-admin") -> Door:
        """With the identity's MFA session open, and a token asked for."""
        assert home.client("mfa", "--token-code", emulator.code()).status == 0
        door = cls(home.link("POST", "/v1/grants", {"profile": profile, "kind": "lease", "imds": True}))
        put = talk(door.port, "PUT /latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 21600")
        assert put.status == 200, put
        door.token = put.body.decode()
        return door

    @property
    def port(self) -> int:
        endpoint: str = self.grant["set"]["AWS_EC2_METADATA_SERVICE_ENDPOINT"]
        return int(endpoint.rstrip("/").rpartition(":")[2])

    def get(self, path: str) -> Reply:
        return talk(self.port, f"GET {path}", f"X-aws-ec2-metadata-token: {self.token}")

    def works(self) -> None:
        """Role list and keys, with the token of before."""
        listed = self.get(KEYS)
        assert (listed.status, listed.body) == (200, b"web-admin")
        keys = self.get(f"{KEYS}web-admin")
        assert (keys.status, json.loads(keys.body)["Code"]) == (200, "Success")


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # in the backlog of a listener that closes just now
        return False
    return False


@contextmanager
def squatting(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that listens on `port`."""
    script = (
        f"import socket, sys; s = socket.create_server(('127.0.0.1', {port})); print(1, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        try:
            yield process
        finally:
            process.kill()


def test_an_open_shell_goes_on(home: Home, emulator: Emulator) -> None:
    """`vaultd restart`, kill -9 and a start: the same port, the same metadata token, no code asked for again."""
    door = Door.open(home, emulator)
    door.works()
    asked = home.asked()

    assert home.run("vaultd", "restart").status == 0
    door.works()

    home.kill(signal.SIGKILL)
    until(lambda: refused(door.port), "the last of its threads lets go of the socket")
    assert home.run("vaultd", "start").status == 0
    door.works()
    assert home.asked() == asked
    ran = home.run("python", "-c", SHOW_APPS, environment=door.grant["set"])
    assert ran.out == "prod-app\n", ran

    assert home.client("revoke", door.grant["id"]).status == 0
    assert refused(door.port)


def test_a_taken_port_is_revoked_and_named(home: Home, emulator: Emulator) -> None:
    """Another process has the port by the next start: the grant ends; start, status, both logs say which and why."""
    door = Door.open(home, emulator)
    assert home.run("vaultd", "stop").status == 0
    with squatting(door.port):
        started = home.run("vaultd", "start")
        status = home.client("status")
        taken = f"its IMDS port {door.port} is taken by "
        assert started.status == 0, started
        for said in (started.out + started.err, status.out + status.err):
            assert f"grant {door.grant['id']} of profile web-admin is revoked, because {taken}" in said
            assert "vault-client use --imds web-admin" in said
        assert taken in home.run("vaultd", "logs").out
        (line,) = [each for each in home.audit() if each["event"] == "grant.revoke"]
        assert (line["grant"], line["reason"].startswith(taken)) == (door.grant["id"], True)
        assert home.link("GET", "/v1/grants") == {"grants": []}


def test_use_and_exec_with_imds(home: Home, emulator: Emulator) -> None:
    """The client's own way: the variables of `use --imds` serve the stock CLI, `exec --imds` a boto3; G6 on both."""
    used = home.client("use", "web-admin", "--imds", "--shell", "sh", "--token-code", emulator.code())
    assert used.status == 0, used
    shell = {name: value for name, value in variables(used.out).items() if name not in ("PATH", "PWD", "SHLVL", "_")}
    apps = (
        "elasticbeanstalk",
        "describe-applications",
        "--query",
        "Applications[].ApplicationName",
        "--output",
        "text",
    )
    ran = home.run("aws", *apps, "--endpoint-url", emulator.url, environment=shell)
    became = home.client("exec", "web-admin", "--imds", "--", "python", "-c", SHOW_KEYS)

    assert (ran.status, ran.out) == (0, "prod-app\n"), ran
    assert became.status == 0, became
    (issued,) = emulator.calls("AssumeRole")
    assert became.json()["key"] == issued["issued"]
    assert all("AWS_CONTAINER_CREDENTIALS_FULL_URI" not in name for name in shell)


def test_a_door_closes_with_its_command(home: Home, emulator: Emulator, tmp_path: Path) -> None:
    """`exec --imds`, killed by SIGKILL: its port is closed within 5 s, and its grant gone."""
    assert home.client("mfa", "--token-code", emulator.code()).status == 0
    told = tmp_path / "endpoint"
    script = f'printenv AWS_EC2_METADATA_SERVICE_ENDPOINT > "{told}.new"; mv "{told}.new" "{told}"; exec sleep 600'
    command = ["vault-client", "exec", "web-admin", "--imds", "--", "sh", "-c", script]
    with subprocess.Popen(command, env=home.env, stdin=subprocess.DEVNULL) as process:
        try:
            until(told.exists, "the command tells its endpoint")
            port = int(told.read_text().strip().rstrip("/").rpartition(":")[2])
            assert not refused(port)
        finally:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
    until(lambda: refused(port), "its port is closed", seconds=5)
    assert home.link("GET", "/v1/grants") == {"grants": []}
