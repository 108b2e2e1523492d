"""`use` and `unuse` under shell integration, in real shells: this shell changes, all of it or nothing (issue 6, 1)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.client.conftest import Run
from tests.client.shells import (
    ALL,
    CLIENT,
    FLAGS,
    NAMES,
    POSIX,
    counted,
    init,
    made,
    quoted,
    revoked,
    spoken,
)
from tests.client.stub import GRANT_ROW, SECRET, TOKEN, Stub, environment, error
from tests.client.test_shell import variables
from vault_client import functions
from vault_client.cli import Call
from vault_client.errors import Stop
from vault_client.integration import Hook, remembered
from vault_client.shell import MANAGED

PID = {"bash": "$$", "zsh": "$$", "fish": "$fish_pid"}
#: The shell that reads what a client prints, for one that this process starts: itself.
PARENT = f"{os.getpid()} {os.getpid()}"
STATUS = {"bash": "$?", "zsh": "$?", "fish": "$status"}


def told(words: str) -> Hook:
    """A hook of that memory."""
    return Hook(f"bash 1 1 {words}".split(" "))


@pytest.mark.parametrize("name", ALL)
def test_use_and_unuse_change_this_shell(name: str, stub: Stub) -> None:
    """Nothing is typed around them; the grant is bound to this shell; then everything is as it was, unset told from
    empty, and nothing of ours was exported meanwhile.
    """
    counted(stub)
    before = {"AWS_PROFILE": "old one", "AWS_ACCESS_KEY_ID": "", "NO_PROXY": "corp", "OTHER": "x"}
    script = f"echo {PID[name]}; env; echo ----; vault-client use web-admin; env; echo ----; vault-client unuse; env"
    ended = spoken(name, script, stub, **before)
    first, second, third = (variables(part) for part in ended.out.split("----"))

    assert ended.status == 0, ended.err
    assert "undo it with: vault-client unuse\n" in ended.err
    assert second["AWS_CONTAINER_AUTHORIZATION_TOKEN"] == TOKEN
    assert (second["VAULTD_PROFILE"], second["NO_PROXY"]) == ("web-admin", "corp,127.0.0.1,localhost")
    assert not {"AWS_PROFILE", "AWS_ACCESS_KEY_ID"} & set(second)
    assert not [key for key in second if key.lower().startswith("_v") or "INTEGRATION" in key]
    assert third == first
    pid = int(ended.out.splitlines()[0])
    assert made(stub) == [{"profile": "web-admin", "kind": "shell", "pid": pid}]
    assert second["VAULTD_SHELL"] == str(pid)
    assert revoked(stub) == ["g1"]


@pytest.mark.parametrize("name", ALL)
def test_nothing_but_the_memory_stays(name: str, stub: Stub) -> None:
    """After `unuse` there are the two names for `use -`, and no other variable."""
    listing = {"bash": "compgen -v", "zsh": "print -l ${(k)parameters}", "fish": "set -n"}[name]
    mark = "_vaultd|_vc_"
    script = f"vault-client use web-admin; {listing} | grep -E '{mark}'; echo ----; vault-client unuse; {listing}"
    used, left = spoken(name, f"{script} | grep -E '{mark}'", stub, AWS_PROFILE="old").out.split("----")

    assert "_vaultd_old_AWS_PROFILE" in used  # control
    assert sorted(left.split()) == ["_vaultd_before", "_vaultd_last"]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("profile", NAMES)
def test_names(name: str, profile: str, stub: Stub) -> None:
    """Whatever a profile is called, it arrives as it is, `use -` finds it again, and nothing of it runs."""
    counted(stub)
    word = quoted(name, profile)
    script = f"vault-client use -- {word}; vault-client use b; vault-client use -; env -0"
    ended = spoken(name, script, stub)

    assert ended.status == 0, ended.err
    assert [each["profile"] for each in made(stub)] == [profile, "b", profile]
    assert f"VAULTD_PROFILE={profile}\0" in ended.out


#: Of one's own, by names that the lines have, too.
FUNCTIONS = ("test", "printf", "export", "unset", "eval", "trap", "local", "return", "use", "unuse", "env")
MODES = {
    "bash": {
        "strict": "set -eu -o pipefail",
        "noglob": "set -o noglob",
        "posix": "set -o posix",
        "IFS": "IFS=aeiou-0123456789",
        "allexport": "set -a",
        "xtrace": "set -x",
        "aliases": "shopt -s expand_aliases; alias use=false unuse=false export=false unset=false test=false "
        "eval=false local=false return=false command=false printf=false builtin=false trap=false set=false "
        "vault-client=false",
        "trap": "trap 'echo int' INT",
        "verbose": "set -v",
        "debugger": "set -ET; trap 'echo $BASH_COMMAND >&2' DEBUG RETURN; trap 'echo failed >&2' ERR",
        "keyword": "set -k",
        "glob": "shopt -s failglob nocasematch extglob lastpipe; GLOBIGNORE='*'",
        "functions": "trap 'echo int' INT;" + "".join(f"{each}() {{ echo {each}; }};" for each in FUNCTIONS),
        "memory": "_vaultd_last='a b' _vaultd_before='$(touch PWNED)'",
    },
    "zsh": {
        "strict": "setopt err_exit no_unset pipe_fail",
        "split": "setopt no_unset sh_word_split glob_subst",
        "ksh": "setopt ksh_arrays ksh_glob sh_glob posix_builtins ignore_braces",
        "noglob": "setopt no_glob extended_glob",
        "IFS": "IFS=aeiou-0123456789",
        "allexport": "setopt all_export warn_create_global",
        "xtrace": "setopt xtrace",
        "return": "setopt err_return",
        "aliases": "alias use=false unuse=false export=false unset=false test=false eval=false local=false "
        "return=false command=false print=false builtin=false trap=false setopt=false emulate=false vault-client=false",
        "trap": "TRAPINT() { print int }",
        "debugger": "TRAPDEBUG() { print -u2 $ZSH_DEBUG_CMD }; TRAPZERR() { print -u2 failed }",
        "sh": "emulate sh",
        "csh": "emulate csh; setopt csh_junkie_loops csh_junkie_quotes csh_null_glob",
        "quotes": "setopt rc_quotes null_glob glob_assign brace_ccl no_case_match verbose",
        "functions": "".join(f"{each}() {{ echo {each}; }};" for each in [*FUNCTIONS, "print", "emulate", "setopt"]),
        "global aliases": "alias -g INT=x zsh=y apply=z vaultd=w use=v unuse=u",
        "memory": "_vaultd_last='a b' _vaultd_before='$(touch PWNED)'",
    },
}


@pytest.mark.parametrize(
    ("name", "mode"),
    [pytest.param(name, mode, marks=pytest.mark.needs(name)) for name, modes in MODES.items() for mode in modes],
)
def test_whatever_the_shell_is_set_to(name: str, mode: str, stub: Stub) -> None:
    """Options, IFS and aliases of the user's: `use`, a switch, `use -`, `unuse` and a failure do what they do, and
    leave the options as they were; nothing becomes exported, and no trace shows a token.
    """
    counted(stub)
    stub.answers["POST", "/v1/grants"] = refusing(stub)
    options = "echo $-; shopt" if name == "bash" else "echo $-; setopt"
    if mode in {"aliases", "csh"}:  # emulate csh does not split words as the listing needs it
        options = ":"
    call = "\\vault-client"  # past the alias of that name, as people type it
    script = f"""
{options}; echo ----
{call} use a; {call} use b --region eu-west-1; {call} use -; {call} use -
\\command env; echo ----
{call} use nope || echo "failed $?"
{call} unuse
{options}; echo ----
\\command env
"""
    ended = spoken(name, script, stub, before=MODES[name][mode])
    before, used, failed, left = ended.out.split("----\n")

    assert ended.status == 0, ended.err
    assert variables(used)["VAULTD_PROFILE"] == "b"
    assert variables(used)["AWS_REGION"] == "eu-west-1"
    assert failed.removeprefix("failed 1\n") == before
    assert not [key for key in variables(left) if key.startswith(("VAULTD_PR", "VAULTD_GR", "AWS_CONTAINER"))]
    assert mode == "allexport" or not [key for key in variables(used) if key.startswith("_v")]
    assert not [key for key in variables(used) if key.startswith("_vaultd_old")]
    assert TOKEN not in ended.err
    assert revoked(stub) == ["g1", "g2", "g3", "g4"]


def refusing(stub: Stub) -> object:
    """Grants for every profile but `nope`."""
    granted = stub.answers["POST", "/v1/grants"]
    refused = error(404, "UnknownProfile", "no profile nope: type `vault-client list`", 1)
    return lambda body: refused if body["profile"] == "nope" else granted(body)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("line", "status"), [("use nope", 1), ("use --frob x", 2), ("unuse --frob", 2), ("use", 2), ("use -", 1)]
)
def test_what_failed_changes_nothing(name: str, line: str, status: int, stub: Stub) -> None:
    """The exit status is the client's, and the shell is as it was."""
    counted(stub)
    stub.answers["POST", "/v1/grants"] = refusing(stub)
    script = f'vault-client use a; env; echo ----; vault-client {line}; echo "left {STATUS[name]}"; env'
    ended = spoken(name, script, stub)
    used, after = ended.out.replace("false;\n", "").split("----\n")

    assert after.partition("\n")[0] == f"left {status}"
    assert variables(after) == variables(used)
    assert "vault-client: " in ended.err.splitlines()[-1]
    assert revoked(stub) == []


@pytest.mark.parametrize("name", ALL)
def test_without_a_daemon(name: str, stub: Stub) -> None:
    """`use` is 69; `unuse` gives the shell back all the same."""
    gone = "set -gx VAULTD_HOME /nonexistent" if name == "fish" else "export VAULTD_HOME=/nonexistent"
    status = STATUS[name]
    script = f"vault-client use a\n{gone}\nvault-client use b; echo {status}; vault-client unuse; echo {status}; env"
    ended = spoken(name, script, stub)
    lines = ended.out.replace("false;\n", "").splitlines()

    assert lines[:2] == ["69", "0"]
    assert "VAULTD_PROFILE" not in variables(ended.out)


@pytest.mark.parametrize("name", ALL)
def test_use_dash(name: str, stub: Stub) -> None:
    """Back and forth with the options of then, which the options of now go before; after `unuse` the one that was
    undone; a failure forgets nothing.
    """
    counted(stub)
    stub.answers["POST", "/v1/grants"] = refusing(stub)
    lines = """use a --imds
use b --region eu-west-1 --duration 2h
use -
use nope
use -
use - --region ap-east-1
unuse
use -
use -"""
    ended = spoken(name, "\n".join(f"vault-client {line}" for line in lines.split("\n")), stub)
    asked = [{key: value for key, value in each.items() if key not in {"kind", "pid"}} for each in made(stub)]
    a, b = {"profile": "a", "imds": True}, {"profile": "b", "region": "eu-west-1", "duration_seconds": 7200}

    assert ended.status == 0, ended.err
    assert asked == [a, b, a, {"profile": "nope"}, b, {**a, "region": "ap-east-1"}, {**a, "region": "ap-east-1"}, b]


@pytest.mark.parametrize("name", ALL)
def test_switching_ends_the_grant_left_behind(name: str, stub: Stub) -> None:
    """The new one is made first, and each is of this shell."""
    counted(stub)
    spoken(name, "vault-client use a; vault-client use b; vault-client use -; vault-client unuse", stub)

    assert [verb for verb, _, _ in stub.requests] == ["POST", *["POST", "DELETE"] * 2, "DELETE"]
    assert revoked(stub) == ["g1", "g2", "g3"]


@pytest.mark.parametrize("name", ALL)
def test_a_grant_of_another_shell_is_not_ended(name: str, stub: Stub) -> None:
    """What was inherited is its holder's: a terminal that was opened from a used one may switch and `unuse`."""
    counted(stub)
    inherited = {"VAULTD_GRANT": "g20", "VAULTD_SHELL": "1", "VAULTD_PROFILE": "outer"}
    ended = spoken(name, "vault-client use a; vault-client unuse; env", stub, **inherited)

    assert variables(ended.out)["VAULTD_PROFILE"] == "outer"
    assert revoked(stub) == ["g1"]
    spoken(name, "vault-client unuse; env", stub, **inherited)
    assert revoked(stub) == ["g1"]


@pytest.mark.parametrize("name", ALL)
def test_in_a_subshell_of_use(name: str, stub: Stub) -> None:
    """`use` without integration opened this shell: a switch in it goes back to that; undoing that is `exit`."""
    counted(stub)
    held = {"VAULTD_GRANT": "g20", "VAULTD_SUBSHELL": "g20", "VAULTD_PROFILE": "outer"}
    ended = spoken(name, "vault-client use a; vault-client unuse; vault-client unuse; env", stub, **held)

    assert ended.status == 0
    assert variables(ended.out)["VAULTD_PROFILE"] == "outer"
    assert "this is a subshell of `vault-client use`: type exit to leave it" in ended.err
    assert revoked(stub) == ["g1"]


@pytest.mark.parametrize("name", POSIX)
def test_brackets(name: str, stub: Stub) -> None:
    """`( … )` has a grant of its own, bound to its own process, whose output goes where it goes; the outer shell keeps
    its own.
    """
    counted(stub)
    inner = "sh -c 'echo $PPID $VAULTD_PROFILE $VAULTD_SHELL'; :"
    script = (
        f"vault-client use a; (vault-client use b; {inner}); (vault-client use c; {inner}) | cat; echo $VAULTD_PROFILE"
    )
    ended = spoken(name, script, stub)
    first, second, outer = ended.out.splitlines()

    for line, profile, asked in ((first, "b", made(stub)[1]), (second, "c", made(stub)[2])):
        pid = line.split()[0]
        assert line == f"{pid} {profile} {pid}"
        assert asked["pid"] == int(pid)
    assert outer == "a"
    assert revoked(stub) == []


@pytest.mark.parametrize("name", ALL)
def test_eval_out_of_habit(name: str, stub: Stub) -> None:
    """What people have typed for years still points this very shell, and fails where it is evaluated."""
    counted(stub)
    stub.answers["POST", "/v1/grants"] = refusing(stub)
    form = "vault-client {} | source" if name == "fish" else 'eval "$(vault-client {})"'
    lines = [f"echo {PID[name]}", form.format("use a"), form.format("use b"), "env", form.format("use nope"),
             f"echo status {STATUS[name]}", form.format("unuse"), 'echo "now $VAULTD_PROFILE."']  # fmt: skip
    ended = spoken(name, "\n".join(lines), stub)

    assert ended.status == 0, ended.err
    assert variables(ended.out)["VAULTD_PROFILE"] == "b"
    assert ended.out.splitlines()[-2:] == ["status 1", "now ."]
    assert [each["pid"] for each in made(stub)[:2]] == [int(ended.out.splitlines()[0])] * 2
    assert revoked(stub) == ["g1", "g2"]


@pytest.mark.parametrize("name", POSIX)
def test_within_a_command_substitution(name: str, stub: Stub) -> None:
    """`x=$(vault-client use b; aws …)`: what follows in there is b, too, and not who the shell was."""
    counted(stub)
    script = 'vault-client use a; x=$(vault-client use b; echo "in=$VAULTD_PROFILE"); echo "${x##*in=} $VAULTD_PROFILE"'
    ended = spoken(name, script, stub)

    assert ended.out == "b a\n"


@pytest.mark.parametrize("name", ALL)
def test_old_values_never_pass_through_us(name: str, stub: Stub, tmp_path: Path) -> None:
    """Kept by reference: an old secret key is in nothing that the client prints to the function."""
    recorder = tmp_path / "recorder"
    recorder.write_text('#!/bin/sh\nenv >> "$0.env"\necho ": vaultd apply"\n')
    recorder.chmod(0o755)
    tried(name, recorder, "vault-client use a; vault-client unuse", stub, AWS_SECRET_ACCESS_KEY=SECRET)
    for line in ("use web-admin", "unuse"):
        told_of = f"{name} {PARENT} 0 - -"
        done = subprocess.run(
            [*CLIENT, *line.split()], env=environment(stub, VAULTD_INTEGRATION=told_of,
            AWS_SECRET_ACCESS_KEY=SECRET), capture_output=True, check=True,
        )  # fmt: skip
        assert b"_vaultd_old_AWS_SECRET_ACCESS_KEY" in done.stdout
        assert SECRET.encode() not in done.stdout + done.stderr
    assert recorder.with_name("recorder.env").read_text().count(f"VAULTD_INTEGRATION={name} ") == 2


def tried(name: str, program: Path, script: str, stub: Stub, **environ: str) -> subprocess.CompletedProcess[str]:
    """The function with another program in the client's place."""
    call = {"fish": f"'{program}'"}.get(name, str(program))
    text = init(name, client=call) + "\n" + script
    return subprocess.run(
        [name, *FLAGS[name], "-c", text], env=environment(stub, **environ), capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("end", "status"), [("kill -KILL $$", 137), ("kill -TERM $$", 143), ("exit 0", 1), ("exit 3", 3), ("exit 69", 69)]
)
def test_half_an_answer_is_none(name: str, end: str, status: int, stub: Stub, tmp_path: Path) -> None:
    """A client that dies between token and variables: nothing is evaluated, and its grant is swept up. One that ended
    by itself left none.
    """
    program = tmp_path / "dies"
    program.write_text(f"""#!/bin/sh
echo "$1" >> {tmp_path}/calls
[ "$1" = use ] || exit 0
echo "export VAULTD_PROFILE='half';"
{end}
""")
    program.chmod(0o755)
    ended = tried(name, program, f"vault-client use a\necho {STATUS[name]}; env", stub)

    assert ended.stdout.partition("\n")[0] == str(status)
    assert "VAULTD_PROFILE" not in variables(ended.stdout)
    swept = ["__sweep"] if status > 128 or end == "exit 0" else []
    assert ("what use printed was not whole, so nothing was changed" in ended.stderr) is (end == "exit 0")
    assert (tmp_path / "calls").read_text().split() == ["use", *swept]


@pytest.mark.parametrize("name", ALL)
def test_control_a_whole_answer_is_taken(name: str, stub: Stub, tmp_path: Path) -> None:
    """The same program with the last line: what the test above refuses is otherwise well."""
    program = tmp_path / "whole"
    lines = "set -gx VAULTD_PROFILE whole;" if name == "fish" else "export VAULTD_PROFILE=whole;"
    program.write_text(f"#!/bin/sh\necho '{lines}'\necho ': vaultd apply'\n")
    program.chmod(0o755)
    ended = tried(name, program, f"vault-client use a\necho {STATUS[name]}; env", stub)

    assert ended.stdout.partition("\n")[0] == "0"
    assert variables(ended.stdout)["VAULTD_PROFILE"] == "whole"


def test_sweep(stub: Stub, process: Run) -> None:
    """The grants of this shell that its variables do not name; nobody else's, and none that was inherited."""
    holder = {"pid": 4711, "uid": 1000}
    rows = [
        {**GRANT_ROW, "id": "left", "kind": "shell", "peer": holder},
        {**GRANT_ROW, "id": "used", "kind": "shell", "peer": holder},
        {**GRANT_ROW, "id": "outer", "kind": "shell", "peer": holder},
        {**GRANT_ROW, "id": "exec", "kind": "exec", "peer": holder},
        {**GRANT_ROW, "id": "other", "kind": "shell", "peer": {**holder, "pid": 4712}},
        {**GRANT_ROW, "id": "unbound", "kind": "shell", "peer": None},
    ]
    stub.answers["GET", "/v1/grants"] = (200, {"grants": rows})
    stub.answers["DELETE", "/v1/grants/left"] = (200, {})
    told_of = {"VAULTD_INTEGRATION": "bash 4711 4711 1 - -", "VAULTD_GRANT": "used", "VAULTD_SUBSHELL": "outer"}

    assert process("__sweep", **told_of).status == 0
    assert revoked(stub) == ["left"]
    assert process("__sweep").status == 2


@pytest.mark.parametrize("name", POSIX)
@pytest.mark.parametrize("variable", ["AWS_REGION", "no_proxy"])
def test_a_readonly_variable(name: str, variable: str, stub: Stub) -> None:
    """Half of the variables would be set when the shell refuses one: it is named, and nothing is asked for."""
    script = f"readonly {variable}=x; vault-client use a; echo $?; vault-client unuse; echo $?; env"
    ended = spoken(name, script, stub)

    assert ended.out.splitlines()[:2] == ["1", "1"]
    said = f"vault-client: {variable} is readonly here, so nothing was changed: start another shell\n"
    assert ended.err == said * 2
    assert "VAULTD_PROFILE" not in variables(ended.out)
    assert stub.requests == []


@pytest.mark.parametrize("name", ALL)
def test_other_commands_pass_through(name: str, stub: Stub) -> None:
    """stdout, options and exit status are theirs; `--help` and `--shell` of `use`, too; CMD knows nothing of us."""
    script = f"""
vault-client list | head -1
vault-client use --help | head -1
vault-client use a --shell sh | grep -c VAULTD_PROFILE
vault-client exec a -- env | grep -c -E 'VAULTD_PROFILE|INTEGRATION'
vault-client lst; echo {STATUS[name]}
vault-client; echo {STATUS[name]}
"""
    lines = spoken(name, script, stub).out.splitlines()

    assert lines[0].startswith("PROFILE")
    assert lines[1].startswith("usage: vault-client use")
    assert int(lines[2]) >= 1
    assert lines[3:] == ["1", "2", "2"]


def test_where_the_daemon_cannot_see_the_shell(stub: Stub, process: Run) -> None:
    """A container with our socket in it: the grant is unbound, as with plain `eval`, and that is said."""
    refused = error(400, "BadRequest", "field pid: it is no parent of the caller and his; leave it out", 1)
    stub.answers["POST", "/v1/grants"] = [refused, (201, stub.grant())]
    ended = process("use", "a", VAULTD_INTEGRATION=f"bash {PARENT} 0 - -")

    assert ended.out.endswith(": vaultd apply\n")
    assert made(stub) == [
        {"profile": "a", "kind": "shell", "pid": os.getpid()},
        {"profile": "a", "kind": "shell"},
    ]
    assert "vaultd cannot see this shell, so the grant does not end with it: type `vault-client unuse`" in ended.err


def test_use_dash_without_integration(stub: Stub, process: Run) -> None:
    """Nobody remembers there."""
    ended = process("use", "-", "--shell", "sh")

    assert (ended.status, stub.requests) == (1, [])
    assert "without shell integration nobody remembers the profile before" in ended.err


def test_doctor_says_what_to_type_here(stub: Stub, process: Run) -> None:
    """Typed through the function, a remedy has no `eval` in it."""
    ended = process("doctor", VAULTD_INTEGRATION="zsh")

    assert "to do so, type vault-client use PROFILE" in ended.out
    assert "eval" not in ended.out


@pytest.mark.parametrize("told_of", ["", "bash", "bash x 1 0 - -", "bash 1 1", "x  1 0 - -"])
def test_a_variable_that_is_not_of_our_function(told_of: str) -> None:
    """Read as no integration."""
    assert Hook.of({"VAULTD_INTEGRATION": told_of}) is None


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), st.booleans())
def test_memory_is_lossless(profile: str, imds: bool) -> None:
    """Whatever the name, in characters that need no quoting in any shell."""
    options = {"region": "eu-west-1", **({"imds": ""} if imds else {})}
    words = remembered(Call(operands=[], tail=[], options=options, environ={}), profile)
    again = told(f"0 {words} -").back(Call(operands=["-"], tail=[], options={}, environ={}))

    assert set(words) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._@+")
    assert again.operands == [profile]
    assert (again.value("region"), again.flag("imds")) == ("eu-west-1", imds)


@pytest.mark.parametrize("words", ["0 a b c", "0 a", "0"])
def test_memory_of_other_words(words: str, process: Run) -> None:
    """`_vaultd_last='a b'` of an environment: nothing to go back to, and `use` as ever, bound to its shell."""
    told_of = f"bash {PARENT} {words}"
    back = process("use", "-", VAULTD_INTEGRATION=told_of)
    assert (back.status, "no other profile was in use in this shell" in back.err) == (1, True)
    assert process("use", "web-admin", VAULTD_INTEGRATION=told_of).out.endswith(": vaultd apply\n")


def test_memory_that_was_changed() -> None:
    """By hand: a sentence, no traceback."""
    with pytest.raises(Stop, match="what this shell remembers was changed: type `vault-client use PROFILE`"):
        told("0 a@zz -").back(Call(operands=["-"], tail=[], options={}, environ={}))


@pytest.mark.parametrize("name", ["bash", "zsh", "fish", "pwsh"])
def test_shell_init(name: str, process: Run) -> None:
    """For each of the four: the function, and its completion; nothing is asked of the daemon."""
    ended = process("shell-init", name, VAULTD_HOME="/nonexistent")

    assert ended.status == 0
    assert not re.findall(r"@[A-Z]+@", ended.out)
    assert "__complete" in ended.out
    assert "vault_client" in ended.out


def test_shell_init_of_an_unknown_shell(process: Run) -> None:
    """The four are named."""
    ended = process("shell-init", "tcsh")

    assert ended.status == 2
    assert ended.err == ("vault-client: tcsh: no shell of that name is known: choose one of bash, zsh, fish, pwsh\n")


def test_the_program_that_is_called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By name where PATH finds this very program, else by its path, quoted for the shell."""
    program = tmp_path / "a b" / "vault-client"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr("sys.argv", [str(program)])
    monkeypatch.setenv("PATH", str(program.parent))

    assert functions.client("bash") == r"\command vault-client"
    assert functions.client("pwsh") == "& (Get-Command -CommandType Application -TotalCount 1 vault-client)"
    monkeypatch.setenv("PATH", "/usr/bin")
    assert functions.client("zsh") == rf"\command '{program}'"
    assert functions.client("fish") == f"command '{program}'"
    assert functions.client("pwsh") == f"& '{program}'"


def test_powershell_function(process: Run) -> None:
    """Not run here: its braces and quotes are balanced, and it evaluates only what ends in the last line of ours."""
    text = process("shell-init", "pwsh").out

    assert all(text.count(left) == text.count(right) for left, right in ("{}", "()", "[]"))
    assert text.count("'") % 2 == 0
    assert "-ceq ': vaultd apply'" in text
    assert text.index("-ceq ': vaultd apply'") < text.index("Invoke-Expression")


def test_every_managed_variable_is_looked_at(process: Run) -> None:
    """The list in the function of bash and zsh is that of the lines."""
    for name in ("bash", "zsh"):
        assert " ".join(MANAGED) in process("shell-init", name).out


@pytest.mark.parametrize("begin", ["a", "--region eu-west-1 a --", "a --region eu-west-1"])
def test_powershell_takes_the_dashes_away(process: Run, begin: str) -> None:
    """Out of a function's arguments: CMD begins after PROFILE and the options that follow it."""
    line = f"exec {begin} printf %s. x -y --imds"
    ended = process(*line.split(), VAULTD_INTEGRATION="pwsh")

    assert (ended.status, ended.out) == (0, "x.-y.--imds.")
    assert process("exec", "a", VAULTD_INTEGRATION="pwsh").status == 2
    assert process(*line.split(), VAULTD_INTEGRATION="bash").status == (0 if "--" in line.split() else 2)


@pytest.mark.parametrize(("line", "lines"), [("use b", "VAULTD_PROFILE='b'"), ("unuse", "unset VAULTD_PROFILE")])
def test_ctrl_c_while_the_old_grant_ends(stub: Stub, line: str, lines: str) -> None:
    """The lines are out: an exit by Ctrl-C now would have the shell drop them, and its old grant is ended."""
    started: list[subprocess.Popen[str]] = []

    def interrupted(_body: object) -> tuple[int, dict[str, object]]:
        os.kill(started[0].pid, signal.SIGINT)
        return 200, {}

    stub.answers["DELETE", "/v1/grants/g9"] = interrupted
    told_of = f"bash {PARENT} 1 - -"
    held = {"VAULTD_INTEGRATION": told_of, "VAULTD_GRANT": "g9", "VAULTD_SHELL": str(os.getpid())}
    with subprocess.Popen(
        [*CLIENT, *line.split()], env=environment(stub, **held), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    ) as client:  # fmt: skip
        started.append(client)
        out, _ = client.communicate(timeout=30)

    assert revoked(stub) == ["g9"]
    assert client.returncode == 0
    assert lines in out
    assert out.endswith(": vaultd apply\n")
