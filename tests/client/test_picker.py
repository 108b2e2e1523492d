"""The picker on a real terminal: what is seen, what a key does, and that nothing of it stays."""

from __future__ import annotations

import io
import json
import os
import select
import signal
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.client import shells
from tests.client.conftest import CLIENT, Run
from tests.client.emulated import BEFORE, Emulator, Watched
from tests.client.stub import PROFILE, Answer, Stub, environment, error
from tests.client.terminal import start
from vault_client.nearness import Row
from vault_client.offer import Offer, frame
from vault_client.tables import Ink, width

Pick = Callable[..., Watched]
LEFT = "nothing was chosen, so nothing was done: type `vault-client use` for the list again"
NAMES = ("web-admin", "audit", "prod-admin", "prod-audit", "team prod")


def rows(*names: str, **changes: Any) -> Answer:
    return 200, {"profiles": [{**PROFILE, "profile": name, **changes} for name in names]}


@pytest.fixture
def stub(stub: Stub) -> Stub:
    stub.answers["GET", "/v1/profiles"] = rows(*NAMES)
    return stub


@pytest.fixture
def pick(stub: Stub) -> Iterator[Pick]:
    """Start a command on a terminal with an emulator; its stdout is a pipe, as `$(…)` makes it, unless told."""
    started: list[Watched] = []

    def run(*arguments: str, size: tuple[int, int] = (80, 24), piped: bool = True, command: list[str] | None = None,
            **environ: str) -> Watched:  # fmt: skip
        env = {name: value for name, value in {"TERM": "xterm-256color", **environ}.items() if value}
        line = command or [*CLIENT, *(arguments or ("use", "--shell", "sh"))]
        started.append(Watched(start(line, env=environment(stub, **env), piped=piped), *size))
        return started[-1]

    yield run
    for each in started:
        each.running.close()


def chosen(stub: Stub) -> list[str]:
    return [body["profile"] for body in stub.asked("POST", "/v1/grants") if body]


# ---- choosing ----


def test_chosen_by_typing(stub: Stub, pick: Pick) -> None:
    """Account, role and session stand beside each name; typing narrows, Enter chooses; stdout has the lines for eval
    and nothing else, and the terminal is as it was.
    """
    watched = pick()
    seen = watched.shows("Enter chooses")
    watched.type("adm")
    narrowed = watched.until(lambda lines: lines[-1].startswith("2 of 5"))
    watched.type(" prod\r")
    ended = watched.end()

    assert seen[:3] == [
        "profile to use:",
        "> web-admin   234567890123  WebAdmin  fresh 55m",
        "  audit       234567890123  WebAdmin  fresh 55m",
    ]
    assert [line[2:].split()[0] for line in narrowed[1:3]] == ["web-admin", "prod-admin"]
    assert ended.status == 0
    assert chosen(stub) == ["prod-admin"]
    assert "using prod-admin" in ended.err
    assert ended.out.startswith("if ")
    assert "\x1b" not in ended.out
    assert watched.restored


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("\r", "web-admin"),
        ("\n", "web-admin"),
        ("\x1b[B\r", "audit"),
        ("\x1bOB\x1b[B\x1b[A\r", "audit"),
        ("\x0e\x0e\x10\r", "audit"),
        ("\x1b[F\r", "team prod"),
        ("\x1b[F\x1b[H\r", "web-admin"),
        ("\x1b[6~\r", "team prod"),
        ("\x1b[6~\x1b[5~\r", "web-admin"),
        ("\x1b[A\x1b[A\r", "web-admin"),
        ("zz\r\x7f\x7f\r", "web-admin"),
        ("audix\x7f\r", "audit"),
        ("zzz\x15prod\r", "prod-admin"),
        ("team zzz\x17\r", "team prod"),
        ("\x1b[200~te\r\nam\x1b[201~\r", "team prod"),
        ("prod\x1b[B\x1b[B\r", "team prod"),
        ("AUDIT\r", "audit"),
        ("\x1b[24~\x1b[Iaudit\r", "audit"),
    ],
)
def test_keys(stub: Stub, pick: Pick, typed: str, name: str) -> None:
    """Each key does what it says; Enter where nothing fits chooses nothing; a newline that was pasted is no Enter."""
    watched = pick()
    watched.shows("Enter chooses")
    watched.type(typed)

    assert watched.end().status == 0
    assert chosen(stub) == [name]


def test_most_used_first(stub: Stub, pick: Pick, process: Run) -> None:
    """Uses are counted here, by `use` and `exec`, whoever typed the name; the count is a file of ours alone."""
    assert process("use", "prod-audit", "--shell", "sh").status == 0
    assert process("exec", "prod-audit", "--", "true").status == 0
    watched = pick()
    seen = watched.shows("Enter chooses")
    watched.type("\r")
    watched.end()

    assert [line[2:].split()[0] for line in seen[1:4]] == ["prod-audit", "web-admin", "audit"]
    assert list(json.loads((stub.home / "state" / "habits.json").read_text())) == ["prod-audit"]


def test_a_refused_profile_is_no_use(stub: Stub, process: Run) -> None:
    """What was not given is not counted."""
    stub.answers["POST", "/v1/grants"] = error(404, "UnknownProfile", "no profile x: type `vault-client list`", 1)

    assert process("use", "x", "--shell", "sh").status == 1
    assert not (stub.home / "state" / "habits.json").exists()


def test_exec_becomes_the_command(stub: Stub, pick: Pick) -> None:
    """`exec -- CMD`: the chosen profile is CMD's, on whose stdout nothing was drawn."""
    watched = pick("exec", "--", "sh", "-c", 'echo "$VAULTD_PROFILE"; exit 7')
    assert watched.shows("Enter chooses")[0] == "profile for the command:"
    watched.type("team\r")
    ended = watched.end()

    assert (ended.status, ended.out) == (7, "team prod\n")
    assert watched.restored


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ("exec -- no-such-program", 127, "no-such-program was not found"),
        ("exec --region Nowhere -- true", 2, "is no region"),
        ("use --duration 3 --shell sh", 2, "is no length of time"),
        ("exec", 2, "no CMD after --"),
        ("use a b", 2, "b is one too many"),
    ],
)
def test_nobody_chooses_in_vain(stub: Stub, pick: Pick, line: str, status: int, said: str) -> None:
    """A command line that cannot be meant is refused before anything is offered."""
    watched = pick(*line.split())
    ended = watched.end()

    assert ended.status == status
    assert said in ended.err
    assert stub.requests == []
    assert b"\x1b[" not in watched.raw


def test_a_config_edited_meanwhile(stub: Stub, pick: Pick) -> None:
    """The name is looked up afresh: one that went away is refused by the daemon's own sentence, with the nearest."""
    said = "web-admin is no profile of ~/.aws/config. Did you mean web-admins? Type `vault-client list`"
    stub.answers["POST", "/v1/grants"] = error(404, "UnknownProfile", said, 1)
    watched = pick()
    watched.shows("Enter chooses")
    watched.type("\r")
    ended = watched.end()

    assert ended.status == 1
    assert said in ended.err.replace("\n", "")
    assert ended.out == "false;\n"
    assert watched.restored


def test_a_daemon_that_went_away_meanwhile(stub: Stub, pick: Pick) -> None:
    """Exit 69, on a terminal as it was."""
    watched = pick()
    watched.shows("Enter chooses")
    (stub.run / "control.sock").unlink()
    watched.type("\r")
    ended = watched.end()

    assert ended.status == 69
    assert "type `vaultd start`" in ended.err.replace("\n", "")
    assert watched.restored


# ---- leaving ----


@pytest.mark.parametrize("key", ["\x1b", "\x03", "\x07", "\x1c", "\x04", "\x1b\x1b", "web\x1b"])
def test_leaving(stub: Stub, pick: Pick, key: str) -> None:
    """Esc, Ctrl-C, Ctrl-G, Ctrl-backslash, and Ctrl-D while nothing is typed: 130, nothing done, and it says so."""
    watched = pick()
    watched.shows("Enter chooses")
    watched.type(key)
    ended = watched.end()

    assert ended.status == 130
    assert LEFT in ended.err.replace("\n", "")
    assert ended.out == "false;\n"
    assert chosen(stub) == []
    assert watched.restored


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT])
def test_signals(stub: Stub, pick: Pick, number: signal.Signals) -> None:
    """Whoever ends it from elsewhere: the status of that signal, `false;` for eval, the terminal as it was."""
    watched = pick()
    watched.shows("Enter chooses")
    assert not watched.restored  # control: it is seen that it is ours meanwhile
    os.kill(watched.running.child.pid, number)
    ended = watched.end()

    assert ended.status == (130 if number == signal.SIGINT else 128 + number)
    assert ended.out == "false;\n"
    assert chosen(stub) == []
    assert watched.restored


def test_a_signal_that_was_ignored_stays_so(pick: Pick, stub: Stub) -> None:
    """Under nohup a hang-up ends nothing."""
    line = "trap '' HUP; exec " + " ".join([*CLIENT, "use", "--shell", "sh"])
    watched = pick(command=["sh", "-c", line])
    watched.shows("Enter chooses")
    os.kill(watched.running.child.pid, signal.SIGHUP)
    watched.type("\r")

    assert watched.end().status == 0
    assert chosen(stub) == ["web-admin"]


CRASH = """
import sys
from vault_client import __main__, picker
whole, calls = picker.frame, []
def frame(*given):
    calls.append(given)
    if len(calls) > 1:
        raise RuntimeError("a bug of ours")
    return whole(*given)
picker.frame = frame
sys.argv[1:] = ["use", "--shell", "sh"]
sys.exit(__main__.main())
"""


def test_a_crash(stub: Stub, pick: Pick) -> None:
    """An error of ours leaves a usable terminal, too, with the traceback on it."""
    watched = pick(command=[sys.executable, "-c", CRASH], size=(80, 60))
    watched.shows("Enter chooses")
    watched.type("x")
    ended = watched.end()

    assert ended.status == 1
    assert "a bug of ours" in ended.err
    assert chosen(stub) == []
    assert watched.restored


def test_a_window_that_is_closed(stub: Stub, pick: Pick) -> None:
    """No process stays behind, and nothing is chosen."""
    watched = pick()
    watched.shows("Enter chooses")
    watched.running.hang_up()

    assert watched.running.child.wait(20) in {129, -signal.SIGHUP}
    assert chosen(stub) == []


def _stuck_in_write(pid: int) -> bool:
    """Twice seen in write(2) (1 on x86-64, 64 on aarch64), with the same arguments."""
    calls = [Path(f"/proc/{pid}/syscall").read_text() for _ in range(2)]
    return calls[0] == calls[1] and calls[0].split()[0] in {"1", "64"}


def test_a_terminal_that_takes_nothing(stub: Stub, pick: Pick) -> None:
    """Output that nobody reads keeps it waiting, but not from being ended."""
    stub.answers["GET", "/v1/profiles"] = rows(*(f"profile-{at:04}" for at in range(1000)))
    watched = pick(size=(200, 500))
    assert select.select([watched.running.master], [], [], 20)[0]
    child = watched.running.child.pid
    while not _stuck_in_write(child):
        os.sched_yield()  # it is on its way there
    os.kill(child, signal.SIGTERM)

    assert watched.running.child.wait(20) == 143


def test_suspended_and_back(stub: Stub, pick: Pick) -> None:
    """Ctrl-Z gives the shell its terminal as it was, `fg` brings the frame back, and what was typed."""
    watched = pick(command=["bash", "--norc", "--noprofile", "-i"], piped=False, PS1="shell> ")
    watched.shows("shell>")
    watched.type(" ".join(CLIENT) + " exec -- sh -c 'echo got $VAULTD_PROFILE'\n")
    watched.shows("Enter chooses")
    watched.type("aud")
    watched.until(lambda lines: lines[-1].startswith("2 of 5"))
    watched.type("\x1a")
    watched.shows("Stopped")
    assert BEFORE in watched.lines
    watched.type("stty -a | grep -o ' .echo '; echo here\n")
    watched.until(lambda lines: lines[-2:] == ["here", "shell>"])
    watched.type("fg\n")
    watched.until(lambda lines: lines[0] == "profile for the command: aud" and lines[-1].startswith("2 of 5"))
    watched.type("\r")
    watched.shows("got audit")
    watched.type("exit\n")

    assert watched.end().status == 0
    assert chosen(stub) == ["audit"]


def test_stopped_outright_and_back(stub: Stub, pick: Pick) -> None:
    """SIGSTOP leaves no time for anything; SIGCONT sets the terminal again and draws all of it anew."""
    watched = pick()
    watched.shows("Enter chooses")
    child = watched.running.child.pid
    os.kill(child, signal.SIGSTOP)
    os.waitpid(child, os.WUNTRACED)
    termios.tcsetattr(watched.running.master, termios.TCSANOW, watched.settings)
    watched.screen.erase_in_display(2)
    os.kill(child, signal.SIGCONT)
    watched.shows("Enter chooses")
    assert termios.tcgetattr(watched.running.master) != watched.settings
    watched.type("audit\r")
    ended = watched.end()

    assert ended.status == 0
    assert watched.restored
    assert chosen(stub) == ["audit"]


@pytest.mark.parametrize("around", ["lines=$({})", "{} | cat >lines"])
def test_no_ctrl_z_while_somebody_waits(stub: Stub, pick: Pick, around: str) -> None:
    """A shell that waits for our lines could not be told `fg`: Ctrl-Z does nothing there."""
    watched = pick(command=["bash", "--norc", "--noprofile", "-i"], piped=False, PS1="shell> ", HOME=str(stub.home))
    watched.shows("shell>")
    watched.type("cd; " + around.format(" ".join([*CLIENT, "use", "--shell", "sh"])) + "\n")
    watched.shows("Enter chooses")
    watched.type("\x1aaudit\r")
    watched.shows("using audit")
    watched.type("exit\n")

    assert watched.end().status == 0
    assert b"Stopped" not in watched.raw
    assert chosen(stub) == ["audit"]


# ---- who is asked ----


def test_without_a_terminal(stub: Stub, process: Run) -> None:
    """Exit 2 as ever, and nobody was asked anything, the daemon neither."""
    for line, command in (("use", "use"), ("exec -- true", "exec")):
        ended = process(*line.split())
        assert ended.status == 2
        assert f"{command}: PROFILE is missing: type `vault-client {command} --help`" in ended.err
    assert stub.requests == []


def test_without_a_daemon(pick: Pick) -> None:
    """Exit 69 in its one sentence; no picker."""
    watched = pick(VAULTD_HOME="/nonexistent")
    ended = watched.end()

    assert ended.status == 69
    assert "vaultd is not running" in ended.err
    assert b"\x1b[" not in watched.raw


def test_without_profiles(stub: Stub, pick: Pick) -> None:
    """What to write, and where; for a file that is broken, the daemon's own sentence and 78."""
    stub.answers["GET", "/v1/profiles"] = rows()
    ended = pick(size=(200, 24)).end()
    assert ended.status == 1
    assert ended.err.splitlines()[1] == (
        "vault-client: there is no profile to choose: write `[profile NAME]` and below it `source_profile = IDENTITY` "
        "and `role_arn = ARN` to ~/.aws/config, then type `vault-client use`"
    )

    stub.answers["GET", "/v1/profiles"] = (200, {"profiles": [], "trouble": ["config:3 is broken: mend it"]})
    ended = pick().end()
    assert ended.status == 78
    assert "vault-client: config:3 is broken: mend it" in ended.err


@pytest.mark.parametrize(
    ("environ", "ending", "early", "late"),
    [({}, "5 of 5", "audit\r", "\r"), ({"VAULTD_PLAIN": "1"}, "leave:", "2\n", "1\n")],
)
def test_what_was_typed_before_chooses_nothing(
    stub: Stub, pick: Pick, environ: dict[str, str], ending: str, early: str, late: str
) -> None:
    """Enter, typed while the list was on its way, is thrown away; control: a key afterwards chooses."""
    watched = pick(**environ)

    def slow(_: object) -> Answer:
        watched.type(early)
        return rows(*NAMES)

    stub.answers["GET", "/v1/profiles"] = slow
    watched.shows(ending)
    watched.type(late)

    assert watched.end().status == 0
    assert chosen(stub) == ["web-admin"]


@pytest.mark.parametrize("name", shells.ALL)
def test_under_shell_integration(stub: Stub, pick: Pick, name: str) -> None:
    """The function's `use` without a name: the picker is on the terminal, its choice in the shell."""
    rc = stub.home / f"rc.{name}"
    rc.write_text(shells.init(name))
    script = f"source {rc}\nvault-client use\necho in $VAULTD_PROFILE\nvault-client use\n"
    watched = pick(command=[name, *shells.FLAGS[name], "-c", script], piped=False, HOME=str(stub.home))
    watched.shows("Enter chooses")
    watched.type("team\r")
    watched.shows("in team prod")
    watched.shows("Enter chooses")
    watched.type("\x1b")
    ended = watched.end()

    assert ended.status == 130
    assert LEFT in ended.err.replace("\n", "")
    assert chosen(stub) == ["team prod"]
    assert watched.restored


# ---- any terminal ----


def test_resized(stub: Stub, pick: Pick) -> None:
    """A smaller and a larger window are drawn anew, with what was typed and marked."""
    stub.answers["GET", "/v1/profiles"] = rows(*(f"profile-{at:03}" for at in range(200)))
    watched = pick()
    watched.shows("Enter chooses")
    watched.type("\x1b[6~")
    watched.until(lambda lines: "> profile-022  234567890123  WebAdmin  fresh 55m" in lines)
    watched.resize(20, 6)
    narrow = watched.until(lambda lines: lines[0] == "use>" and len(lines) == 6)
    watched.resize(60, 12)
    watched.until(lambda lines: len(lines) == 12 and lines[-1].endswith("type to filter"))
    watched.type("\r")

    assert watched.end().status == 0
    assert [line for line in narrow if line.startswith(">")] == ["> profile-022"]
    assert chosen(stub) == ["profile-022"]
    assert watched.screen.scrolled == 0


def test_on_the_console(stub: Stub, pick: Pick) -> None:
    """A terminal without another screen is wiped of what was drawn; its settings are as they were."""
    watched = pick(TERM="linux")
    watched.shows("Enter chooses")
    watched.type("audit\r")
    ended = watched.end()

    assert ended.err.startswith("vault-client: using audit")
    assert b"1049" not in watched.raw
    assert termios.tcgetattr(watched.running.master) == watched.settings


@pytest.mark.parametrize(
    ("environ", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "vt100"}, False)],
)
def test_colour(stub: Stub, pick: Pick, environ: dict[str, str], coloured: bool) -> None:
    """Only where the terminal has it, and never with NO_COLOR; what fits is underlined then."""
    watched = pick(**environ)
    watched.shows("Enter chooses")
    watched.type("adm")
    watched.until(lambda lines: lines[-1].startswith("2 of 5"))
    watched.type("\x1b")
    watched.end()

    assert any(code in watched.raw for code in (b"\x1b[32m", b";36m")) is coloured
    assert b";4m" in watched.raw


@pytest.mark.parametrize("environ", [{"TERM": "dumb"}, {"TERM": ""}, {"TERM": "no-such"}, {"VAULTD_PLAIN": "1"}])
def test_a_numbered_list(stub: Stub, pick: Pick, environ: dict[str, str]) -> None:
    """Lines where no screen is to be drawn on, and for screen readers: a part of a name narrows, a number chooses."""
    watched = pick(size=(200, 24), **environ)
    ending = "profile to use: a number, a part of a name, or Enter to leave:"
    watched.until(lambda lines: lines[-1] == ending)
    assert watched.lines[1] == "1. web-admin, account 234567890123, role WebAdmin, fresh 55m"
    watched.type("zzz\n")
    watched.shows("nothing fits zzz")
    watched.type("prod\n")
    watched.until(lambda lines: lines[-4].startswith("1. prod-admin") and lines[-1] == ending)
    watched.type("2\n")
    ended = watched.end()

    assert ended.status == 0
    assert chosen(stub) == ["prod-audit"]
    assert b"\x1b" not in watched.raw
    assert termios.tcgetattr(watched.running.master) == watched.settings


@pytest.mark.parametrize(
    ("typed", "name"), [("team prod\n", "team prod"), ("audit\n", "audit"), (" 5 \n", "team prod")]
)
def test_a_whole_name_or_a_number(stub: Stub, pick: Pick, typed: str, name: str) -> None:
    """A name that is typed whole is chosen, although others fit it."""
    watched = pick(VAULTD_PLAIN="1")
    watched.shows("Enter to leave")
    watched.type(typed)

    assert watched.end().status == 0
    assert chosen(stub) == [name]


@pytest.mark.parametrize("typed", ["\n", "\x03", "\x04", "  \n"])
def test_leaving_the_list(stub: Stub, pick: Pick, typed: str) -> None:
    """Enter alone, Ctrl-C and Ctrl-D: 130, nothing done, and it says so."""
    watched = pick(VAULTD_PLAIN="1", size=(200, 24))
    watched.shows("Enter to leave")
    watched.type(typed)
    ended = watched.end()

    assert ended.status == 130
    assert LEFT in ended.err
    assert chosen(stub) == []


def test_leaving_the_list_of_exec(stub: Stub, pick: Pick) -> None:
    """What is named brings the list again: `exec` alone would be refused."""
    watched = pick("exec", "--", "true", VAULTD_PLAIN="1", size=(200, 24))
    watched.shows("Enter to leave")
    watched.type("\n")
    ended = watched.end()

    assert ended.status == 130
    assert LEFT.replace("client use", "client exec -- CMD") in ended.err


def test_a_long_list_is_cut(stub: Stub, pick: Pick) -> None:
    """Nobody is read a thousand lines: twenty, and how many more; no number beyond them chooses."""
    stub.answers["GET", "/v1/profiles"] = rows(*(f"profile-{at:04}" for at in range(1000)))
    watched = pick(VAULTD_PLAIN="1", size=(200, 60))
    watched.shows("and 980 more")
    watched.type("21\n")
    watched.shows("1. profile-0021")
    watched.type("1\n")

    assert watched.end().status == 0
    assert chosen(stub) == ["profile-0021"]


# ---- any name ----


def test_hostile_names(stub: Stub, pick: Pick) -> None:
    """A name that could move the cursor is not offered (the command line takes none such), and what stands beside one
    is cleaned.
    """
    evil = "\x1b]0;title\x07\u202e"
    stub.answers["GET", "/v1/profiles"] = (200, {"profiles": [
        {**PROFILE, "profile": f"evil{evil}"},
        {**PROFILE, "profile": "fine", "account_id": evil, "role_arn": f"arn:aws:iam::1:role/{evil}", "state": evil},
    ]})  # fmt: skip
    watched = pick()
    seen = watched.shows("1 of 1")
    watched.type("\x1b")
    watched.end()

    assert b"\x1b]0" not in watched.raw
    assert "\u202e".encode() not in watched.raw
    assert seen[1].startswith("> fine  ?]0;title")


LETTER = st.characters(min_codepoint=32, max_codepoint=0x1FAFF, exclude_categories=("C", "Z", "M"))
SHOWN = st.text(LETTER, min_size=1, max_size=40)
SIZES = st.tuples(st.integers(2, 100), st.integers(1, 30))


class _Colour(io.StringIO):
    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError


def drawn(shown: Offer, size: tuple[int, int]) -> Emulator:
    """One frame as an emulator shows it."""
    from pyte import Stream

    screen = Emulator(*size)
    lines, cursor = frame(shown, "use", size, Ink(_Colour(), {}))
    assert len(lines) <= size[1]
    text = "".join(f"\x1b[{at + 1};1H{line}" for at, line in enumerate(lines))
    Stream(screen).feed("\x1b[?7l" + text + f"\x1b[{cursor[0] + 1};{cursor[1] + 1}H")
    assert screen.scrolled == 0
    assert cursor[0] < size[1]
    return screen


@given(st.lists(SHOWN, min_size=1, max_size=40, unique=True), SHOWN | st.just(""), SIZES, st.integers(0, 60))
def test_any_names_on_any_size(names: list[str], typed: str, size: tuple[int, int], down: int) -> None:
    """Nothing wraps or scrolls, the marked row is seen, and it is the only one."""
    shown = Offer([Row({**PROFILE, "profile": name}) for name in names])
    shown.type(typed)
    shown.move(down)
    screen = drawn(shown, size)

    marked = [line for line in screen.text[1:] if line.startswith(">")]
    assert len(marked) == (1 if shown.found and size[1] > 1 else 0)


@given(st.lists(SHOWN, min_size=2, max_size=10, unique=True))
def test_columns_stay_straight(names: list[str]) -> None:
    """At 80 columns every account begins in the same column, however wide the names are."""
    shown = Offer([Row({**PROFILE, "profile": name}) for name in names])
    screen = drawn(shown, (80, 24))
    found = set()
    for at in range(1, 1 + len(names)):
        cells = [screen.buffer[at][x].data for x in range(80)]
        found.add(next(x for x in range(80) if "".join(cells[x : x + 12]) == PROFILE["account_id"]))

    assert len(found) == 1
    assert found.pop() <= 2 + max(map(width, names)) + 2


def test_names_differ_at_their_ends() -> None:
    """One that is too long loses its middle; at 20 columns the names alone are left."""
    names = [
        "organisation-production-eu-west-1-administrator",
        "organisation-production-eu-west-1-readonly",
        "日本語" * 9,
    ]
    shown = Offer([Row({**PROFILE, "profile": name}) for name in names])

    assert drawn(shown, (20, 6)).text == [
        "use>",
        "> organisat…istrator",
        "  organisat…readonly",
        "  日本語日…語日本語",
        "",
        "3 of 3",
    ]


@pytest.mark.parametrize("name", ["e\u0301quipe-\u65e5\u672c", "a🚀b", "\u0e01\u0e33\u0e19"])
def test_wide_and_combined_names(stub: Stub, pick: Pick, name: str) -> None:
    """They are shown, found by their letters and chosen as they are written."""
    stub.answers["GET", "/v1/profiles"] = rows("other", name)
    watched = pick()
    watched.shows("2 of 2")
    watched.type(name[-1])
    watched.shows("1 of 2")
    watched.type("\x7f\x7f" + name + "\r")

    assert watched.end().status == 0
    assert chosen(stub) == [name]


def test_a_thousand_profiles(stub: Stub, pick: Pick) -> None:
    """Every one is reached; each key writes at most one screen."""
    stub.answers["GET", "/v1/profiles"] = rows(*(f"profile-{at:04}" for at in range(1000)))
    watched = pick()
    watched.shows("1000 of 1000")
    before = len(watched.raw)
    watched.type("\x1b[B")
    watched.until(lambda lines: lines[2].startswith(">"))
    moved = len(watched.raw) - before
    watched.type("\x1b[F\r")

    assert watched.end().status == 0
    assert moved < 400  # two lines changed
    assert chosen(stub) == ["profile-0999"]


def test_what_it_loads(stub: Stub, pick: Pick) -> None:
    """The picker's own start is law, too: none of the slow modules (interface.md §3)."""
    from tests.client.test_start import FORBIDDEN, PROBE, SOURCES

    watched = pick(command=[sys.executable, "-I", "-c", PROBE, str(SOURCES), "exec", "--", "true"], size=(250, 24))
    watched.shows("Enter chooses")
    watched.type("\r")
    ended = watched.end()
    loaded = set(ended.err.replace("\n", "").rpartition("loaded: ")[2].split())

    assert {"vault_client.picker", "_curses"} <= loaded
    assert loaded & FORBIDDEN == set()


def test_a_typed_name_loads_no_picker(stub: Stub) -> None:
    """Who names his profile pays nothing for it."""
    from tests.client.test_start import loaded

    assert not loaded(stub, "use", "web-admin", "--shell", "sh") & {
        "vault_client.picker",
        "vault_client.offer",
        "vault_client.screen",
        "vault_client.keyboard",
    }
