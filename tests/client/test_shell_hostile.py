"""A process that took the daemon's place, and what it would like a shell to take (issue 6, Build 1; security.md §1)."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import pytest

from tests.client.conftest import Run
from tests.client.shells import ALL, CLIENT, FLAGS, POSIX, counted, made, quoted, revoked, spoken
from tests.client.stub import PROFILE, Stub, environment
from tests.client.test_shell import variables
from vault_client import picker
from vault_client import shell as shells
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


#: Of an environment file: memory of `use -` that is a command to whoever evaluates it, without a blank.
RUNS = "x';touch\tPWNED;'"
OURS = ("_vaultd_last", "_vaultd_before", "_vaultd_saved", "_vaultd_asked", "_vaultd_posix", "_vc_lines")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("line", ["use web-admin", "unuse", "use a; vault-client use -; vault-client unuse"])
@pytest.mark.parametrize("later", [False, True])
def test_memory_of_an_environment(name: str, line: str, stub: Stub, *, later: bool) -> None:
    """Whoever makes the environment of a shell (security.md T11) names no command that it runs (`spoken` looks), be it
    before it begins or (direnv) later; `use` does what it does.
    """
    counted(stub)
    how = "set -gx {} {}" if name == "fish" else "export {}={}"
    script = f"vault-client {line}; env"
    if later:
        exports = [how.format(each, quoted(name, RUNS)) for each in ("_vaultd_last", "_vaultd_before")]
        ended = spoken(name, "\n".join([*exports, script]), stub)
    else:
        ended = spoken(name, script, stub, **dict.fromkeys(OURS, RUNS))

    assert ended.status == 0 or line.startswith("use a"), ended.err  # no memory: nowhere to go back to
    assert variables(ended.out).get("VAULTD_PROFILE") == ("web-admin" if line == "use web-admin" else None)


@pytest.mark.parametrize("name", ALL)
def test_what_was_inherited_is_dropped(name: str, stub: Stub) -> None:
    """No original of an environment's is put back by `unuse`. Control: what the shell keeps itself outlives a second
    reading of the rc file.
    """
    counted(stub)
    given = {"_vaultd_saved": "1", "_vaultd_old_AWS_PROFILE": "theirs"}
    assert "AWS_PROFILE" not in variables(spoken(name, "vault-client unuse; env", stub, **given).out)
    again = f"vault-client use a; source {stub.home}/rc.{name}; vault-client unuse; env"
    assert variables(spoken(name, again, stub, AWS_PROFILE="mine").out)["AWS_PROFILE"] == "mine"


@pytest.mark.parametrize("name", POSIX)
@pytest.mark.parametrize("past", ["", " | cat"])
@pytest.mark.parametrize(
    "says",
    ["bash 1 1 0 {} -", "zsh 1 1 1 a {}", "bash {pid} {pid} 0 {} {}", "fish 1 1 0 - -", "sh", "fish",
     "pwsh {pid} {pid} 0 - -", "bash 1 1 0 a", "bash 9" + "9" * 5000 + " 1 0"],
)  # fmt: skip
def test_a_function_that_is_not_there(name: str, says: str, past: str, stub: Stub) -> None:
    """VAULTD_INTEGRATION of an environment, and `eval "$(vault-client use P)"` of a script: nothing of it is run, the
    lines are for this very shell, and no other process holds the grant.
    """
    counted(stub)
    told = says.replace("{pid}", str(os.getpid())).replace("{}", RUNS)
    profile = "it\\'s;touch PWNED;"
    use = " ".join([*CLIENT, "use", "--", quoted(name, profile)]) + past
    done = subprocess.run(
        [name, *FLAGS[name], "-c", f'eval "$({use})"; env -0'], env=environment(stub, VAULTD_INTEGRATION=told),
        capture_output=True, text=True, check=True, cwd=stub.home,
    )  # fmt: skip

    assert not (stub.home / "PWNED").exists()
    assert f"VAULTD_PROFILE={profile}\0" in done.stdout
    assert made(stub) == [{"profile": profile, "kind": "shell"}]


@pytest.mark.parametrize("shell", [shells.Posix(), shells.Fish(), shells.PowerShell()])
@pytest.mark.parametrize("words", [RUNS, "a b", "\u2019", "a\n", "$(x)", "a\\"])
def test_only_words_of_ours_are_kept(shell: shells.Dialect, words: str) -> None:
    """By the dialect itself, whoever asks it. Control: what `remembered` makes."""
    with pytest.raises(Stop, match="start a new shell"):
        shell.keep("_vaultd_last", words)
    assert "'team@20prod+region@3Deu-west-1'" in shell.keep("_vaultd_last", "team@20prod+region@3Deu-west-1")
