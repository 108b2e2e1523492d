"""What a shell goes through in five years (issue 6, Build 1 and Bad input)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.client.shells import ALL, FLAGS, POSIX, counted, made, revoked, spoken
from tests.client.stub import TOKEN, Stub
from tests.client.test_shell import variables


@pytest.mark.parametrize("name", ALL)
def test_exec_of_another_shell(name: str, stub: Stub) -> None:
    """`exec zsh` after an edit of the rc file: the same process, and nothing remembered. A switch there ends the grant
    of before, and `unuse` does not bring that dead one back.
    """
    counted(stub)
    again = stub.home / "again"
    rc = stub.home / f"rc.{name}"
    again.write_text(f"source {rc}\nvault-client use b\nvault-client unuse\nenv\n")
    flags = " ".join(FLAGS[name])
    ended = spoken(name, f"vault-client use a; exec {name} {flags} {again}", stub, AWS_PROFILE="mine")

    assert ended.status == 0, ended.err
    assert revoked(stub) == ["g1", "g2"]
    left = {key for key in variables(ended.out) if key.startswith(("VAULTD_", "AWS_"))}
    assert left <= {"VAULTD_HOME", "AWS_CONFIG_FILE"}


@pytest.mark.parametrize("name", ALL)
def test_unuse_of_what_was_inherited_leaves_no_region(name: str, stub: Stub) -> None:
    """A shell started from a used one: its `unuse` takes our region along, and the next profile's is the next one's."""
    counted(stub)
    make = stub.answers["POST", "/v1/grants"]

    def regional(body: dict[str, Any]) -> Any:
        status, grant = make(body)
        region = {"a": "eu-west-1", "b": "us-east-2"}[body["profile"]]
        grant["set"] |= {"AWS_REGION": region, "AWS_DEFAULT_REGION": region}
        return status, grant

    stub.answers["POST", "/v1/grants"] = regional
    inner = stub.home / "inner"
    rc = stub.home / f"rc.{name}"
    inner.write_text(f"source {rc}\nvault-client unuse\nenv\necho ----\nvault-client use b\nenv\n")
    ended = spoken(name, f"vault-client use a; {name} {' '.join(FLAGS[name])} {inner}", stub)
    undone, used = (variables(part) for part in ended.out.split("----"))

    assert not [key for key in undone if "REGION" in key]
    assert used["AWS_REGION"] == used["AWS_DEFAULT_REGION"] == "us-east-2"


@pytest.mark.parametrize("name", POSIX)
def test_a_substitution_ends_no_grant_of_the_shell(name: str, stub: Stub) -> None:
    """`x=$(vault-client use b; …)`: the shell around it is still a, and a's grant lives."""
    counted(stub)
    ended = spoken(
        name, 'vault-client use a; x=$(vault-client use b; echo "$VAULTD_PROFILE"); echo $VAULTD_GRANT', stub
    )

    assert ended.out == "g1\n"
    assert revoked(stub) == []


@pytest.mark.parametrize("name", POSIX)
def test_a_substitution_of_its_own(name: str, stub: Stub) -> None:
    """As docs/shell.md says it: the grant is bound to the brackets, and x is what was asked."""
    counted(stub)
    script = 'vault-client use a; x=$(vault-client use b >/dev/null; echo "$VAULTD_PROFILE"); echo "$x $VAULTD_PROFILE"'
    ended = spoken(name, script, stub)

    assert ended.out == "b a\n"
    assert len({each["pid"] for each in made(stub)}) == 2
    assert revoked(stub) == []


@pytest.mark.parametrize("name", POSIX)
@pytest.mark.parametrize("line", ["use a", "use", "unuse"])
def test_a_trap_of_ones_own_stays(name: str, line: str, stub: Stub) -> None:
    """While `use` runs, Ctrl-C is the client's; before and after it is whose it was."""
    counted(stub)
    ended = spoken(name, f"trap 'echo mine' INT\nvault-client {line}\nkill -INT $$\ntrap - INT", stub)

    assert ended.out.replace("false;\n", "") == "mine\n"


@pytest.mark.parametrize("name", POSIX)
def test_verbose(name: str, stub: Stub) -> None:
    """`set -v` shows what the shell reads, and no token."""
    counted(stub)
    ended = spoken(name, "set -v; vault-client use a; vault-client unuse; echo $-", stub)

    assert made(stub)
    assert "v" in ended.out
    assert TOKEN not in ended.err


@pytest.mark.parametrize("name", POSIX)
@pytest.mark.parametrize("mode", ["set -x", "set -a", ":"])
def test_an_alias_of_the_programs_own_name(name: str, mode: str, stub: Stub) -> None:
    """`alias vault-client=…` before the rc line: the function is whole all the same."""
    counted(stub)
    before = '[ -z "$BASH_VERSION" ] || shopt -s expand_aliases; alias vault-client=false'
    ended = spoken(name, f"{mode}; \\vault-client use a; env", stub, before=before)

    assert variables(ended.out)["VAULTD_PROFILE"] == "a"
