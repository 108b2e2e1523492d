"""Codes on a real terminal: answered here, elsewhere, wrongly, cancelled, left (architecture.md §6.3, §6.4)."""

from __future__ import annotations

import signal
import sys
import termios
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.client.conftest import Run
from tests.client.stub import PROMPT, SERIAL, TOKEN, Answer, Stub, error, mfa_required
from tests.client.terminal import OnTerminal
from vault_client import ask
from vault_client.ask import headline, six_digits
from vault_client.errors import Stop
from vault_client.link import Link
from vault_client.places import Places

Start = Callable[..., OnTerminal]
ASK = "MFA code: "
HEAD = f"vaultd · web-admin · requested by zsh (pid 4711, /usr/bin/zsh) · code for {SERIAL}"


def needs_code(stub: Stub) -> None:
    """The first POST needs a code, the next one is granted."""
    stub.answers["POST", "/v1/grants"] = [mfa_required(), (201, stub.grant())]


def test_answered_here(stub: Stub, terminal: Start) -> None:
    """The question says who asks and for what; the code is posted once, then the call is repeated."""
    needs_code(stub)
    shell = terminal("use", "web-admin", "--shell", "sh", piped=True)
    seen = shell.until(ASK)
    stub.attending.acquire(timeout=10)
    shell.type("123456\n")
    ended = shell.end()

    assert seen.startswith(HEAD)
    assert ended.status == 0
    assert TOKEN in ended.out
    assert stub.asked("POST", "/v1/prompts/q1") == [{"token_code": "123456"}]
    assert len(stub.asked("POST", "/v1/grants")) == 2
    assert stub.asked("GET", "/v1/prompts/q1?wait&attend") == [None]


def test_the_code_is_not_on_the_screen(stub: Stub, terminal: Start) -> None:
    """No echo, and what was typed before the question is no answer to it; control: that was echoed."""
    typed = threading.Event()

    def slow(_: object) -> Answer:
        assert typed.wait(10)
        stub.answers["POST", "/v1/grants"] = (201, stub.grant())
        return mfa_required()

    stub.answers["POST", "/v1/grants"] = slow
    shell = terminal("use", "web-admin", "--shell", "sh", piped=True)
    shell.type("999999\n")
    shell.until("999999\r\n")
    typed.set()
    seen = shell.until(ASK)
    shell.type("654321\n")
    ended = shell.end()

    assert ended.status == 0
    assert "654321" not in seen + ended.err
    assert stub.asked("POST", "/v1/prompts/q1") == [{"token_code": "654321"}]


def test_spaces_are_no_part_of_a_code(stub: Stub, terminal: Start) -> None:
    """` 123 456 ` is 123456 (scenarios A12)."""
    needs_code(stub)
    shell = terminal("use", "web-admin", "--shell", "sh", piped=True)
    shell.until(ASK)
    shell.type(" 123 456 \n")

    assert shell.end().status == 0
    assert stub.asked("POST", "/v1/prompts/q1") == [{"token_code": "123456"}]


@pytest.mark.parametrize("typed", ["12345", "1234567", "12a456", "１２３４５６", "my long passphrase", ""])
def test_wrong_shape_is_not_sent(stub: Stub, terminal: Start, typed: str) -> None:
    """What is no code is refused here, and asked again (security.md §4: passphrases land in code prompts)."""
    needs_code(stub)
    shell = terminal("use", "web-admin", "--shell", "sh", piped=True)
    shell.until(ASK)
    shell.type(typed + "\n")
    again = shell.until(ASK)
    shell.type("123456\n")

    assert shell.end().status == 0
    assert "a code is six digits, so nothing was sent: type the one that the device shows" in again
    assert stub.asked("POST", "/v1/prompts/q1") == [{"token_code": "123456"}]


def test_answered_elsewhere_clears_the_line(stub: Stub, terminal: Start) -> None:
    """First answer wins: the line is cleared, and the command goes on by itself."""
    needs_code(stub)
    shell = terminal("use", "web-admin", "--shell", "sh", piped=True)
    shell.until(ASK)
    stub.attending.acquire(timeout=10)
    stub.finish("answered")
    cleared = shell.until("answered elsewhere")
    ended = shell.end()

    assert cleared == "\r\x1b[Kanswered elsewhere"
    assert ended.status == 0
    assert TOKEN in ended.out
    assert stub.asked("POST", "/v1/prompts/q1") == []


def test_answered_while_typing_posts_nothing(stub: Stub, terminal: Start) -> None:
    """Half a code on the line when somebody else answers goes nowhere."""
    needs_code(stub)
    shell = terminal("use", "web-admin", "--shell", "sh", piped=True)
    shell.until(ASK)
    shell.type("123")
    stub.attending.acquire(timeout=10)
    stub.finish("answered")

    assert shell.end().status == 0
    assert stub.asked("POST", "/v1/prompts/q1") == []


def test_gone_before_we_attend(stub: Stub, terminal: Start) -> None:
    """A question that was answered between the 409 and our attendance (404) is no error: the call is repeated."""
    needs_code(stub)
    gone = error(404, "UnknownPrompt", "no such question: type `vault-client mfa`", 1)
    stub.answers["GET", "/v1/prompts/q1?wait&attend"] = gone

    ended = terminal("use", "web-admin", "--shell", "sh", piped=True).end()

    assert ended.status == 0
    assert "answered elsewhere" not in ended.err, "nobody said so"


def test_answered_elsewhere_while_posting(stub: Stub, terminal: Start) -> None:
    """404 to our own answer: somebody was faster, and the call is repeated."""
    needs_code(stub)
    stub.answers["POST", "/v1/prompts/q1"] = error(404, "UnknownPrompt", "no such question", 1)
    shell = terminal("use", "web-admin", "--shell", "sh", piped=True)
    shell.until(ASK)
    shell.type("123456\n")

    assert shell.end().status == 0


def test_wrong_code_is_asked_again(stub: Stub, terminal: Start) -> None:
    """AWS refused it: says invalid, how many tries are left, and asks again (scenarios A5)."""
    needs_code(stub)
    stub.answers["POST", "/v1/prompts/q1"] = [mfa_required(attempts_left=2), (200, {})]
    shell = terminal("use", "web-admin", "--shell", "sh", piped=True)
    shell.until(ASK)
    shell.type("111111\n")
    again = shell.until(ASK)
    shell.type("222222\n")

    assert shell.end().status == 0
    assert "AWS refused that code as invalid (2 left): type the next one that the device shows" in again
    assert stub.asked("POST", "/v1/prompts/q1") == [{"token_code": "111111"}, {"token_code": "222222"}]


def test_spent_code_says_how_long_to_wait(stub: Stub, terminal: Start) -> None:
    """A code that was used is refused with the seconds until the next (scenarios A7)."""
    needs_code(stub)
    spent = error(409, "CodeSpent", "that code was used: wait 17 s", 1, retry_after_seconds=17)
    stub.answers["POST", "/v1/prompts/q1"] = [spent, (200, {})]
    shell = terminal("use", "web-admin", "--shell", "sh", piped=True)
    shell.until(ASK)
    shell.type("111111\n")
    again = shell.until(ASK)
    shell.type("222222\n")

    assert shell.end().status == 0
    assert "that code was used before: wait 17 seconds and type the next one" in again


def test_too_many_attempts_end_the_command(stub: Stub, terminal: Start) -> None:
    """A cool-down is final here: exit 1 with the daemon's sentence."""
    needs_code(stub)
    said = "three codes were refused: wait 90 s, then type `vault-client mfa identity`"
    stub.answers["POST", "/v1/prompts/q1"] = error(403, "TooManyAttempts", said, 1, retry_after_seconds=90)
    shell = terminal("use", "web-admin", "--shell", "sh", piped=True)
    shell.until(ASK)
    shell.type("111111\n")
    ended = shell.end()

    assert ended.status == 1
    assert f"vault-client: {said}\r\n" in ended.err
    assert ended.out == "false;\n"


def test_sts_unreachable_ends_the_command(stub: Stub, terminal: Start) -> None:
    """503 after a code: temporary, exit 75."""
    needs_code(stub)
    stub.answers["POST", "/v1/prompts/q1"] = error(503, "StsUnavailable", "AWS does not answer: try again", 75)
    shell = terminal("use", "web-admin", "--shell", "sh", piped=True)
    shell.until(ASK)
    shell.type("111111\n")
    ended = shell.end()

    assert ended.status == 75
    assert "vault-client: AWS does not answer: try again\r\n" in ended.err


def test_ctrl_c_cancels(stub: Stub, terminal: Start) -> None:
    """The one explicit cancel: DELETE, exit 1, and the terminal's echo is back."""
    needs_code(stub)
    shell = terminal("use", "web-admin", "--shell", "sh", piped=True)
    shell.until(ASK)
    stub.attending.acquire(timeout=10)
    attended: list[bool] = []

    def cancel(_: object) -> Answer:
        attended.append(not stub.left.is_set())
        return 200, {}

    stub.answers["DELETE", "/v1/prompts/q1"] = cancel
    shell.type("\x03")
    ended = shell.end()

    assert ended.status == 1
    assert attended == [True]  # an asker who left first would have closed the question without a cool-down
    assert "vault-client: cancelled: wait 30 s, then type `vault-client mfa identity`\r\n" in ended.err
    assert len(stub.asked("DELETE", "/v1/prompts/q1")) == 1


def test_ctrl_d_leaves_without_cancelling(stub: Stub, terminal: Start) -> None:
    """End of input is not a cancel: no DELETE, and the attendance ends."""
    needs_code(stub)
    shell = terminal("use", "web-admin", "--shell", "sh", piped=True)
    shell.until(ASK)
    stub.attending.acquire(timeout=10)
    shell.type("\x04")
    ended = shell.end()

    assert ended.status == 3
    assert "the question was left unanswered: type `vault-client mfa identity` when the code is at hand" in ended.err
    assert stub.asked("DELETE", "/v1/prompts/q1") == []
    assert stub.left.wait(10)


def test_a_closed_terminal_leaves_without_cancelling(stub: Stub, terminal: Start) -> None:
    """The window was closed: the connection ends, which tells the daemon, and nothing is cancelled."""
    needs_code(stub)
    shell = terminal("use", "web-admin", "--shell", "sh", piped=True)
    shell.until(ASK)
    stub.attending.acquire(timeout=10)
    shell.hang_up()

    assert stub.left.wait(10)
    assert shell.end().status != 0
    assert stub.asked("DELETE", "/v1/prompts/q1") == []


def test_sigterm_gives_the_echo_back(stub: Stub, terminal: Start) -> None:
    """A killed client leaves no silent terminal behind, and cancels nothing."""
    needs_code(stub)
    shell = terminal("use", "web-admin", "--shell", "sh", piped=True)
    shell.until(ASK)
    assert not termios.tcgetattr(shell.master)[3] & termios.ECHO  # control: it was off
    stub.attending.acquire(timeout=10)
    shell.child.send_signal(signal.SIGTERM)

    assert shell.child.wait(10) == 143
    assert termios.tcgetattr(shell.master)[3] & termios.ECHO
    assert stub.asked("DELETE", "/v1/prompts/q1") == []


@pytest.mark.parametrize(
    ("outcome", "status", "said"),
    [
        (
            "cancelled",
            1,
            "the question for identity was cancelled elsewhere: wait 30 s, then type `vault-client mfa identity`",
        ),
        ("expired", 3, "nobody answered the question for identity in time: type `vault-client mfa identity`"),
        ("locked", 1, "vaultd was locked, so the question for identity is over: type `vault-client unlock`"),
        ("stopped", 69, "vaultd was stopped, so the question for identity is over: type `vaultd start`"),
    ],
)
def test_ended_elsewhere(stub: Stub, terminal: Start, outcome: str, status: int, said: str) -> None:
    """A question that another screen cancelled, that timed out or that a lock or a stop ended, ends the command."""
    needs_code(stub)
    shell = terminal("use", "web-admin", "--shell", "sh", piped=True)
    shell.until(ASK)
    stub.attending.acquire(timeout=10)
    stub.finish(outcome)
    ended = shell.end()

    assert ended.status == status
    assert f"vault-client: {said}\r\n" in ended.err


def test_the_terminal_may_not_be_stdin(stub: Stub, terminal: Start) -> None:
    """The controlling terminal is asked even when stdin is a pipe."""
    needs_code(stub)
    line = 'exec </dev/null; exec "$0" -m vault_client use web-admin --shell sh'
    shell = terminal(piped=True, command=["/bin/sh", "-c", line, sys.executable])
    shell.until(ASK)
    shell.type("123456\n")

    assert shell.end().status == 0


def test_no_terminal_is_exit_3(stub: Stub, process: Run) -> None:
    """Without a terminal and without --token-code: exit 3, and what to run."""
    needs_code(stub)
    ended = process("use", "web-admin")

    assert (ended.status, ended.out) == (3, "false;\n")
    assert ended.err == (
        f"vault-client: web-admin needs a code of {SERIAL} and there is no terminal to ask on: type `vault-client mfa "
        f"identity` in one, or give --token-code CODE\n"
    )


@pytest.mark.parametrize(
    ("arguments", "kinds", "direct"),
    [
        (["use", "web-admin", "--duration", "2h"], [], True),
        (["use", "web-admin", "--duration", "1h"], ["mfa_session", "assume_role"], False),
        (["use", "web-admin"], ["assume_role_with_code"], True),
        (["export", "web-admin"], ["assume_role_with_code"], True),
    ],
)
def test_a_code_for_the_call_itself_is_not_asked_of_mfa(
    stub: Stub, process: Run, arguments: list[str], kinds: list[str], direct: bool
) -> None:
    """A session above an hour takes its code with AssumeRole: `vault-client mfa` opens another one, and says that it
    lives already. Control: where the MFA session is what is needed, that is the way.
    """
    stub.answers["POST", "/v1/grants"] = stub.answers["GET", "/v1/profiles/web-admin/credentials"] = mfa_required()
    stub.answers["GET", "/v1/profiles/web-admin/plan"] = (200, {"steps": [{"kind": kind} for kind in kinds]})
    ended = process(*arguments)

    assert ended.status == 3
    assert ("give --token-code CODE to this command" in ended.err) is direct
    assert ("`vault-client mfa identity`" in ended.err) is not direct


@pytest.mark.parametrize(
    ("opened", "arguments"),
    [
        (True, ["use", "web-admin"]),
        (False, ["use", "web-admin"]),
        (True, ["export", "web-admin", "--token-code", "123456"]),
        (False, ["export", "web-admin", "--token-code", "123456"]),
        (True, ["use", "web-admin", "--token-code", "123456"]),
        (True, ["mfa"]),
        (False, ["mfa"]),
    ],
)
def test_who_cannot_ask_leaves_the_question_that_his_call_opened(
    stub: Stub, process: Run, opened: bool, arguments: list[str]
) -> None:
    """Left open, it would be asked of the next command, which may want another code. One that was open before is
    another's.
    """
    needed = mfa_required(opened=opened)
    stub.answers["POST", "/v1/grants"] = stub.answers["GET", "/v1/profiles/web-admin/credentials"] = needed
    stub.answers["POST", "/v1/prompts"] = (201, {**PROMPT, "opened": opened})
    stub.answers["POST", "/v1/prompts/q1"] = error(409, "MfaRequired", "AWS refused the code: type the next", 3)
    stub.answers["DELETE", "/v1/prompts/q1?leave"] = (200, {})
    ended = process(*arguments)

    assert ended.status == (1 if "--token-code" in arguments else 3)
    assert len(stub.asked("DELETE", "/v1/prompts/q1?leave")) == int(opened)
    assert stub.asked("DELETE", "/v1/prompts/q1") == []


def test_token_code_travels_with_the_call(stub: Stub, process: Run) -> None:
    """`--token-code` goes in the body, so that the daemon sends it only when it is needed."""
    ended = process("use", "web-admin", "--token-code", "123456")

    assert ended.status == 0
    assert stub.asked("POST", "/v1/grants") == [{"profile": "web-admin", "kind": "shell", "token_code": "123456"}]


def test_token_code_from_stdin(stub: Stub, process: Run) -> None:
    """`--token-code -` is one line of stdin."""
    ended = process("use", "web-admin", "--token-code", "-", stdin="123 456\nnot this\n")

    assert ended.status == 0
    assert (stub.asked("POST", "/v1/grants")[0] or {})["token_code"] == "123456"


def test_wrong_token_code_is_exit_1(stub: Stub, process: Run) -> None:
    """AWS refused the code that came along: 1, not 3, and it is not sent again."""
    stub.answers["POST", "/v1/grants"] = mfa_required(attempts_left=2)
    ended = process("use", "web-admin", "--token-code", "123456")

    assert ended.status == 1
    assert ended.err == "vault-client: web-admin needs a code: type `vault-client mfa identity`\n"
    assert stub.asked("POST", "/v1/prompts/q1") == []
    assert len(stub.asked("POST", "/v1/grants")) == 1


def test_token_code_of_the_wrong_shape_is_refused_here(stub: Stub, process: Run) -> None:
    """Refused locally: nothing was sent, and the value is not repeated."""
    ended = process("use", "web-admin", "--token-code", "hunter2")

    assert ended.status == 1
    assert ended.err == (
        "vault-client: --token-code is not six digits, so nothing was sent: give the code that the device shows\n"
    )
    assert stub.requests == []


def test_token_code_for_a_get_answers_the_question(stub: Stub, process: Run) -> None:
    """`export` has no body: the code is posted to the question, once."""
    path = "/v1/profiles/web-admin/credentials"
    stub.answers["GET", path] = [mfa_required(), stub.answers["GET", path]]
    ended = process("export", "web-admin", "--token-code", "123456")

    assert ended.status == 0
    assert stub.asked("POST", "/v1/prompts/q1") == [{"token_code": "123456"}]


def test_wrong_token_code_for_a_get_is_exit_1(stub: Stub, process: Run) -> None:
    """The code was refused: exit 1 with the daemon's sentence, no second try."""
    stub.answers["GET", "/v1/profiles/web-admin/credentials"] = mfa_required()
    stub.answers["POST", "/v1/prompts/q1"] = error(409, "MfaRequired", "AWS refused the code: type the next", 3,
                                                   prompt={**PROMPT, "attempts_left": 2})  # fmt: skip
    ended = process("export", "web-admin", "--token-code", "123456")

    assert (ended.status, ended.out) == (1, "")
    assert ended.err == "vault-client: AWS refused the code: type the next\n"
    assert len(stub.asked("POST", "/v1/prompts/q1")) == 1


def test_a_daemon_that_asks_for_ever_does_not_trap(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question that is answered and open again and again ends after ten rounds."""
    stub.answers["GET", "/v1/profiles/web-admin/credentials"] = mfa_required()
    link = Link(Places(stub.environ))
    asked: list[str] = []
    monkeypatch.setattr(ask, "ask", lambda _link, prompt, _body: asked.append(prompt["id"]))
    with pytest.raises(Stop, match="10 questions were answered and another is open"):
        ask.settled(link, "GET", "/v1/profiles/web-admin/credentials", None, token_code=None)

    assert len(asked) == ask.ROUNDS


def test_six_digits() -> None:
    """ASCII digits only, spaces aside."""
    assert six_digits(" 123 456\t") == "123456"
    assert [six_digits(bad) for bad in ("12345", "1234567", "12a456", "１２３４５６", "٠١٢٣٤٥", "")] == [None] * 6


def test_headline_is_short_and_cannot_move_the_cursor() -> None:
    """At most 200 characters, profile first, the device never cut, no control characters (security.md §4)."""
    evil = {**PROMPT, "requester": "x\x1b[2J\r\n\u202e" + "y" * 400, "profile": "p\x07"}
    text = headline(evil)

    assert len(text) == 200
    assert text.startswith("vaultd · p? · requested by x?[2J???y")
    assert text.endswith(f"… · code for {SERIAL}")
    assert not [char for char in text if ord(char) < 32 or ord(char) == 0x202E]


# ---- a program's wish for a protected profile ----

WISH = {"kind": "consent", "mfa_serial": "", "attempts_left": 1}


def needs_consent(stub: Stub) -> None:
    """`export` needs a person's yes, then gets its keys."""
    keys = {"AccessKeyId": "A", "SecretAccessKey": "S", "Token": "T", "Expiration": "2099-11-22T20:00:00Z"}
    stub.answers["GET", "/v1/profiles/web-admin/credentials"] = [mfa_required(**WISH), (200, keys)]


@pytest.mark.parametrize(("typed", "allow"), [("y", True), (" YES ", True), ("", False), ("n", False), ("yep", False)])
def test_only_an_explicit_yes_allows(stub: Stub, terminal: Start, typed: str, allow: bool) -> None:
    """Who wants what is said before; an empty line is a no, which is told to the daemon."""
    needs_consent(stub)
    shell = terminal("export", "web-admin", piped=True)
    seen = shell.until("[y/N] ")
    stub.attending.acquire(timeout=10)
    shell.type(f"{typed}\n")
    ended = shell.end()

    assert "web-admin · requested by zsh (pid 4711, /usr/bin/zsh) · wants this profile" in seen
    assert stub.asked("POST", "/v1/prompts/q1") == [{"allow": allow}]
    assert (ended.status, "AWS_SESSION_TOKEN" in ended.out) == ((0, True) if allow else (1, False))


def test_a_code_is_no_consent(stub: Stub, process: Run) -> None:
    """`--token-code` answers no wish, and without a terminal it stays open for another one: exit 3."""
    needs_consent(stub)
    ended = process("export", "web-admin", "--token-code", "123456")

    assert (ended.status, ended.out) == (3, "")
    assert "type `vault-client mfa identity` in one, then this again" in ended.err
    assert stub.asked("POST", "/v1/prompts/q1") == []
    assert stub.asked("DELETE", "/v1/prompts/q1?leave") == []


#: What a no costs is a setting of the daemon's: its default is named as such.
LATER = "to be asked once more, run the program again after `[prompt] cancel_cooldown` (120 s, unless you set it)"

MEANWHILE = "run it again, and type `vault-client mfa identity` meanwhile"


def test_a_no_says_when_it_is_asked_again(stub: Stub, terminal: Start) -> None:
    """Which program, and until when the no holds."""
    needs_consent(stub)
    shell = terminal("export", "web-admin", piped=True)
    shell.until("[y/N] ")
    stub.attending.acquire(timeout=10)
    shell.type("n\n")

    assert f"web-admin was not given to zsh (pid 4711, /usr/bin/zsh): {LATER}" in shell.end().err


def test_mfa_names_the_program_that_it_let_in(stub: Stub, terminal: Start) -> None:
    """The oldest wish may be another program's than the one that somebody came for."""
    stub.answers["POST", "/v1/prompts"] = (201, {**PROMPT, **WISH})
    shell = terminal("mfa")
    shell.until("[y/N] ")
    stub.attending.acquire(timeout=10)
    shell.type("y\n")
    ended = shell.end()

    assert ended.status == 0
    said = "web-admin is allowed to zsh (pid 4711, /usr/bin/zsh): run it again, if it has given up"
    assert said in ended.err


GONE = error(404, "UnknownPrompt", "no such question: type `vault-client mfa`", 1)


@pytest.mark.parametrize("wish", [{}, WISH])
@pytest.mark.parametrize("late", ["before it was shown", "when it was answered", "with a code"])
def test_mfa_claims_nothing_of_a_question_that_is_gone(
    stub: Stub, terminal: Start, wish: dict[str, Any], late: str
) -> None:
    """A lock may have ended it: the daemon is asked again, and what it says then is said. Control: the tests above."""
    said = "vaultd is locked: type `vault-client unlock`"
    stub.answers["POST", "/v1/prompts"] = [(201, {**PROMPT, **wish}), error(403, "Locked", said, 1)]
    stub.answers["POST", "/v1/prompts/q1"] = GONE
    if late == "before it was shown":
        stub.answers["GET", "/v1/prompts/q1?wait&attend"] = GONE
    shell = terminal("mfa", *(["--token-code", "123456"] if late == "with a code" else []))
    if late == "when it was answered":
        shell.until("[y/N] " if wish else ASK)
        shell.type("y\n" if wish else "123456\n")
    ended = shell.end()

    assert ended.status == 1
    assert ended.err.endswith(f"vault-client: {said}\r\n")
    assert "is open" not in ended.err
    assert "is allowed" not in ended.err


@pytest.mark.parametrize(("outcome", "said", "status"), [
    ("answered", "", 0),
    ("cancelled", f"the use of web-admin was denied elsewhere: {LATER}", 1),
    ("expired", f"nobody allowed zsh (pid 4711, /usr/bin/zsh) the use of web-admin in time: {MEANWHILE}", 3),
])  # fmt: skip
def test_a_wish_that_is_over_elsewhere(stub: Stub, terminal: Start, outcome: str, said: str, status: int) -> None:
    """The line is cleared, and the command goes on or says why not."""
    needs_consent(stub)
    shell = terminal("export", "web-admin", piped=True)
    shell.until("[y/N] ")
    stub.attending.acquire(timeout=10)
    stub.finish(outcome)
    ended = shell.end()

    assert ended.status == status
    assert said in ended.err
