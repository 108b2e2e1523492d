"""A shell whose stdout is closed, and a wrapper in the client's place: the shell that asked all the same (issue 6)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.client.shells import ALL, CLIENT, POSIX, Spoke, counted, init, made, revoked, spoken
from tests.client.stub import Stub
from tests.client.test_shell import variables

#: What `vault-client` is: our own client behind a pipe.
PIPED = 'real "$@" | cat'
#: One of which a process between us and the shell reads every line: the function is not taken for one.
READ = 'shopt -s lastpipe\nreal "$@" | while IFS= read -r line; do printf "%s\\n" "$line"; done'


def wrapped(name: str, body: str, script: str, stub: Stub, folder: Path) -> Spoke:
    """`script` where that wrapper is what the function calls."""
    wrapper = folder / "wrapper"
    wrapper.write_text(f'#!/bin/bash\nreal() {{ {" ".join(CLIENT)} "$@"; }}\n{body}\n')
    wrapper.chmod(0o755)
    rc = stub.home / "rc.wrapped"
    rc.write_text(init(name, client=f"'{wrapper}'" if name == "fish" else str(wrapper)))
    return spoken(name, f"source {rc}\n{script}", stub)


@pytest.mark.parametrize("name", POSIX)
def test_a_shell_without_stdout(name: str, stub: Stub) -> None:
    """The end of our pipe that it reads is its descriptor 1 then: `use` is bound to it, `unuse` undoes all."""
    counted(stub)
    script = "vault-client use a; echo $$ >&2; env >&2; echo ---- >&2; vault-client unuse; env >&2"
    used, left = spoken(name, f"exec 1>&-; {script}", stub).err.split("----\n")

    assert variables(used)["VAULTD_PROFILE"] == "a"
    pid = int(variables(used)["VAULTD_SHELL"])
    assert str(pid) in used.splitlines()
    assert made(stub) == [{"profile": "a", "kind": "shell", "pid": pid}]
    assert "VAULTD_PROFILE" not in variables(left)
    assert revoked(stub) == ["g1"]


@pytest.mark.needs("bash")
@pytest.mark.parametrize("name", ALL)
def test_a_wrapper_that_pipes(name: str, stub: Stub, tmp_path: Path) -> None:
    """No ancestor reads what the client writes, and the shell reads what the wrapper writes: bound to the shell."""
    counted(stub)
    script = "vault-client use a; vault-client use b; env; echo ----; vault-client unuse; env"
    used, left = wrapped(name, PIPED, script, stub, tmp_path).out.split("----\n")

    assert variables(used)["VAULTD_PROFILE"] == "b"
    pid = int(variables(used)["VAULTD_SHELL"])
    assert [each["pid"] for each in made(stub)] == [pid, pid]
    assert "VAULTD_PROFILE" not in variables(left)
    assert revoked(stub) == ["g1", "g2"]


@pytest.mark.needs("bash")
@pytest.mark.parametrize("name", ALL)
def test_a_function_that_is_not_taken_for_one(name: str, stub: Stub, tmp_path: Path) -> None:
    """What it drops leaves no grant; the grant that the shell still points at lives."""
    counted(stub)
    body = f'if test "$2" = a; then {PIPED}; exit; fi\n{READ}'
    script = "vault-client use a; vault-client use b; vault-client unuse; env"
    ended = wrapped(name, body, script, stub, tmp_path)

    assert ended.err.count("was not whole, so nothing was changed") == 2
    assert variables(ended.out)["VAULTD_GRANT"] == "g1"
    assert [each["profile"] for each in made(stub)] == ["a", "b"]
    assert revoked(stub) == ["g2"]
