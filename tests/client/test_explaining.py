"""`explain`: how long a code lasts, what would go wrong, and what AWS says when it is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.client.conftest import Run
from tests.client.stub import IDENTITY, PROFILE, ROLE, SERIAL, Stub

MFA: dict[str, Any] = {"kind": "mfa_session", "source": "identity key", "values": [], "duration_seconds": 43200}
ROLE_STEP: dict[str, Any] = {
    "kind": "assume_role", "source": "mfa_session", "values": [], "duration_seconds": 3600, "role_arn": ROLE,
}  # fmt: skip


def plan(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"profile": "web-admin", "identity": "identity", "mfa_serial": SERIAL, "steps": list(steps), "problems": [],
            **more}  # fmt: skip


@pytest.fixture
def told(run: Run, stub: Stub, tmp_path: Path) -> Any:
    """What `explain` prints of a plan, and of the row that `list` has."""

    def told(answer: dict[str, Any], *options: str, status: int = 0, **row: Any) -> str:
        where = "/v1/profiles/web-admin/plan" + ("?check" if "--check" in options else "")
        stub.answers["GET", where] = (200, answer)
        stub.answers["GET", "/v1/profiles"] = (200, {"profiles": [{**PROFILE, **row}]})
        ended = run("explain", "web-admin", *options, HOME=str(tmp_path))
        assert (ended.status, ended.err) == (status, "")
        return ended.out

    return told


def test_how_long_a_code_lasts(told: Any) -> None:
    """As long as the MFA session, or until AWS's limit on its age and the last role session's end."""
    limit = {"field": "mfa_max_age", "value": "3600s", "source": "[profiles.web-admin] mfa_max_age"}
    limited = {**ROLE_STEP, "values": [limit]}

    assert "one code lasts 12h, or less where a policy of AWS limits its age" in told(plan(MFA, ROLE_STEP))
    assert "one code lasts about 2h: AssumeRole until it is 3600s old ([profiles.web-admin] mfa_max_age)" in told(
        plan(MFA, limited)
    )
    assert "one code" not in told(plan(ROLE_STEP))


WRONG: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (plan(ROLE_STEP, mfa_serial=None), {}, ("no MFA device is known, so AWS refuses a role whose policy asks for MFA: "
     "write mfa_serial = ARN under [profile web-admin] in ~/.aws/config")),
    (plan(MFA, {**ROLE_STEP, "duration_seconds": 900}), {}, "with --imds calls can fail with ExpiredToken"),
    (plan(MFA, problems=["config:3 is \x1b[2J: mend it"]), {}, "config:3 is ?[2J: mend it"),
    (plan(MFA, ROLE_STEP, callers={"allow_executables": ["/bin/sh", "/bin/nope"]}), {},
     "allow_executables lets nobody in by /bin/nope, which is no program here: correct that path, then type"),
    (plan(MFA, ROLE_STEP, callers={"allow_executables": []}), {},
     "allow_executables is empty, so no program is given its keys: name one there, then type `vaultd restart`"),
    (plan(MFA, ROLE_STEP), {"state": "locked"}, "vaultd is locked and serves nothing: type `vault-client unlock`"),
    (plan(MFA, ROLE_STEP), {"state": "mfa_required"}, "type `vault-client mfa identity`"),
    (plan(MFA, ROLE_STEP), {"state": "expired"}, "its session has expired: type `vault-client refresh web-admin`"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "row", "said"), WRONG, ids=range(len(WRONG)))
def test_what_would_go_wrong(told: Any, answer: dict[str, Any], row: dict[str, Any], said: str) -> None:
    """One line each, which ends in what to type."""
    (line,) = [line for line in told(answer, **row).partition("what would go wrong:\n")[2].splitlines() if line]

    assert line.startswith(f"  - {said}") or said in line


def test_no_value_moves_the_cursor(told: Any) -> None:
    """Of the daemon's, in any place. Control: the value is there."""
    name = "a\x1b[2J\u202eb"
    value = {"field": name, "value": name, "source": name}
    row = {"state": name, "last_error": {"message": name, "time": None}}
    steps = [{**MFA, "kind": name, "source": name, "values": [value]}, ROLE_STEP]
    check = {"name": name, "ok": False, "message": name}
    said = told(plan(*steps, profile=name, identity=name, problems=[name], checks=[check]), "--check", status=1, **row)

    assert not [line for line in said.splitlines() if not line.isprintable()]
    assert said.count("a?[2J?b") >= 10


def test_nothing_wrong(told: Any) -> None:
    """Control: a plan that is well, with a session that lives."""
    said = told(plan(MFA, ROLE_STEP))

    assert said.endswith("\n\nnothing is known that would go wrong\n")
    assert "its session now: fresh, 55m left" in said


def test_a_no_of_aws_is_no_all_clear(told: Any) -> None:
    """`--check`: after a BAD nothing ends in "nothing is known"; control: after an ok it does."""
    check = {"name": "ListMFADevices", "ok": False, "message": "correct mfa_serial"}
    ending = "nothing is known that would go wrong\n"

    assert ending not in told(plan(MFA, ROLE_STEP, checks=[check]), "--check", status=1)
    assert told(plan(MFA, ROLE_STEP, checks=[{**check, "ok": True}]), "--check").endswith(ending)


def test_what_shadows_it(told: Any, tmp_path: Path) -> None:
    """A `[default]` that SDKs prefer to any shell of `use`, by file and line."""
    (tmp_path / ".aws").mkdir()
    file = tmp_path / ".aws" / "credentials"
    file.write_text("[default]\naws_access_key_id = AKIACANARY\naws_secret_access_key = canary\n")
    said = told(plan(MFA, ROLE_STEP))

    assert f"[default] in {file}:2" in said
    assert "canary" not in said.lower()


def test_check_asks_aws(told: Any, stub: Stub) -> None:
    """Its words and the simulator's command; exit 1 for a no. Control: without --check nothing is asked."""
    stub.answers["GET", "/v1/identities"] = (200, {"identities": [IDENTITY]})
    good = {"name": "GetCallerIdentity", "ok": True, "message": "the key is good"}
    bad = {"name": "ListMFADevices", "ok": False, "message": "AWS lists none: correct mfa_serial"}
    said = told(plan(MFA, ROLE_STEP, checks=[good]), "--check")

    assert "\n  ok  GetCallerIdentity: the key is good\n" in said
    assert f"--policy-source-arn {IDENTITY['user_arn']} --action-names sts:AssumeRole --resource-arns {ROLE} " in said
    assert "  BAD ListMFADevices: AWS lists none" in told(plan(MFA, checks=[good, bad]), "--check", status=1)
    assert '"ok": false' in told(plan(MFA, checks=[bad]), "--check", "--json", status=1)
    stub.requests.clear()
    told(plan(MFA))
    assert [path for _, path, _ in stub.requests] == ["/v1/profiles/web-admin/plan", "/v1/profiles"]
