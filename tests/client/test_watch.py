"""`status --watch`: what is seen at any size, questions answered in place, a daemon that comes and goes, lines."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.client.conftest import CLIENT, Run
from tests.client.emulated import Watched
from tests.client.stub import GRANT_ROW, PROFILE, PROMPT, STATUS, Answer, Stub, environment, error, mfa_required
from tests.client.terminal import OnTerminal, start
from tests.client.test_start import loaded
from vault_client import changes, panel
from vault_client import watch as watching
from vault_client.cli import Call
from vault_client.errors import Stop
from vault_client.feed import Feed
from vault_client.panel import Board
from vault_client.tables import Ink, width
from vault_client.watch import Drawn, _lines

Watch = Callable[..., Watched]
DENIED = {
    "time": "2026-11-22T19:00:00Z", "event": "credentials.deny", "profile": "web-admin", "reason": "InvalidToken",
    "peer": {"pid": 7, "argv0": "curl"}, "count": 3, "seq": 9,
}  # fmt: skip
CONSENT = {**PROMPT, "id": "q2", "kind": "consent", "profile": "prod"}
PAST = ("GET", "/v1/audit?n=500")


@pytest.fixture
def stub(stub: Stub) -> Stub:
    stub.answers[PAST] = (200, {"events": [{**DENIED, "event": "start"}, DENIED]})
    return stub


@pytest.fixture
def watch(stub: Stub) -> Iterator[Watch]:
    """`status --watch` on a terminal with an emulator."""
    started: list[Watched] = []

    def run(*, size: tuple[int, int] = (80, 24), **environ: str) -> Watched:
        env = environment(stub, **{"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **environ})
        started.append(Watched(start([*CLIENT, "status", "--watch"], env=env), *size))
        return started[-1]

    yield run
    for each in started:
        each.running.close()


def status(stub: Stub, **changes_: Any) -> None:
    """From now on."""
    stub.answers["GET", "/v1/status"] = (200, {**STATUS, **changes_})


# ---- what is seen ----


def test_the_table(stub: Stub, watch: Watch) -> None:
    """Sessions with a bar of the time left, grants with who holds them, last denials, at 80×24; nothing scrolls, and
    `q` leaves the terminal as it was.
    """
    watched = watch()
    lines = watched.shows("InvalidToken")
    watched.type("q")
    ended = watched.end()

    assert lines[0] == "vaultd unlocked · 0.1.0 · pid 42 · port 9169 · store file"
    assert re.match(r"web-admin  █{22}░░  5[45]m( \d+s)? +fresh  identity$", lines[3]), lines[3]
    assert lines[6] == "web-admin  terraform (4711)  never     exec  g1"
    assert lines[9] == "2026-11-22 19:00  InvalidToken  web-admin  curl (7)  3"
    assert lines[-1] == "q leaves"
    assert (ended.status, watched.screen.scrolled, watched.restored) == (0, 0, True)


def test_it_follows(stub: Stub, watch: Watch) -> None:
    """An event has the status asked for again, and a denial is shown as it happens."""
    watched = watch()
    watched.shows("InvalidToken")
    status(stub, profiles=[PROFILE, {**PROFILE, "profile": "audit", "state": "due", "seconds_left": 599}])
    stub.emit({**DENIED, "reason": "ForbiddenPeer"})
    lines = watched.until(
        lambda lines: any("audit" in line for line in lines) and any("Forb" in each for each in lines)
    )

    assert next(line for line in lines if line.startswith("audit")).split()[1::3] == ["█" * 4 + "░" * 20, "due"]
    assert "locked" not in lines[0].split()
    status(stub, locked=True, profiles=[])
    stub.emit({"event": "lock", "seq": 11})
    lines = watched.shows("vaultd locked")
    assert lines[1] == "nothing is served: type `vault-client unlock`"


def test_another_size(stub: Stub, watch: Watch) -> None:
    """The window is made small and large again: each frame is whole, and nothing of another one stays."""
    watched = watch(size=(100, 30))
    before = watched.shows("InvalidToken")
    watched.resize(20, 8)
    small = watched.until(lambda lines: lines[0] == "vaultd unlocked · 0…" and len(lines) == 8)
    watched.resize(100, 30)
    after = watched.until(lambda lines: len(lines) == 30)

    assert small[-1] == "q leaves"
    assert [line.split("█")[0] for line in after] == [line.split("█")[0] for line in before]
    assert watched.screen.scrolled == 0


def test_no_flicker(stub: Stub, watch: Watch) -> None:
    """The screen is wiped once, at the beginning: then only lines that changed are written."""
    watched = watch()
    watched.shows("InvalidToken")
    stub.emit({**DENIED, "reason": "ForbiddenPeer"})
    watched.shows("ForbiddenPeer")

    assert watched.raw.count(b"\x1b[2J") == 1
    assert watched.raw.count(b"store file") == 1


@pytest.mark.parametrize("how", ["\x03", "\x04", signal.SIGTERM, signal.SIGHUP])
def test_every_way_out(watch: Watch, how: str | signal.Signals) -> None:
    """The terminal is as it was."""
    watched = watch()
    watched.shows("q leaves")
    if isinstance(how, str):
        watched.type(how)
    else:
        os.kill(watched.running.child.pid, how)
    ended = watched.end()

    assert ended.status == {"\x03": 130, "\x04": 0}.get(str(how), 128 + int(how) if isinstance(how, int) else 0)
    assert watched.restored
    assert "Traceback" not in ended.err


def test_colour_only_where_it_is_wanted(stub: Stub, watch: Watch) -> None:
    """NO_COLOR; control: without it a state has its colour."""
    coloured = watch()
    coloured.shows("InvalidToken")
    plain = watch(NO_COLOR="1")
    plain.shows("InvalidToken")

    assert b"\x1b[32mfresh" in coloured.raw
    assert not re.search(rb"\x1b\[3\dm", plain.raw)


# ---- questions ----


def test_a_code_is_typed_in_place(stub: Stub, watch: Watch) -> None:
    """The digit opens its question, the six digits go out unseen, and the table says so; the asker was counted."""
    status(stub, prompts=[PROMPT])
    watched = watch()
    watched.shows("q leaves · 1 answers")
    watched.type("1")
    lines = watched.shows("MFA code:")
    assert "vaultd · web-admin · requested by zsh (pid 4711, /usr/bin/zsh) · code for" in lines
    assert stub.attending.acquire(timeout=10)
    watched.type("91827\x7f73\r")
    watched.shows("answered: web-admin")
    watched.type("q")

    assert watched.end().status == 0
    assert stub.asked("POST", "/v1/prompts/q1") == [{"token_code": "918273"}]
    assert b"9182" not in watched.raw
    assert stub.left.wait(10)


def test_a_wrong_code(stub: Stub, watch: Watch) -> None:
    """Nothing but six digits is sent; AWS's no is told, and the next code is taken on the same line."""
    status(stub, prompts=[PROMPT])
    stub.answers["POST", "/v1/prompts/q1"] = [mfa_required(attempts_left=2), (200, {})]
    watched = watch()
    watched.shows("1 answers")
    watched.type("\r")
    watched.shows("MFA code:")
    watched.type("my passphrase\r")
    watched.shows("a code is six digits, so nothing was sent")
    watched.type("000000\r")
    watched.shows("AWS refused that code as invalid (2 left)")
    watched.type("123 456\r")
    watched.shows("answered: web-admin")

    assert [body and body["token_code"] for body in stub.asked("POST", "/v1/prompts/q1")] == ["000000", "123456"]
    assert b"passphrase" not in watched.raw


@pytest.mark.parametrize(("typed", "allow"), [("y\r", True), ("YES\r", True), ("\r", False), ("yep\r", False)])
def test_a_program_is_allowed_or_denied(stub: Stub, watch: Watch, typed: str, allow: bool) -> None:
    """`y` or `yes` and nothing else allows (ask.py's rule); the second digit is the second question."""
    status(stub, prompts=[PROMPT, CONSENT])
    stub.answers["POST", "/v1/prompts/q2"] = (200, {})
    watched = watch()
    watched.shows("1-2 answer")
    watched.type("2")
    lines = watched.shows("[y/N]")
    assert any("prod · requested by zsh" in line for line in lines)
    watched.type(typed)
    watched.shows("answered: prod")

    assert stub.asked("POST", "/v1/prompts/q2") == [{"allow": allow}]


@pytest.mark.parametrize("ahead", ["2y\r", "2y\r2y\r"])
def test_nothing_typed_ahead_allows_a_program(stub: Stub, watch: Watch, ahead: str) -> None:
    """What was typed before a question was seen answers it by no letter. Control: what is typed then, does."""
    status(stub, prompts=[PROMPT, CONSENT])
    stub.answers["POST", "/v1/prompts/q2"] = (200, {})
    watched = watch()
    watched.shows("1-2 answer")
    watched.type(ahead)
    lines = watched.shows("[y/N]")
    assert lines[-1] == "[y/N]"
    assert stub.attending.acquire(timeout=10)
    watched.type("n\r")
    watched.shows("answered: prod")

    assert stub.asked("POST", "/v1/prompts/q2") == [{"allow": False}]


def test_half_a_key_typed_ahead_is_forgotten(stub: Stub, watch: Watch) -> None:
    """An Esc that may begin an arrow key is kept until more is there: one of before the question neither leaves it nor
    takes the code's first digit with it.
    """
    status(stub, prompts=[PROMPT])
    watched = watch()
    watched.shows("1 answers")
    watched.type("1\x1b")
    watched.shows("MFA code:")
    assert stub.attending.acquire(timeout=10)
    watched.type("123456\r")
    watched.until(lambda lines: "answered: web-admin" in lines or any("six digits" in line for line in lines)
                  or lines[-1].startswith("q leaves"))  # fmt: skip

    assert stub.asked("POST", "/v1/prompts/q1") == [{"token_code": "123456"}]


class Played:
    """A screen and a feed: the keys and the news of each turn, which come at once."""

    size, due, sources = (80, 24), 0.0, ()

    def __init__(self, *turns: tuple[list[str], list[tuple[str, Any]]]) -> None:
        self.first = {**STATUS, "prompts": [PROMPT, CONSENT]}
        self._turns = list(turns)
        self._news: list[tuple[str, Any]] = []

    def ink(self, _: object) -> Ink:
        made = Ink.__new__(Ink)
        made.on, made.width = False, 80
        return made

    def draw(self, *_: object) -> None:
        """Nobody looks."""

    def forget(self) -> None:
        """Nothing is typed ahead."""

    def wait(self, *_: object, **__: object) -> tuple[list[str], list[Any]]:
        keys, self._news = self._turns.pop(0)
        return keys, []

    def turn(self, _: object) -> list[tuple[str, Any]]:
        return self._news


class TypedAhead(Played):
    """What the terminal still holds comes with the next look, unless it is forgotten."""

    held: tuple[str, ...] = ("y", "enter")

    def forget(self) -> None:
        self.held = ()

    def wait(self, *_: object, **__: object) -> tuple[list[str], list[Any]]:
        keys, ready = super().wait()
        if not keys:
            keys, self.held = list(self.held), ()
        return keys, ready


@pytest.mark.parametrize("key", ["2", "1"])
def test_what_the_terminal_holds_answers_nothing(stub: Stub, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A y that was typed before the question was seen, and was not read with the digit that opened it."""
    pressed: list[str] = []
    monkeypatch.setattr("vault_client.watch.Answering.press", lambda _, key: pressed.append(key))
    played: Any = TypedAhead(([key], []), ([], []), (["esc", "q"], []))
    call = Call(operands=[], tail=[], options={}, environ=stub.environ)

    assert Drawn(call, played, played).run() == 0
    assert stub.attending.acquire(timeout=10)
    assert pressed == []


def test_a_digit_is_of_the_question_that_it_stood_beside(stub: Stub) -> None:
    """One that ends as the key is pressed moves the others up: none of those is opened in its place."""
    moved = ("status", {**STATUS, "prompts": [CONSENT]})
    played: Any = Played((["1"], [moved]), (["esc"], []), (["1"], []), (["esc", "q"], []))
    call = Call(operands=[], tail=[], options={}, environ=stub.environ)

    assert Drawn(call, played, played).run() == 0
    assert stub.attending.acquire(timeout=10)
    assert stub.attending.acquire(timeout=10)
    attended = [path for verb, path, _ in stub.requests if verb == "GET" and "/prompts/" in path]
    assert attended == ["/v1/prompts/q1?wait&attend", "/v1/prompts/q2?wait&attend"]


def test_esc_leaves_a_question_and_cancels_none(stub: Stub, watch: Watch) -> None:
    """Its asker goes, as a terminal that is closed would; the table is there again, and `q` typed to a code is none."""
    status(stub, prompts=[PROMPT])
    watched = watch()
    watched.shows("1 answers")
    watched.type("1")
    watched.shows("MFA code:")
    assert stub.attending.acquire(timeout=10)
    watched.type("q\x1b")
    watched.until(lambda lines: lines[-1].startswith("q leaves"))

    assert stub.left.wait(10)
    assert not [path for verb, path, _ in stub.requests if verb == "DELETE"]


def test_answered_elsewhere(stub: Stub, watch: Watch) -> None:
    """The line is cleared and the table says why."""
    status(stub, prompts=[PROMPT])
    watched = watch()
    watched.shows("1 answers")
    watched.type("1")
    watched.shows("MFA code:")
    stub.finish("answered")
    lines = watched.shows("answered elsewhere")

    assert not any("MFA code:" in line for line in lines)


# ---- a daemon that goes, comes back, or hangs ----


def test_a_restart_is_said(tmp_path: Path) -> None:
    """Gone, and back with another pid: both are told, and the table goes on."""
    first = Stub(tmp_path / "v")
    first.answers[PAST] = (200, {"events": []})
    env = environment(first, TERM="xterm-256color", LC_ALL="C.UTF-8")
    watched = Watched(start([*CLIENT, "status", "--watch"], env=env))
    try:
        watched.shows("q leaves")
        first.close()
        (first.run / "control.sock").unlink()
        gone = watched.shows("vaultd away")
        first.run.rename(tmp_path / "old")
        (first.home / "state").rmdir()
        second = Stub(tmp_path / "v")
        second.answers[PAST] = (200, {"events": []})
        status(second, pid=43)
        back = watched.shows("vaultd is back, pid 43")
        watched.type("q")
        assert watched.end().status == 0
        second.close()
    finally:
        watched.running.close()
    assert "vaultd is away, and looked for every second: type `vaultd start`" in gone
    assert back[0].startswith("vaultd unlocked · 0.1.0 · pid 43")


def test_too_many_readers_is_no_end(stub: Stub, watch: Watch) -> None:
    """Refused the stream, it asks every third second all the same."""
    stub.answers["GET", "/v1/events"] = error(503, "TooManyReaders", "16 readers: type it again", 75)
    watched = watch()
    watched.shows("InvalidToken")
    status(stub, store="keyring")
    lines = watched.shows("store keyring")

    assert "away" not in lines[0]
    assert len([path for _, path, _ in stub.requests if path == "/v1/events"]) == 1


def test_a_stream_that_was_cut_is_opened_again(stub: Stub, watch: Watch) -> None:
    """A terminal that stood still for long: what was missed is read again, and nobody is said to be away."""
    watched = watch()
    watched.shows("InvalidToken")
    stub.answers[PAST] = (200, {"events": [{**DENIED, "reason": "Locked"}]})
    stub.emit({"event": "stream.cut", "reason": "slow"})
    stub.events.put(None)
    lines = watched.until(lambda lines: any("Locked" in line for line in lines))

    assert not any("InvalidToken" in line for line in lines)
    assert "unlocked" in lines[0]


def test_a_key_works_while_the_daemon_hangs(stub: Stub, watch: Watch) -> None:
    """It is never waited for: its answer does not come, and `q` leaves all the same."""
    waiting, over = threading.Event(), threading.Event()

    def hang(_: object) -> Answer:
        waiting.set()
        over.wait(30)
        return 200, STATUS

    watched = watch()
    watched.shows("q leaves")
    stub.answers["GET", "/v1/status"] = hang
    stub.emit(DENIED)
    assert waiting.wait(20)
    watched.type("q")
    ended = watched.end()
    over.set()

    assert ended.status == 0
    assert watched.restored


def test_without_a_daemon(process: Run, stub: Stub) -> None:
    """69 and one sentence."""
    ended = process("status", "--watch", VAULTD_HOME=str(stub.home / "none"))

    assert (ended.status, ended.out) == (69, "")
    assert ended.err.endswith("type `vaultd start`\n")


# ---- lines ----


def reading(stub: Stub, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*CLIENT, *arguments], env=environment(stub), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip


def line_with(child: subprocess.Popen[str], text: str) -> str:
    assert child.stdout is not None
    return next(line for line in child.stdout if text in line)


def test_a_line_for_each_change(stub: Stub) -> None:
    """In a pipe: the state at first, then what happened, said with what to type; no escape sequence; Ctrl-C ends it
    without a traceback.
    """
    child = reading(stub, "status", "--watch")
    first = line_with(child, "terraform (4711)")
    status(stub, prompts=[PROMPT], grants=[], locked=True)
    stub.emit(DENIED)
    said = [line_with(child, text)[10:] for text in ("denied", "locked", "waits for a code", "grant g1")]
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)

    assert "\x1b" not in first + out
    assert said == [
        "curl (7) was denied web-admin: InvalidToken, 3 times\n",
        "locked: type `vault-client unlock`\n",
        "web-admin waits for a code, asked by zsh (pid 4711, /usr/bin/zsh): type `vault-client mfa identity`\n",
        "the grant g1 of web-admin has ended\n",
    ]
    assert (child.returncode, err) == (130, "")


@pytest.mark.parametrize(
    ("options", "environ"),
    [(["--plain"], {}), ([], {"TERM": "dumb"}), ([], {"VAULTD_PLAIN": "1"}), ([], {"TERM": "no-such-terminal"})],
)
def test_plain_on_a_terminal(
    stub: Stub, terminal: Callable[..., OnTerminal], options: list[str], environ: dict[str, str]
) -> None:
    """No cursor is moved: what a screen reader says is what happened, once."""
    command = [*CLIENT, "status", "--watch", *options]
    env = environment(stub, **{"TERM": "xterm", "NO_COLOR": "1", **environ})
    shown = start(command, env=env)
    seen = shown.until("terraform")
    stub.emit(DENIED)
    seen += shown.until("was denied web-admin")
    shown.type("\x03")
    ended = shown.end()

    assert "\x1b" not in seen + ended.err
    assert ended.status == 130


def test_what_is_between() -> None:
    """A sentence for each change; time that passes is none."""
    locked = {**STATUS, "locked": True, "pid": 43, "trouble": ["the disk is full: free space"]}
    error_row = {**PROFILE, "state": "error", "last_error": {"message": "AWS\x1b said no: mend it"}}
    renewed = {**PROFILE, "expiration": "2099-11-22T21:00:00Z"}

    assert changes.between(STATUS, {**STATUS, "profiles": [{**PROFILE, "seconds_left": 100}]}) == []
    assert changes.between(STATUS, locked) == [
        "vaultd was started again, pid 43", "locked: type `vault-client unlock`", "the disk is full: free space",
    ]  # fmt: skip
    assert changes.between(STATUS, {**STATUS, "profiles": [error_row]}) == [
        "web-admin: error, 55m left", "web-admin: AWS? said no: mend it",
    ]  # fmt: skip
    assert changes.between(STATUS, {**STATUS, "profiles": [renewed]}) == ["web-admin: renewed, 55m left"]
    assert changes.between(STATUS, {**STATUS, "profiles": []}) == ["web-admin: no session any more"]
    assert changes.between({**STATUS, "prompts": [CONSENT]}, STATUS) == ["the question for prod is over"]


def test_a_lock_and_a_restart_are_said_once() -> None:
    """Who has it read out hears no line a profile, and "locked" once, with why. Control: three are named."""
    reason = "locked by `vault-client lock`: type `vault-client unlock`"
    many = [{**PROFILE, "profile": f"p{number}"} for number in range(11)]
    locked = {**STATUS, "locked": True, "locked_reason": reason, "trouble": [reason], "profiles": []}

    assert changes.between({**STATUS, "profiles": many}, locked) == [reason, "11 profiles: no session any more"]
    unlocked = ["unlocked", "11 profiles: fresh"]
    assert changes.between(locked, {**STATUS, "locked_reason": "", "profiles": many}) == unlocked
    assert changes.between({**STATUS, "profiles": many[:3]}, {**STATUS, "profiles": []}) == [
        "p0: no session any more", "p1: no session any more", "p2: no session any more",
    ]  # fmt: skip
    before = Board()
    before.take(STATUS, 0.0)
    before.away = "vaultd is away"
    assert _lines(before, "status", {**STATUS, "pid": 43}) == ["vaultd is back, pid 43"]


def test_a_grant_that_was_made_gave_nothing_yet() -> None:
    """A program that is then denied holds one, too."""
    assert changes.between({**STATUS, "grants": []}, STATUS) == [
        "a grant for web-admin was made: g1, for terraform (4711)"
    ]


def test_no_change_moves_the_cursor() -> None:
    """Whatever the daemon sends; what may be typed is one word."""
    name = "a\x1b[2J\u202eb"
    row = {**PROFILE, "profile": name, "state": name, "last_error": {"message": name}}
    prompts = [{**PROMPT, "id": kind, "kind": kind, "profile": name, "requester": name, "identity": name}
               for kind in ("code", "consent")]  # fmt: skip
    held = {**GRANT_ROW, "id": name, "profile": name, "peer": {"pid": 7, "argv0": name}}
    full = {**STATUS, "pid": name, "trouble": name, "profiles": [row], "prompts": prompts, "grants": [held]}
    said = [*changes.between({}, full), *changes.between(full, {}), changes.denial({**DENIED, "profile": name,
            "reason": name, "peer": {"argv0": name}})]  # fmt: skip

    assert len(said) >= 12
    assert not [each for each in said if not each.isprintable()]
    assert sum("a?[2J?b" in each for each in said) >= 11, "control: the name is there"


# ---- frames ----


@given(
    columns=st.integers(1, 200), height=st.integers(1, 60), profiles=st.integers(0, 40), grants=st.integers(0, 40),
    prompts=st.integers(0, 12), denied=st.integers(0, 30), name=st.text(max_size=40), asked=st.booleans(),
)  # fmt: skip
def test_any_frame_fits(
    *, columns: int, height: int, profiles: int, grants: int, prompts: int, denied: int, name: str, asked: bool
) -> None:
    """As many lines as the terminal has; nothing that a name holds moves the cursor; the way out is always there."""
    board = Board()
    board.take(
        {**STATUS, "profiles": [{**PROFILE, "profile": name}] * profiles, "grants": [GRANT_ROW] * grants,
         "prompts": [{**PROMPT, "profile": name}] * prompts, "trouble": [name]}, 0.0,
    )  # fmt: skip
    board.denials.extend([{**DENIED, "profile": name}] * denied)
    lines_asked = panel.question({**PROMPT, "profile": name}, "", name) if asked else ()
    ink = Ink.__new__(Ink)
    ink.on, ink.width = False, None
    lines, cursor = panel.frame(board, (columns, height), ink, now=1.0, wall=2e9, asked=lines_asked)

    assert len(lines) == height
    assert not any("\x1b" in line or "\n" in line for line in lines)
    assert cursor is None or (cursor[0] < height and cursor[1] < max(columns, 1))
    if columns >= 40:
        assert all(width(line) <= columns for line in lines)
        assert lines[-1].startswith("MFA code:" if asked else "q leaves")


def crowd() -> Board:
    """What a person with 19 profiles has: the ones in error come first in his file."""
    errors = [{**PROFILE, "profile": f"bad{number}", "state": "error", "seconds_left": None} for number in range(8)]
    live = [{**PROFILE, "profile": f"live{number}"} for number in range(10)]
    board = Board()
    board.take({**STATUS, "profiles": [*errors, *live, {**PROFILE, "profile": "asks", "state": "mfa_required"}]}, 0.0)
    board.denials.extend([DENIED] * 7)
    return board


def drawn(board: Board, *size: int) -> list[str]:
    ink = Ink.__new__(Ink)
    ink.on, ink.width = False, None
    return panel.frame(board, (size or (80, 24))[:2], ink, now=1.0, wall=2e9)[0]  # type: ignore[arg-type]


def test_what_lives_is_seen() -> None:
    """At 80×24 with 19 profiles: who waits for a person, then every session that lives, one grant and one denial; what
    is in error is last, and it is told where its reasons are.
    """
    board = crowd()
    lines = drawn(board)
    names = [line.split()[0] for line in lines if line.startswith(("asks", "live", "bad"))]

    assert names[:11] == ["asks", *(f"live{number}" for number in range(10))]
    assert any("terraform (4711)" in line for line in lines)
    assert any("InvalidToken" in line for line in lines)
    assert lines[-1] == "q leaves · Up and Down scroll · 8 in error: `vault-client status` says why"


def test_the_rest_is_scrolled_to() -> None:
    """Down and PageDown to the last row and no further, Up from there at once; each frame says where it is."""
    board = crowd()
    drawn(board)
    shown = board.page
    assert 10 < shown < 19
    assert board.scroll("down")
    heading, first, *_ = [line for line in drawn(board) if line.startswith(("SESSION", "live", "bad", "asks"))]
    assert heading.startswith(f"SESSION 2-{shown + 1}/19 ")
    assert first.startswith("live0 ")
    for _ in range(9):
        board.scroll("pagedown")
        last = drawn(board)
    assert any(line.startswith("bad7 ") for line in last)
    assert board.top == 19 - shown
    board.scroll("up")
    assert not any(line.startswith("bad7 ") for line in drawn(board))
    assert not board.scroll("x")
    assert "scroll" not in drawn(crowd(), 80, 60)[-1]  # control: where all are seen


def test_arrows_scroll(stub: Stub, watch: Watch) -> None:
    """On the terminal, by its own keys."""
    status(stub, profiles=crowd().body["profiles"])
    watched = watch()
    watched.shows("Up and Down scroll")
    watched.type("\x1b[6~\x1b[6~")
    watched.shows("bad7")
    watched.type("\x1b[5~\x1b[5~")
    watched.shows("asks")
    watched.type("q")

    assert watched.end().status == 0


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)), max_size=5), st.integers(-3, 60))
def test_shares(wanted: list[tuple[int, int]], room: int) -> None:
    """Nobody gets more than he wants, all of the room is used where it is wanted, and what must be seen comes first."""
    most = [each for each, _ in wanted]
    first = [min(each) for each in wanted]
    given_ = panel.shares(most, first, room)

    assert all(got <= want for got, want in zip(given_, most, strict=True))
    assert sum(given_) == max(0, min(room, sum(most)))
    assert room < sum(first) or all(got >= least for got, least in zip(given_, first, strict=True))


def test_watch_is_nobodys_start(stub: Stub) -> None:
    """What draws is loaded by --watch alone."""
    assert not loaded(stub, "status") & {
        "vault_client.watch",
        "vault_client.panel",
        "vault_client.screen",
        "vault_client.keyboard",
    }


class Looked:
    """A link, its event stream, `select` and a clock that moves as they wait: when the status was asked for, of which
    each answer takes `took`. The daemon tells of something every hundredth second.
    """

    def __init__(self, took: float) -> None:
        self.now, self.took, self.pending = 100.0, took, False
        self.at: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def select(self, sources: list[Any], *_: object) -> tuple[list[Any], list[Any], list[Any]]:
        left = 0.01 if len(_) < 3 or float(str(_[2])) >= 0.01 else 0.0
        self.now += left
        return (sources if left else []), [], []

    def open(self, *_: object, **__: object) -> Looked:
        return self

    def events(self) -> None:
        """It is a stream."""

    def close(self) -> None:
        """Nothing is held."""

    def event(self) -> dict[str, Any] | None:
        return {"event": "lock"} if len(self.at) < 5 else None

    def call(self, *_: object, **__: object) -> dict[str, Any]:
        assert len(self.at) < 20, "it goes on without a look at the events"
        self.at.append(self.now)
        self.now += self.took
        return {"seq": len(self.at)}


@pytest.mark.parametrize(("took", "apart"), [(0.0, 0.3), (1.0, 2.0)])
def test_a_script_does_not_keep_the_daemon_busy(monkeypatch: pytest.MonkeyPatch, took: float, apart: float) -> None:
    """However much happens, there are 0.3 s between two looks of --json, and as long as the last one took: the loop
    that answers serves SDKs.
    """
    looked: Any = Looked(took)
    monkeypatch.setattr(watching, "time", looked)
    monkeypatch.setattr(watching, "select", looked)
    call: Any = Call(operands=[], tail=[], options={"json": ""}, environ={})
    call._link = looked
    call.out = lambda _: None
    with pytest.raises(Stop, match="vaultd has stopped"):
        watching.watch(call)

    between = [after - before for before, after in itertools.pairwise(looked.at)]
    assert len(between) == 4
    assert all(apart - 0.02 <= each <= apart + 0.05 for each in between)


def test_a_table_does_not_keep_the_daemon_busy(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """As above, where an answer took a second and something happened meanwhile."""
    clock = [100.0]
    monkeypatch.setattr("vault_client.feed.time.monotonic", lambda: clock[0])
    feed = Feed(Call(operands=[], tail=[], options={}, environ=stub.environ).link)
    try:
        feed._soon()
        clock[0] += 0.31
        list(feed.turn([]))
        asked = feed._asked["status"][0]
        feed._soon()
        clock[0] += 1.0
        assert [kind for kind, _ in feed.turn([asked])] == ["status"]
        assert "status" not in feed._asked
        clock[0] += 0.99
        assert list(feed.turn([])) == []
        assert "status" not in feed._asked
        clock[0] += 0.02
        list(feed.turn([]))
        assert "status" in feed._asked
    finally:
        feed.close()


# ---- log -f ----


def test_log_goes_on_after_a_cut(process: Run, stub: Stub) -> None:
    """A reader that the daemon let go reads what it missed, once, and follows again; the daemon's end is 69."""
    event = {"time": "2026-11-22T19:00:00Z", "event": "lock"}
    stub.answers["GET", "/v1/audit"] = (200, {"events": [{**event, "seq": 1}]})
    stub.answers["GET", "/v1/audit?n=100000"] = (200, {"events": [{**event, "seq": n} for n in (1, 2, 3, 4)]})
    for each in ({**event, "seq": 2}, {"event": "stream.cut", "reason": "slow"}, None, {**event, "seq": 5}, None):
        stub.events.put(each)
    ended = process("log", "-f", "--json")

    assert [json.loads(line)["seq"] for line in ended.out.splitlines()] == [1, 2, 3, 4, 5]
    assert (ended.status, ended.err) == (69, "vault-client: vaultd has stopped: type `vaultd start`\n")


def test_log_is_left_by_ctrl_c(stub: Stub) -> None:
    """130, and no traceback."""
    child = reading(stub, "log", "-f")
    stub.emit({**DENIED, "seq": 10})
    line_with(child, "credentials.deny")
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)

    assert (child.returncode, out, err) == (130, "", "")


def test_log_of_a_busy_daemon(process: Run, stub: Stub) -> None:
    """Too many readers: the daemon's sentence, 75."""
    stub.answers["GET", "/v1/audit"] = error(503, "TooManyReaders", "16 readers: type it again", 75)
    ended = process("log")

    assert (ended.status, ended.err) == (75, "vault-client: 16 readers: type it again\n")
