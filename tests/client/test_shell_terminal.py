"""Shell integration and completion at a terminal: what is typed, TAB and Ctrl-C included (issue 6, Build 1)."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.client.shells import ALL, NAMES, counted, init, made, quoted, revoked
from tests.client.stub import IDENTITY, PROFILE, Stub, environment, mfa_required
from tests.client.terminal import OnTerminal, start

INTERACTIVE = {"bash": ["--norc", "--noprofile", "-i"], "zsh": ["-f", "-i"], "fish": ["-i", "--private"]}
STATUS = {"bash": "$?", "zsh": "$?", "fish": "$status"}
#: A prompt that says when the shell waits; no bracketed paste, no redrawing of a right half.
PLAIN = {
    "bash": "bind 'set enable-bracketed-paste off'; bind 'set bell-style none'; PS1='READY> '",
    "zsh": "unset zle_bracketed_paste; setopt no_prompt_sp no_beep; PS1='READY> '",
    # which draws its prompt again at each key: said by an event, once
    "fish": "function fish_prompt; echo -n '> '; end; function ready --on-event fish_prompt; echo -n 'READY> '; end; "
    "set -g fish_greeting; set -g fish_autosuggestion_enabled 0",
}
COMPINIT = "autoload -Uz compinit && compinit -u -d $HOME/.zcompdump\n"

DOCUMENT = Path(__file__).parents[2] / "docs/shell.md"
QUERY = "/v1/profiles?profile="

Open = Callable[..., OnTerminal]


PATIENT = """#!{python} -I
import sys
from vault_client import completion
from vault_client.__main__ import main
completion.PATIENCE = completion.READING = 20.0
sys.exit(main())
"""


@pytest.fixture
def shell(stub: Stub, tmp_path: Path) -> Iterator[Open]:
    """A shell with integration on a terminal of its own, at its prompt. `client`: a program in our place; else ours,
    whose completion has time on a busy machine, too (how long it has is of test_shell_completion.py).
    """
    started: list[OnTerminal] = []
    patient = tmp_path / "vault-client"
    patient.write_text(PATIENT.format(python=sys.executable))
    patient.chmod(0o700)

    def run(name: str, *, client: Path | None = None, before: str = "", **environ: str) -> OnTerminal:
        call = str(client or patient)
        rc = tmp_path / f"rc.{name}"
        first = COMPINIT if name == "zsh" else ""
        rc.write_text(f"{first}{before}\n{init(name, client=call)}\n{PLAIN[name]}\n")
        environ = {"HOME": str(tmp_path), "TERM": "dumb" if name == "fish" else "xterm", "COLUMNS": "400", **environ}
        env = environment(stub, **{"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", **environ})
        started.append(start([name, *INTERACTIVE[name]], env=env, columns=400, cwd=str(tmp_path)))
        started[-1].type(f"source {rc}\n")
        started[-1].until("READY> ")
        return started[-1]

    yield run
    for each in started:
        each.close()


def say(terminal: OnTerminal, line: str) -> str:
    """What a line prints, up to the next prompt."""
    terminal.type(line + "\n")
    return terminal.until("READY> ")


def shown(terminal: OnTerminal) -> str:
    """The profile in use."""
    said = say(terminal, """sh -c 'echo "now=${VAULTD_PROFILE-none}="'""")
    return said.rpartition("now=")[2].partition("=")[0]


@pytest.mark.parametrize("name", ALL)
def test_ctrl_c_at_the_question(name: str, stub: Stub, shell: Open) -> None:
    """The question is cancelled, nothing was set, no grant was made, and the shell goes on."""
    stub.answers["POST", "/v1/grants"] = mfa_required(opened=True)
    terminal = shell(name)
    terminal.type("vault-client use web-admin\n")
    terminal.until("MFA code: ")
    terminal.type("\x03")
    terminal.until("cancelled: ")
    terminal.until("READY> ")

    assert shown(terminal) == "none"
    assert revoked(stub) == ["q1"]  # the question, and no grant


@pytest.mark.parametrize("name", ALL)
def test_ctrl_c_that_comes_late(name: str, shell: Open, tmp_path: Path) -> None:
    """The grant is made and its lines are on their way: all of it (bash and zsh wait for them), or none, and the next
    prompt of fish has its grant swept up.
    """
    program = tmp_path / "late"
    line = "set -gx VAULTD_PROFILE whole;" if name == "fish" else "export VAULTD_PROFILE=whole;"
    program.write_text(f"""#!{sys.executable}
import os, signal, sys
open({str(tmp_path / "calls")!r}, "a").write(sys.argv[1] + "\\n")
if sys.argv[1] == "use":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.write(2, b"asked\\n")
    os.read(os.open("/dev/tty", os.O_RDONLY), 100)
    os.write(1, b"{line}\\n: vaultd apply\\n")
""")
    program.chmod(0o755)
    terminal = shell(name, client=program)
    terminal.type("vault-client use web-admin\n")
    terminal.until("asked")
    terminal.type("\x03")
    terminal.type("\n")
    terminal.until("READY> ")
    found = shown(terminal)

    assert found == ("none" if name == "fish" else "whole")
    swept = ["__sweep"] if name == "fish" else []
    assert [call for call in (tmp_path / "calls").read_text().split() if call != "__complete"] == ["use", *swept]


@pytest.mark.parametrize("name", ALL)
def test_a_code_is_asked_here(name: str, stub: Stub, shell: Open) -> None:
    """The question comes to the terminal though stdout is the function's, the code is not shown, and the shell has
    what it asked for.
    """
    granted = stub.answers["POST", "/v1/grants"]
    stub.answers["POST", "/v1/grants"] = [mfa_required(opened=True), granted(
        {"profile": "web-admin"})]  # fmt: skip
    terminal = shell(name)
    terminal.type("vault-client use web-admin\n")
    terminal.until("MFA code: ")
    terminal.type("123456\n")
    seen = terminal.until("READY> ")

    assert "using web-admin" in seen
    assert "123456" not in seen
    assert shown(terminal) == "web-admin"


@pytest.mark.parametrize("name", ALL)
def test_two_terminals(name: str, stub: Stub, shell: Open) -> None:
    """Each has its own profile, its own grant and its own way back."""
    counted(stub)
    first, second = shell(name), shell(name)
    say(first, "vault-client use a")
    say(second, "vault-client use b")
    first.type("vault-client use c\n")  # both at once
    second.type("vault-client use d\n")
    first.until("READY> ")
    second.until("READY> ")
    say(first, "vault-client use -")

    assert (shown(first), shown(second)) == ("a", "d")
    say(second, "vault-client unuse")
    assert (shown(first), shown(second)) == ("a", "none")
    pids = {each["pid"] for each in made(stub)}
    assert pids == {first.child.pid, second.child.pid}
    assert len(revoked(stub)) == 4


def profiles(stub: Stub, *names: str) -> None:
    """What the daemon lists."""
    rows = [{**PROFILE, "profile": each} for each in names]
    stub.answers["GET", "/v1/profiles"] = (200, {"profiles": rows})
    stub.answers["GET", "/v1/identities"] = (200, {"identities": [{**IDENTITY, "name": each} for each in names]})


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("profile", NAMES)
def test_tab_completes_any_name(name: str, profile: str, stub: Stub, shell: Open, tmp_path: Path) -> None:
    """The one profile there is, by TAB: it arrives as it is called, and nothing of it is run."""
    counted(stub)
    profiles(stub, profile)
    terminal = shell(name)
    dashes = "-- " if profile.startswith("-") else ""
    terminal.type(f"vault-client use {dashes}\t")
    say(terminal, "")

    assert [each["profile"] for each in made(stub)] == [profile]
    assert not list(tmp_path.rglob("PWNED"))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("typed", "profile"),
    [
        ("'team p", "team prod"),
        ('"team p', "team prod"),
        ("team\\ p", "team prod"),
        ("te", "team prod"),
        ('"a$', "a$b`c"),
        ("'a", "a$b`c"),
        ("a:b", "a:bcd e"),
        ("a:", "a:bcd e"),
        ("a=b@", "a=b@c d"),
        ("ü", "ü日本🚀"),
        ("it\\'", "it's"),
        ("'bang", "bang!bang"),
        ('"bang', "bang!bang"),
    ],
)
def test_tab_goes_on_with_what_was_typed(name: str, typed: str, profile: str, stub: Stub, shell: Open) -> None:
    """Begun in quotes, with a backslash, or past a character at which readline begins a new word."""
    if name != "bash" and typed == '"a$':
        typed = '"a'  # a `$` in double quotes begins a variable's name to their completion, and they offer those
    counted(stub)
    profiles(stub, profile, "other")
    terminal = shell(name)
    terminal.type(f"vault-client use {typed}\t")
    say(terminal, "")

    assert [each["profile"] for each in made(stub)] == [profile]


@pytest.mark.needs("bash")
@pytest.mark.parametrize("change", ["${COMP_WORDBREAKS//:}", "${COMP_WORDBREAKS//[@=]}", "$COMP_WORDBREAKS-+"])
@pytest.mark.parametrize("typed", ["a", "a:b", "'a:b", "a:b=c", "a:b=c@", "a:b=c@d-", "a:b=c@d-e+"])
def test_tab_with_word_breaks_of_ones_own(change: str, typed: str, stub: Stub, shell: Open) -> None:
    """Many an rc file takes the colon out of COMP_WORDBREAKS: what readline keeps is what it says now."""
    counted(stub)
    profiles(stub, "a:b=c@d-e+f g", "other")
    terminal = shell("bash")
    say(terminal, f"COMP_WORDBREAKS={change}")
    terminal.type(f"vault-client use {typed}\t")
    say(terminal, "")

    assert [each["profile"] for each in made(stub)] == ["a:b=c@d-e+f g"]


@pytest.mark.parametrize("name", ALL)
def test_tab_completes_commands_options_and_values(name: str, stub: Stub, shell: Open) -> None:
    """`ident`, `--rem`… the whole line by TAB alone."""
    profiles(stub, "web-admin", "other")
    terminal = shell(name)
    terminal.type("vault-client expo\tweb\t--for\tdoten\t")
    said = say(terminal, "")

    assert "AWS_ACCESS_KEY_ID=" in said
    assert stub.asked("GET", "/v1/profiles/web-admin/credentials") == [None]
    terminal.type("vault-client remove o\t")
    stub.answers["DELETE", "/v1/identities/other"] = (200, {})
    terminal.type("\r")
    terminal.until("? [y/N] ")
    say(terminal, "y")
    assert stub.asked("DELETE", "/v1/identities/other") == [None]


@pytest.mark.parametrize("name", ALL)
def test_tab_completes_a_page_of_the_console(name: str, stub: Stub, shell: Open) -> None:
    """`login --service elasticb`, the profile and all by TAB."""
    profiles(stub, "web-admin", "other")
    terminal = shell(name)
    terminal.type("vault-client login --stdout --service elasticb\tweb\t")
    say(terminal, "")

    assert stub.asked("POST", "/v1/profiles/web-admin/signin") == [{"service": "elasticbeanstalk"}]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("before", ["true; ", "vault-client --version && ", "A=1 ", "echo 'x y' | "])
def test_tab_within_a_longer_line(name: str, before: str, stub: Stub, shell: Open) -> None:
    """Only the command that the cursor is in counts."""
    profiles(stub, "web-admin", "other")
    terminal = shell(name)
    terminal.type(f"{before}vault-client export we\t--format json")
    said = say(terminal, "")

    assert '"AccessKeyId"' in said
    assert stub.asked("GET", "/v1/profiles/web-admin/credentials") == [None]


@pytest.mark.parametrize("name", ALL)
def test_tab_after_the_dashes_is_the_shells_own(name: str, stub: Stub, shell: Open, tmp_path: Path) -> None:
    """`exec P -- CMD`: programs, then their arguments."""
    program = tmp_path / "bin" / "vaultd-test-program"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "ran with <$1>"\n')
    program.chmod(0o755)
    (tmp_path / "some file").touch()
    terminal = shell(name, PATH=f"{program.parent}:{os.environ['PATH']}")
    say(terminal, f"cd {tmp_path}")
    terminal.type("vault-client exec web-admin -- vaultd-test-pro\tsome\t")
    said = say(terminal, "")

    assert "ran with <some file>" in said


@pytest.mark.parametrize("name", ALL)
def test_descriptions_are_shown(name: str, stub: Stub, shell: Open) -> None:
    """Account and role beside the name, where the shell has a place for them."""
    profiles(stub, "web-admin", "web-audit")
    terminal = shell(name, TERM="xterm")
    terminal.type("vault-client use web-a\t" if name == "fish" else "vault-client use web-a\t\t")
    shows = ["web-admin", "web-audit"] if name == "bash" else ["234567890123 WebAdmin"] * 2
    seen = "".join(terminal.until(each) for each in shows)

    assert "dmin" in seen
    assert "udit" in seen


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("profile", NAMES)
def test_the_prompt_runs_nothing(name: str, profile: str, stub: Stub, shell: Open, tmp_path: Path) -> None:
    """Whatever a profile is called, a prompt that shows it shows it: no command runs, no escape is taken."""
    profiles(stub, profile)
    row = {**PROFILE, "profile": profile, "seconds_left": 3300}
    stub.answers["GET", f"/v1/profiles?profile={profile}"] = (200, {"profiles": [row]})
    program = f"{sys.executable} -m vault_client prompt"
    forms = {
        "bash": [f"PS1='<$({program})>READY> '", f"""PROMPT_COMMAND='PS1="<$({program})>READY> "'"""],
        "zsh": [f"setopt prompt_subst prompt_bang; PS1='<$({program})>READY> '",
                f"""precmd() {{ PS1="<$({program})>READY> " }}"""],
        "fish": [f"function fish_prompt; echo -n '<'({program})'>READY> '; end"],
    }  # fmt: skip
    for form in forms[name]:
        terminal = shell(name)
        word = quoted(name, profile)
        say(terminal, f"set -gx VAULTD_PROFILE {word}" if name == "fish" else f"export VAULTD_PROFILE={word}")
        terminal.type(form + "\n")
        seen = terminal.until("·55m>").rpartition("<")[2]
        plain = "".join(chr(ord(char) - 0xFEE0) if 0xFF01 <= ord(char) <= 0xFF5E else char for char in seen)
        assert plain.partition("·")[0] == profile
    assert not list(tmp_path.rglob("PWNED"))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("profile", ["web-admin", "50% $(touch PWNED) `x` \\w!"])
def test_the_documented_prompts(name: str, profile: str, stub: Stub, shell: Open, tmp_path: Path) -> None:
    """The lines of docs/shell.md as they stand: nothing while nothing is in use, then the profile and its time."""
    stub.answers["GET", f"/v1/profiles?profile={profile}"] = (
        200,
        {"profiles": [{**PROFILE, "profile": profile, "seconds_left": 3300}]},
    )
    found = re.search(rf"```{name}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found is not None
    terminal = shell(name, TERM="xterm")
    before = stub.requests.copy()
    terminal.type(found[1])
    word = quoted(name, profile)
    said = f"set -gx VAULTD_PROFILE {word}" if name == "fish" else f"export VAULTD_PROFILE={word}"
    terminal.type(f"echo so far; {said}\n")
    seen = terminal.until("·55m")

    assert "·" not in seen.removesuffix("·55m")
    assert [path for _, path, _ in stub.requests[len(before) :]] == [QUERY + quote(profile)]
    assert not list(tmp_path.rglob("PWNED"))


@pytest.mark.parametrize("name", ["bash", "zsh"])
def test_a_prompt_that_says_nothing_leaves_no_brackets(name: str, stub: Stub, shell: Open) -> None:
    """The same lines without a daemon, where `prompt` prints nothing: `[]` would look like a profile without a name."""
    stub.answers["GET", QUERY + "web-admin"] = (200, {"profiles": [{**PROFILE, "seconds_left": 3300}]})
    found = re.search(rf"```{name}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found is not None
    terminal = shell(name, TERM="xterm")
    terminal.type(found[1] + "export VAULTD_PROFILE=web-admin\n")
    assert "[web-admin·55m] " in terminal.until("·55m] ")  # control
    terminal.type('export VAULTD_HOME=/nonexistent; echo from he""re\n')
    terminal.until("from here")
    terminal.type('echo to he""re\n')

    assert "[]" not in terminal.until("to here")
