"""The lines, in real shells: set, switch, restore, and values that try to break out (interface.md §3, `use`)."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.client.stub import SECRET, TOKEN, Stub, environment, error
from vault_client import shell as shells
from vault_client.errors import Stop
from vault_client.shell import MANAGED, Fish, Posix, PowerShell, calling, dialect

POSIX = [pytest.param(name, marks=pytest.mark.needs(name), id=name) for name in ("bash", "dash", "zsh")]
ALL = [*POSIX, pytest.param("fish", marks=pytest.mark.needs("fish"), id="fish")]
HOSTILE = (
    "plain",
    "",
    " blanks  twice ",
    "it's",
    '"$HOME" `id` $(id) \\ \\\\ !! *? ~ # ; & | < > ( )',
    "new\nline",
    "newlines at the end\n\n",
    "50% %s %d %% \\045d \\0521",
    "tab\ttab",
    "ü€日本",
    "'; touch /pwned; '",
    "\\'",
    "‘’‚‛",
)


def evaluate(name: str, script: str, stub: Stub | None = None, **environ: str) -> str:
    """What `script` prints in shell `name`, whose every error is a failure; `vc` is the client."""
    client = f"{sys.executable} -m vault_client"
    vc = f"function vc; {client} $argv; end\n" if name == "fish" else f'vc() {{ {client} "$@"; }}\n'
    strict = "" if name == "fish" else "set -eu\n"
    env = environment(stub, **environ) if stub is not None else {"PATH": "/usr/bin:/bin", **environ}
    # fish keeps no universal variables without its configuration; the one it reads here is in a home of the test's own
    flags = {"bash": ["--norc"], "zsh": ["-f"]}.get(name, [])
    done = subprocess.run(
        [name, *flags, "-c", strict + vc + script], env=env, capture_output=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def use(name: str, arguments: str = "web-admin") -> str:
    """The documented way to use a profile in that shell."""
    if name == "fish":
        return f"vc use {arguments} --shell fish 2>/dev/null | source\n"
    return f'eval "$(vc use {arguments} --shell {name} 2>/dev/null)"\n'


def unuse(name: str) -> str:
    """The documented way back."""
    return "vc unuse --shell fish | source\n" if name == "fish" else f'eval "$(vc unuse --shell {name})"\n'


def variables(text: str) -> dict[str, str]:
    """`env` output, without what a shell keeps for itself."""
    rows = dict(line.partition("=")[::2] for line in text.splitlines() if "=" in line)
    return {name: value for name, value in rows.items() if name not in {"_", "SHLVL", "PWD", "OLDPWD"}}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("value", HOSTILE)
def test_quoting(name: str, value: str) -> None:
    """Whatever a value holds arrives as it is, and nothing of it runs."""
    found = dialect(name)
    assert found is not None
    line = found.set("V", value)
    ended = evaluate(name, f"{line}\n{sys.executable} -I -c 'import os; os.write(1, os.environb[b\"V\"])'")

    assert ended == value
    assert not Path("/pwned").exists()


def test_quoting_for_powershell() -> None:
    """PowerShell takes typographic quotes for quotes: each is doubled."""
    assert PowerShell().quote("a'b‘c’d‚e‛f$(id)`") == "'a''b‘‘c’’d‚‚e‛‛f$(id)`'"
    assert PowerShell().set("V", "x") == "$env:V = 'x';"


@pytest.mark.parametrize("name", ALL)
def test_use_and_unuse(name: str, stub: Stub) -> None:
    """All that the grant says is in the environment; then everything is as it was, unset told from empty."""
    before = {"AWS_PROFILE": "old one", "AWS_ACCESS_KEY_ID": "", "NO_PROXY": "corp", "OTHER": "x"}
    script = "env; echo ----\n" + use(name) + "env; echo ----\n" + unuse(name) + "env"
    first, second, third = (variables(part) for part in evaluate(name, script, stub, **before).split("----"))

    assert first["AWS_PROFILE"] == "old one"
    assert second["AWS_CONTAINER_AUTHORIZATION_TOKEN"] == TOKEN
    assert second["VAULTD_PROFILE"] == "web-admin"
    assert second["AWS_REGION"] == second["VAULTD_REGION"] == "us-west-2"
    assert second["NO_PROXY"] == "corp,127.0.0.1,localhost"
    assert not {"AWS_PROFILE", "AWS_ACCESS_KEY_ID"} & set(second)
    assert not [key for key in second if key.startswith("_vaultd")]  # unexported
    assert third == first
    assert stub.asked("DELETE", "/v1/grants/g1") == [None]


def counted(stub: Stub) -> None:
    """Each grant of its own id: g1, g2, …"""
    numbers = itertools.count(1)

    def answer(body: dict[str, Any] | None) -> tuple[int, dict[str, Any]]:
        grant = stub.grant(profile=(body or {})["profile"])
        grant["id"] = grant["set"]["VAULTD_GRANT"] = f"g{next(numbers)}"
        return 201, grant

    stub.answers["POST", "/v1/grants"] = answer
    stub.answers.update({("DELETE", f"/v1/grants/g{number}"): (200, {}) for number in range(1, 9)})


def revoked(stub: Stub) -> list[str]:
    """The grants that were ended, in order."""
    return [path.rpartition("/")[2] for verb, path, _ in stub.requests if verb == "DELETE"]


def typed(name: str, arguments: str) -> str:
    """What a person types: the program itself, whose parent is the shell."""
    client = f"{sys.executable} -m vault_client {arguments} --shell {name} 2>/dev/null"
    return f"{client} | source\n" if name == "fish" else f'eval "$({client})"\n'


@pytest.mark.parametrize("name", ALL)
def test_switching_ends_the_grant_that_it_replaces(name: str, stub: Stub) -> None:
    """A second `use` in the same shell takes the place of the first: its grant would live for days, unseen. The new one
    is made first; `unuse` ends the last.
    """
    counted(stub)
    evaluate(name, typed(name, "use a") + use(name, "b") + typed(name, "use c") + unuse(name), stub)

    assert revoked(stub) == ["g1", "g2", "g3"]
    assert [verb for verb, _, _ in stub.requests] == ["POST", *["POST", "DELETE"] * 2, "DELETE"]


@pytest.mark.parametrize("name", POSIX)
def test_a_grant_of_another_shell_is_not_ended(name: str, stub: Stub) -> None:
    """A child inherits the grant, and so does a subshell in brackets: their parent still works with it."""
    counted(stub)
    inner = typed(name, "use b").replace('"', '\\"').replace("$(", "\\$(")
    script = typed(name, "use a") + f'{name} -c "{inner}:"\n' + f"({typed(name, 'use c').strip()})\n:"
    evaluate(name, script, stub)

    assert len(stub.asked("POST", "/v1/grants")) == 3
    assert revoked(stub) == []


@pytest.mark.parametrize("name", ALL)
def test_a_grant_of_exec_or_of_a_subshell_is_not_ended(name: str, stub: Stub) -> None:
    """It is bound to a process, and ends with it."""
    counted(stub)
    evaluate(name, typed(name, "use a"), stub, VAULTD_GRANT="g7")
    evaluate(name, typed(name, "use a"), stub, VAULTD_GRANT="g8", VAULTD_SUBSHELL="g8")

    assert revoked(stub) == []


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("line", ["use nope", "use --frob", "unuse --frob"])
def test_what_failed_fails_where_it_is_evaluated(name: str, line: str, stub: Stub) -> None:
    """Eval of nothing is 0: a script under `set -e` would go on with whatever identity is there."""
    stub.answers["POST", "/v1/grants"] = error(404, "UnknownProfile", "no profile nope: type `vault-client list`", 1)
    script = typed(name, line)
    ended = evaluate(name, script + "or echo failed" if name == "fish" else f"{script.strip()} || echo failed", stub)

    assert ended == "failed\n"


def test_powershell_throws() -> None:
    """`Invoke-Expression` has no exit status: what fails there is an exception."""
    assert PowerShell.fail == "throw 'vault-client has failed, see above';"


@pytest.mark.parametrize("name", ALL)
def test_switching_keeps_the_originals(name: str, stub: Stub) -> None:
    """A second and a third `use` switch, and `unuse` still goes back to before the first."""
    stub.answers["POST", "/v1/grants"] = lambda body: (
        201,
        stub.grant(profile=body["profile"], set={**stub.grant()["set"], "VAULTD_PROFILE": body["profile"]}),
    )
    script = use(name) + use(name, "other") + use(name, "web-admin") + use(name, "other")
    script += "env; echo ----\n" + unuse(name) + "env"
    second, third = (variables(part) for part in evaluate(name, script, stub, AWS_PROFILE="old").split("----"))

    assert second["VAULTD_PROFILE"] == "other"
    assert "AWS_PROFILE" not in second
    assert third["AWS_PROFILE"] == "old"
    assert not set(MANAGED) - {"AWS_PROFILE"} & set(third)


@pytest.mark.parametrize("name", ALL)
def test_unuse_leaves_nothing_behind(name: str, stub: Stub) -> None:
    """Not one `_vaultd` variable stays, so that the next `use` saves afresh."""
    listing = "set -n" if name == "fish" else "set"
    used = evaluate(name, use(name) + listing, stub, AWS_PROFILE="old")
    left = evaluate(name, use(name) + unuse(name) + listing, stub, AWS_PROFILE="old")

    assert re.search(r"^_vaultd_old_AWS_PROFILE", used, re.MULTILINE)  # control
    assert not re.search(r"^_vaultd", left, re.MULTILINE)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("region", ["us-west-2", None])
def test_what_went_well_is_0(name: str, region: str | None, stub: Stub) -> None:
    """`use`, `use` again, `unuse`, and an `unuse` that has nothing to undo: a prompt or `set -e` sees no failure."""
    grant = stub.grant()
    if region is None:
        grant["set"] = {key: value for key, value in grant["set"].items() if "REGION" not in key}
    stub.answers["POST", "/v1/grants"] = (201, grant)
    status = "echo $status\n" if name == "fish" else "echo $?\n"
    found = evaluate(name, status.join([use(name), use(name), unuse(name), unuse(name), ""]), stub)

    assert found.split() == ["0"] * 4


@pytest.mark.parametrize("name", ALL)
def test_a_second_round_saves_afresh(name: str, stub: Stub) -> None:
    """use, unuse, change, use, unuse: the change is what comes back."""
    change = "set -gx AWS_PROFILE second\n" if name == "fish" else "export AWS_PROFILE=second\n"
    found = variables(
        evaluate(name, use(name) + unuse(name) + change + use(name) + unuse(name) + "env", stub, AWS_PROFILE="first")
    )

    assert found["AWS_PROFILE"] == "second"


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ({}, ("us-west-2", "us-west-2")),
        ({"AWS_REGION": "eu-west-1"}, ("eu-west-1", "eu-west-1")),
        ({"AWS_DEFAULT_REGION": "eu-west-1"}, ("eu-west-1", "eu-west-1")),
        ({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-2"}, ("eu-west-1", "eu-west-2")),
        (
            {"AWS_REGION": "ap-east-1", "AWS_DEFAULT_REGION": "ap-east-1", "VAULTD_REGION": "ap-east-1"},
            ("us-west-2", "us-west-2"),
        ),
    ],
)
def test_the_users_region_wins(name: str, stub: Stub, before: dict[str, str], expected: tuple[str, str]) -> None:
    """Decided by the shell, which alone knows what `use` set and what its user did; twice is as once."""
    for script in (use(name), use(name) * 2):
        found = variables(evaluate(name, script + "env", stub, **before))
        assert (found["AWS_REGION"], found["AWS_DEFAULT_REGION"]) == expected
    back = variables(evaluate(name, use(name) + unuse(name) + "env", stub, **before))
    assert {key: back[key] for key in before} == before


@pytest.mark.parametrize("name", ALL)
def test_region_option_does_not_outlive_its_use(name: str, stub: Stub) -> None:
    """`use A --region X`, then `use B`: the user's own region is back."""

    def granted(body: dict[str, str]) -> tuple[int, dict[str, object]]:
        region = body.get("region", "us-west-2")
        chosen = {**stub.grant()["set"], "AWS_REGION": region, "AWS_DEFAULT_REGION": region}
        return 201, stub.grant(set=chosen)

    stub.answers["POST", "/v1/grants"] = granted
    script = use(name, "web-admin --region ap-east-1") + "env; echo ----\n" + use(name) + "env"
    first, second = (variables(part) for part in evaluate(name, script, stub, AWS_REGION="eu-west-1").split("----"))

    assert (first["AWS_REGION"], first["AWS_DEFAULT_REGION"]) == ("ap-east-1", "ap-east-1")
    assert (second["AWS_REGION"], second["AWS_DEFAULT_REGION"]) == ("eu-west-1", "eu-west-1")


@pytest.mark.parametrize("name", ALL)
def test_old_values_never_pass_through_us(name: str, stub: Stub) -> None:
    """Kept by reference: an old secret key is in no output of ours."""
    assert evaluate(name, f"vc use web-admin --shell {name} 2>&1", stub, AWS_SECRET_ACCESS_KEY=SECRET).count(TOKEN) == 1
    for script in ("use web-admin", "unuse"):
        text = evaluate(name, f"vc {script} --shell {name} 2>&1", stub, AWS_SECRET_ACCESS_KEY=SECRET)
        assert SECRET not in text
        assert "_vaultd_old_AWS_SECRET_ACCESS_KEY" in text


@pytest.mark.parametrize("name", POSIX)
def test_eval_without_quotes(name: str, stub: Stub) -> None:
    """`eval $(…)` joins the lines with blanks (and zsh does not split them): the lines still work."""
    found = variables(evaluate(name, f"eval $(vc use web-admin --shell {name} 2>/dev/null)\nenv", stub))

    assert found["VAULTD_PROFILE"] == "web-admin"


PLANTED = "NO_PROXY='*';touch${IFS}PWNED;'';"


def planted(directory: Path) -> Path:
    """A working directory in which someone left files that are named for the words of an unquoted `eval`."""
    directory.mkdir()
    for name in (PLANTED, "no_proxy='x';touch${IFS}PWNED;'';", "touch PWNED", "a", "-"):
        (directory / name).touch()
    return directory


@pytest.mark.parametrize("name", POSIX)
@pytest.mark.parametrize("form", ["{}", '"{}"'])
@pytest.mark.parametrize("before", ["*", "?", "[a-z]*", "x?(y)*", "a*,b  c"])
def test_no_file_name_is_run(name: str, form: str, before: str, stub: Stub, tmp_path: Path) -> None:
    """In `eval $(…)` each word is a pattern first: one that matched a planted file's name ran it."""
    directory = planted(tmp_path / "hostile")
    lines = form.format(f"$(vc use web-admin --shell {name} 2>/dev/null)")
    extended = "shopt -s extglob\n" if name == "bash" else "setopt globsubst extendedglob\n" if name == "zsh" else ""
    found = evaluate(name, f"{extended}cd {directory}\neval {lines}\n{_SHOWN}", stub, NO_PROXY=before)
    expected = before if before == "*" else f"{before},127.0.0.1,localhost"

    assert found == expected
    assert not (directory / "PWNED").exists()


_SHOWN = f"{sys.executable} -I -c 'import os; os.write(1, os.environb[b\"NO_PROXY\"])'"


@pytest.mark.needs("bash")
def test_control_a_planted_file_is_run(tmp_path: Path) -> None:
    """What the lines would do with a pattern in them: the plant of the test above is a live one."""
    directory = planted(tmp_path / "hostile")
    evaluate("bash", f"""cd {directory}\neval $(echo "export NO_PROXY='*';") || :""")

    assert (directory / "PWNED").exists()


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), st.booleans())
def test_no_line_holds_a_pattern(value: str, again: bool) -> None:
    """Provable from the text: no character that any of these shells expands a file name from, whatever the value."""
    shell = Posix()
    grant = {"VAULTD_PROFILE": value, "NO_PROXY": value}
    lines = shells.use_lines(shell, variables=grant, unset=["AWS_PROFILE"], region=value if again else "eu-west-1")

    for text in (lines, shells.unuse_lines(shell)):
        assert not set(text) & set("*?[]()<>|^#~!")
        assert text.isascii()


@pytest.mark.needs("fish")
def test_fish_eval(stub: Stub) -> None:
    """`eval (…)`, as people write it from the bash habit."""
    found = variables(evaluate("fish", "eval (vc use web-admin --shell fish 2>/dev/null)\nenv", stub))

    assert found["VAULTD_PROFILE"] == "web-admin"


@pytest.mark.needs("fish")
def test_fish_universal_variables_survive(stub: Stub, tmp_path: Path) -> None:
    """A universal AWS_PROFILE cannot be hidden by fish: it is named, and neither erased nor changed."""
    script = (
        "set -Ux AWS_PROFILE universal\n"
        + use("fish")
        + "env; echo ----\n"
        + unuse("fish")
        + "env; set -S AWS_PROFILE\n"
    )
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    said, third = evaluate("fish", "begin\n" + script + "end 2>&1", stub, **home).split("----")
    warning = (
        "vault-client: warning: the universal variable AWS_PROFILE goes before the profile: type set -eU AWS_PROFILE"
    )

    assert warning in said
    assert said.count("warning") == 1
    assert variables(third)["AWS_PROFILE"] == "universal"
    assert "set in universal scope, exported" in third


@pytest.mark.parametrize("name", ALL)
def test_a_child_shell_drops_what_it_inherited(name: str, stub: Stub) -> None:
    """A shell inside a used one has no originals of its own: `unuse` drops what points at vaultd, and only that."""
    inherited = {"VAULTD_GRANT": "g1", "VAULTD_PROFILE": "web-admin", "AWS_CONTAINER_AUTHORIZATION_TOKEN": TOKEN,
                 "NO_PROXY": "corp"}  # fmt: skip
    found = variables(evaluate(name, unuse(name) + "env", stub, **inherited))

    assert not {"VAULTD_GRANT", "VAULTD_PROFILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN"} & set(found)
    assert found["NO_PROXY"] == "corp"


@pytest.mark.parametrize("name", POSIX)
def test_the_calling_shell_is_recognised(name: str, stub: Stub) -> None:
    """Without --shell: the parent process, whatever $SHELL says."""
    found = evaluate(name, "vc use web-admin 2>&1", stub, SHELL="/usr/bin/fish")

    assert "export VAULTD_PROFILE='web-admin';" in found


@pytest.mark.needs("fish")
def test_fish_is_recognised(stub: Stub) -> None:
    """By its process, against $SHELL."""
    assert "set -gx VAULTD_PROFILE" in evaluate("fish", "vc use web-admin 2>&1", stub, SHELL="/bin/bash")


def test_which_dialect(monkeypatch: pytest.MonkeyPatch) -> None:
    """--shell, else the parent, else $SHELL, else sh; csh gets no lines at all."""
    monkeypatch.setattr(shells, "_parent_name", lambda: "python3")
    assert isinstance(calling({"SHELL": "/usr/bin/fish"}, "/opt/bin/pwsh"), PowerShell)
    assert isinstance(calling({"SHELL": "/usr/bin/fish"}, None), Fish)
    assert isinstance(calling({"SHELL": "/bin/nologin"}, None), Posix)
    assert isinstance(calling({}, None), Posix)
    monkeypatch.setattr(shells, "_parent_name", lambda: "tcsh")
    with pytest.raises(Stop, match="no lines can be written for tcsh: type `vault-client use PROFILE` bare"):
        calling({}, None)


def test_powershell_lines_stand_alone() -> None:
    """`| Invoke-Expression` runs line by line: braces are balanced on each; saved by reference."""
    lines = shells.use_lines(PowerShell(), variables={"VAULTD_PROFILE": "p"}, unset=["AWS_PROFILE"], region="us-west-2")

    assert all(line.count("{") == line.count("}") for line in lines.splitlines())
    assert "$global:_vaultd_old_AWS_PROFILE = $env:AWS_PROFILE" in lines
    assert lines.splitlines()[1:3] == [
        "Remove-Item -ErrorAction SilentlyContinue Env:AWS_PROFILE;",
        "$env:VAULTD_PROFILE = 'p';",
    ]
