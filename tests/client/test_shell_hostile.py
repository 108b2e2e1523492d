"""A process that took the daemon's place, and what it would like a shell to take (issue 6, Build 1; security.md §1)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.client.conftest import Run
from tests.client.shells import ALL, revoked, spoken
from tests.client.stub import PROFILE, Stub, environment
from tests.client.test_shell import variables
from vault_client import picker
from vault_client.cli import Call
from vault_client.errors import Stop

HOSTILE: list[dict[str, Any]] = [
    {"PROMPT_COMMAND": "touch PWNED"},
    {"PATH": "/tmp"},
    {"LD_PRELOAD": "/tmp/x.so"},
    {"VAULTD_HOME": "/tmp"},
    {"_vaultd_saved": "1"},
    {"AWS_REGION": "a\0b"},
    {"AWS_REGION": "a\nb"},
    {"AWS_REGION": "\x1b[2J"},
    {"AWS_REGION": 5},
    {"AWS_REGION": None},
    {"AWS_REGION": ["x"]},
    {"VAULTD_PROFILE": "x" * 1_000_000},
    {"AWS_REGION": "\ud800"},
]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("more", HOSTILE, ids=lambda each: str(each)[:40].encode().decode("ascii", "replace"))
def test_what_no_daemon_of_ours_sends(name: str, more: dict[str, Any], stub: Stub) -> None:
    """A variable that is none of interface.md's, or a value that is none: nothing is set, one sentence, no grant."""
    grant = stub.grant()
    grant["set"] |= more
    stub.answers["POST", "/v1/grants"] = (201, grant)
    stub.answers["DELETE", f"/v1/grants/{grant['id']}"] = (200, {})
    ended = spoken(name, "vault-client use web-admin; env", stub)

    assert "VAULTD_PROFILE" not in variables(ended.out)
    assert "Traceback" not in ended.err
    assert "vault-client: " in ended.err
    assert revoked(stub) == [grant["id"]]
    assert not (stub.home / "state/habits.json").exists()  # no use of it was made


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    "body",
    [[], {}, {"id": "g1"}, {"id": "g1", "set": [], "unset": {}}, {"id": "g1", "set": {}, "unset": ["PATH"]}, 5, None],
)
def test_an_answer_that_is_none(name: str, body: Any, stub: Stub) -> None:
    """As above."""
    stub.answers["POST", "/v1/grants"] = (201, body)
    stub.answers["DELETE", "/v1/grants/g1"] = (200, {})
    ended = spoken(name, "vault-client use web-admin; env", stub)

    assert "VAULTD_PROFILE" not in variables(ended.out)
    assert "PATH" in variables(ended.out)
    assert "Traceback" not in ended.err
    assert "vault-client: " in ended.err


@pytest.mark.parametrize(
    "state", ["$(touch PWNED)", "`x`", "\\w", "%F{red}", "!1", "\x1b[2J", "a\nb", "s" * 10_000, None, 5]
)
def test_a_state_that_a_prompt_would_take(state: object, stub: Stub, run: Run) -> None:
    """PS1 may be read again by the shell that shows it: no word of the answer is passed on as it is."""
    row = {**PROFILE, "seconds_left": None, "state": state}
    stub.answers["GET", "/v1/profiles?profile=web-admin"] = (200, {"profiles": [row]})
    said = run("prompt", VAULTD_PROFILE="web-admin").out

    assert said.startswith("web-admin·")
    assert said.count("\n") == 1
    assert len(said) < 100
    assert not set(said) & set("\\$`%!\"'()\x1b")


@pytest.mark.parametrize("role", ["a\nweb-evil\tx", "\x1b]0;x\x07", "\u202eabc", "x\ty"])
def test_what_stands_beside_a_name(role: str, stub: Stub, run: Run) -> None:
    """A role's name cannot make a candidate of its own, nor move a cursor."""
    stub.answers["GET", "/v1/profiles"] = (200, {"profiles": [{**PROFILE, "role_arn": f"arn:aws:iam::1:role/{role}"}]})
    said = run("__complete", "fish", "use", "").out

    assert said.count("\n") == said.count("\t") == 1
    assert said.rstrip("\n").replace("\t", "").isprintable()


@pytest.mark.parametrize(
    "body", [[], {}, {"profiles": 5}, {"profiles": [5]}, {"profiles": [{}]}, {"profiles": ["ab"]}, {"profiles": []}]
)
def test_a_list_that_is_none(body: Any, stub: Stub) -> None:
    """Nothing is offered of it, and a sentence says so."""
    stub.answers["GET", "/v1/profiles"] = (200, body)
    with pytest.raises(Stop, match="type `va") as told:
        picker._rows(Call(operands=[], tail=[], options={}, environ=environment(stub)), "use")
    assert told.value.exit_status == 1


@pytest.mark.parametrize(
    "changes", [{"seconds_left": float("inf")}, {"seconds_left": 1e300}, {"seconds_left": []}, {"state": ["x"]},
                {"account_id": {"a": "\x1b[2J"}}, {"role_arn": 5}, {"profile": 5}]
)  # fmt: skip
def test_a_row_of_other_kinds(changes: dict[str, Any], stub: Stub) -> None:
    """Shown as well as it can be; no escape of it gets through."""
    stub.answers["GET", "/v1/profiles"] = (200, {"profiles": [{**PROFILE, **changes}]})
    (row,) = picker._rows(Call(operands=[], tail=[], options={}, environ=environment(stub)), "use")

    shown = (row.name, row.account, row.role, row.session)
    assert "".join(shown).isprintable()
