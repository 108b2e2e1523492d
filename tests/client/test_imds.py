"""`use --imds` and `exec --imds`: the other dialect's variables, both ways and back (issue 4, Build 1)."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from tests.client.conftest import Run
from tests.client.stub import CONTAINER, TOKEN, UNSET, Stub
from tests.client.test_shell import ALL, evaluate, unuse, use, variables

IMDS = UNSET[-4:]
SHOW = "import json, os; print(json.dumps(dict(os.environ)))"


def test_exec(process: Run, stub: Stub) -> None:
    """Asked for by name; its variables and none of the container endpoint's, whatever was there before."""
    before = {**dict.fromkeys(CONTAINER, "old"), "AWS_EC2_METADATA_V1_DISABLED": "false"}
    ended = process("exec", "web-admin", "--imds", "--", sys.executable, "-I", "-c", SHOW, **before)
    found = json.loads(ended.out)

    assert (ended.status, ended.err) == (0, "")
    assert stub.asked("POST", "/v1/grants") == [{"profile": "web-admin", "kind": "exec", "imds": True}]
    assert [found[name] for name in IMDS] == [f"http://127.0.0.1:{stub.port}/"] * 2 + ["IPv4", "true"]
    assert not set(CONTAINER) & set(found)
    assert found["NO_PROXY"] == found["no_proxy"] == "127.0.0.1,localhost"
    assert found["VAULTD_GRANT"] == "g1"


def test_exec_that_cannot_run_revokes(process: Run, stub: Stub, tmp_path: Any) -> None:
    """As without --imds: nobody has the door."""
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)

    assert process("exec", "web-admin", "--imds", "--", str(script)).status == 127
    assert stub.asked("DELETE", "/v1/grants/g1") == [None]


def test_static_keys_and_a_metadata_endpoint_exclude_each_other(process: Run, stub: Stub) -> None:
    """A usage error, before anything is asked."""
    ended = process("exec", "web-admin", "--imds", "--env", "--", "true")

    assert (ended.status, stub.requests) == (2, [])
    assert ended.err == "vault-client: exec: --imds and --env exclude each other: choose one\n"


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "another host": ({"AWS_METADATA_ENDPOINT": "http://169.254.169.254/"}, "an address that is not on 127.0.0.1"),
    "a name": ({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://localhost:80/"}, "an address that is not on 127.0.0.1"),
    "userinfo": ({"AWS_METADATA_ENDPOINT": "http://127.0.0.1:1@evil/"}, "an address that is not on 127.0.0.1"),
    "https": ({"AWS_METADATA_ENDPOINT": "https://127.0.0.1:1/"}, "an address that is not on 127.0.0.1"),
    "nothing": ({"AWS_METADATA_ENDPOINT": ""}, "an address that is not on 127.0.0.1"),
    "the other endpoint": ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "x"}, "the variables of the other endpoint"),
    "a token": ({"AWS_CONTAINER_AUTHORIZATION_TOKEN": "x"}, "the variables of the other endpoint"),
    "switched off": ({"AWS_EC2_METADATA_DISABLED": "false"}, "left the metadata endpoint switched off"),
}


@pytest.mark.parametrize("case", list(BAD))
@pytest.mark.parametrize("line", ["use web-admin --imds --shell sh", "exec web-admin --imds -- true"])
def test_an_answer_that_would_send_tools_elsewhere(process: Run, stub: Stub, case: str, line: str) -> None:
    """Nothing is printed or run; the grant is ended; what to type is said."""
    changes, said = BAD[case]
    grant = stub.imds_grant()
    grant["set"].update(changes)
    stub.answers["POST", "/v1/grants"] = (201, grant)
    ended = process(*line.split())

    assert (ended.status, ended.out) == (1, "false;\n" if line.startswith("use") else "")
    assert said in ended.err
    assert ended.err.endswith(": type `vaultd restart`\n")
    assert stub.asked("DELETE", "/v1/grants/g1") == [None]


@pytest.mark.parametrize("end", ["", "/x", "/latest/"])
def test_the_closing_slash_is_all_that_comes_after_the_port(process: Run, stub: Stub, end: str) -> None:
    """Without it AWS CLI 2 asks http://127.0.0.1:PORTlatest (sdk-facts §10.1); six SDKs drop a path (§6)."""
    grant = stub.imds_grant()
    grant["set"]["AWS_METADATA_ENDPOINT"] = f"http://127.0.0.1:{stub.port}{end}"
    stub.answers["POST", "/v1/grants"] = (201, grant)

    assert "does not end in its port and a slash" in process("use", "web-admin", "--imds", "--shell", "sh").err


def test_the_port_must_be_ours(process: Run, stub: Stub) -> None:
    """Nobody listens at the address that is told: no line comes out. Control: with the listener it does."""
    assert process("use", "web-admin", "--imds", "--shell", "sh").status == 0
    stub.endpoint.close()
    ended = process("use", "web-admin", "--imds", "--shell", "sh")

    assert (ended.status, ended.out) == (1, "false;\n")
    assert f"nobody listens on 127.0.0.1:{stub.port}" in ended.err


def test_a_container_answer_is_held_to_its_own_dialect(process: Run, stub: Stub) -> None:
    """The same check the other way round."""
    stub.answers["POST", "/v1/grants"] = (201, stub.imds_grant())
    ended = process("use", "web-admin", "--shell", "sh")

    assert (ended.status, ended.out) == (1, "false;\n")
    assert "the variables of the other endpoint" in ended.err


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("before", [None, "", "true", "false"])
def test_there_and_back(name: str, before: str | None, stub: Stub) -> None:
    """Between the two forms and back to what was there, unset told from empty: in every shell, in both orders."""
    given = {"AWS_METADATA_ENDPOINT": "http://mine/", "AWS_CONTAINER_AUTHORIZATION_TOKEN": "mine"}
    if before is not None:
        given["AWS_EC2_METADATA_DISABLED"] = before
    container, metadata = use(name), use(name, "web-admin --imds")
    cut = "env; echo ----\n"
    script = f"{cut}{metadata}{cut}{container}{cut}{metadata}{cut}{unuse(name)}{cut}"
    script += f"{container}{metadata}{unuse(name)}env"
    parts = [variables(part) for part in evaluate(name, script, stub, **given).split("----")]
    first, there, back, again, ended, other = parts

    for found in (there, again):
        assert found["AWS_EC2_METADATA_SERVICE_ENDPOINT"] == f"http://127.0.0.1:{stub.port}/"
        assert not set(CONTAINER) & set(found)
    assert back["AWS_CONTAINER_AUTHORIZATION_TOKEN"] == TOKEN
    assert back["AWS_EC2_METADATA_DISABLED"] == "true"
    assert not set(IMDS) & set(back)
    assert first == ended == other
    assert first.get("AWS_EC2_METADATA_DISABLED") == before


@pytest.mark.parametrize("shell", ["bash", "fish", "pwsh"])
def test_the_originals_are_kept_by_reference(process: Run, shell: str) -> None:
    """No value of the user's passes through the lines, PowerShell's included."""
    out = process("use", "web-admin", "--imds", "--shell", shell, AWS_EC2_METADATA_DISABLED="canary-value").out

    assert "_vaultd_old_AWS_EC2_METADATA_DISABLED" in out
    assert "canary-value" not in out
    drop = {"bash": "unset ", "fish": "set -eg ", "pwsh": "Remove-Item -ErrorAction SilentlyContinue Env:"}[shell]
    assert f"{drop}AWS_EC2_METADATA_DISABLED;" in out
