"""The daemon's question, and what a command does about it: asks the person here, posts the answer, repeats the call.

Rules
- While a code is asked here, `GET /v1/prompts/{id}?wait&attend` stays open: the daemon counts this terminal as an
  asker, and learns by its end that it went away. Answered elsewhere: the line is cleared and the command goes on.
- Only Ctrl-C cancels (DELETE, which starts the daemon's cool-down). A terminal that goes away, or Ctrl-D, just leaves.
- A code is six digits, or it is not sent: people paste passphrases into code prompts.
- A program that wants a protected profile is allowed by a yes alone, as terminal.py takes one.
"""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress

from vault_client.errors import NEEDS_PERSON, UNREACHABLE, Refusal, Stop
from vault_client.link import quoted
from vault_client.tables import clean, epoch, typed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vault_client.link import Connection, Link
    from vault_client.terminal import Terminal

_CLEAR = "\r\x1b[K"
_ASK = "MFA code: "
_ALLOW = "allow it until a lock, or for 8 hours? [y/N] "
#: A no counts as long as any cancel: how long that is only the daemon's settings say.
_AFTER_A_NO = "to be asked once more, run the program again after `[prompt] cancel_cooldown` (120 s, unless you set it)"
#: The longest session of a role that is assumed from the MFA session (aws-facts §1.1).
_CHAINED_SECONDS = 3600

#: How often who waits for an answer elsewhere looks whether his caller still does.
_LOOK = 1.0

#: Questions one command goes through before it gives up: a daemon that asks for ever must not trap anybody.
ROUNDS = 10


class Cancelled(Stop):
    """Ctrl-C at the question for a code."""


def six_digits(typed: str) -> str | None:
    """The code without its spaces, or None for what is no code; ASCII digits only."""
    code = "".join(typed.split())
    return code if len(code) == 6 and code.isascii() and code.isdigit() else None


def settled(
    link: Link, method: str, path: str, body: dict[str, Any] | None, *, token_code: str | None, carried: bool = True
) -> Any:
    """The answer of a call that may need a code: ask, post the code, repeat (interface.md §6). A `--token-code` travels
    in the body where the call takes one (`carried`), so that the daemon sends it only if it is needed.
    """
    if token_code is not None and carried:
        body = {**(body or {}), "token_code": token_code}
    for _ in range(ROUNDS):
        try:
            return link.call(method, path, body)
        except Refusal as refusal:
            if refusal.prompt is None:
                raise
            if token_code is None or consents(refusal.prompt):
                ask(link, refusal.prompt, body)
            elif carried:
                leave(link, refusal.prompt)
                raise Stop(refusal.message, 1) from None
            else:
                carried = True  # one code is sent once
                post(link, refusal.prompt, token_code)
    raise Stop(f"{ROUNDS} questions were answered and another is open: look at `vault-client status`")


def consents(prompt: dict[str, Any]) -> bool:
    """A question of yes or no; else it takes a code."""
    return prompt.get("kind") == "consent"


def post(link: Link, prompt: dict[str, Any], token_code: str) -> bool:
    """Answer a question with the code of --token-code; a wrong one is exit 1 (interface.md §3). As `ask`, False is of a
    question that is over, nobody says how.
    """
    try:
        link.call("POST", f"/v1/prompts/{prompt['id']}", {"token_code": token_code})
    except Refusal as refusal:
        if refusal.status != 404:  # 404: answered elsewhere meanwhile, so the call will do
            leave(link, prompt)
            raise Stop(refusal.message, 1 if refusal.status < 500 else refusal.exit_status) from None
        return False
    return True


def ask(link: Link, prompt: dict[str, Any], body: dict[str, Any] | None = None) -> bool:
    """True when the question is answered, here or elsewhere; raises Stop when it is not. False: it is over, and only
    the call that is repeated tells how. `body`: of the call that the question stands before.
    """
    from vault_client.terminal import Terminal  # when there is a question: most calls have none

    when = "to answer it" if consents(prompt) else "when the code is at hand"
    terminal = Terminal.find(f"{_mfa(prompt)} {when}")
    if terminal is None:
        if not consents(prompt):  # a wish stays open, to be answered from another terminal
            leave(link, prompt)
        raise _nobody(link, prompt, body)
    with terminal:
        return _converse(link, terminal, prompt)


def leave(link: Link, prompt: dict[str, Any]) -> None:
    """Nobody here goes on with the question that our call opened: left open, the next command, which may want another
    code, would ask for it. It closes unless others attend or wait for it; one that we found open is not ours to close.
    """
    if prompt.get("opened"):
        with suppress(Stop):
            link.call("DELETE", f"/v1/prompts/{prompt['id']}?leave")


def _mfa(prompt: dict[str, Any]) -> str:
    return f"`vault-client mfa {typed(prompt.get('identity'))}`"


def _nobody(link: Link, prompt: dict[str, Any], body: dict[str, Any] | None) -> Stop:
    about = clean(prompt.get("profile") or prompt.get("identity"))
    if consents(prompt):
        return Stop(
            f"{about} is protected and there is no terminal to ask on whether {clean(prompt.get('requester'))} may use "
            f"it: type {_mfa(prompt)} in one, then this again",
            NEEDS_PERSON,
        )
    needs = f"{about} needs a code of {clean(prompt.get('mfa_serial'))}"
    if _direct(link, prompt, body):
        return Stop(
            f"{needs} with this very call and there is no terminal to ask on: give --token-code CODE to this command",
            NEEDS_PERSON,
        )
    return Stop(
        f"{needs} and there is no terminal to ask on: type {_mfa(prompt)} in one, or give --token-code CODE",
        NEEDS_PERSON,
    )


def _direct(link: Link, prompt: dict[str, Any], body: dict[str, Any] | None) -> bool:
    """Is the code for AssumeRole itself, because of a session above an hour (architecture.md §5)? Then `mfa`, which
    opens the identity's MFA session, is no help.
    """
    if int((body or {}).get("duration_seconds") or 0) > _CHAINED_SECONDS:
        return True
    if not prompt.get("profile"):
        return False
    try:
        plan = link.call("GET", f"/v1/profiles/{quoted(str(prompt['profile']))}/plan")
    except Stop:
        return False
    return any(step.get("kind") == "assume_role_with_code" for step in plan.get("steps") or ())


def _cancelled(link: Link, terminal: Terminal, prompt: dict[str, Any]) -> Stop:
    with suppress(Stop):  # it is over already, or the daemon is, or the terminal: nothing is left to cancel
        terminal.write("\n")
        link.call("DELETE", f"/v1/prompts/{prompt['id']}")
    if consents(prompt):
        return denied(prompt)
    # a cool-down of less than 30 s refuses that too (interface.md §3)
    return Cancelled(f"cancelled: wait 30 s, then type {_mfa(prompt)}")


def headline(prompt: dict[str, Any]) -> str:
    """Who asks and for what, profile first (security.md §4, anti-phishing text); at most 200 characters."""
    parts = ["vaultd", clean(prompt.get("profile") or prompt.get("identity"))]
    if prompt.get("requester"):
        parts.append(f"requested by {clean(prompt['requester'])}")
    text = " · ".join(parts)
    ending = " · wants this profile" if consents(prompt) else f" · code for {clean(prompt.get('mfa_serial'))}"
    room = 200 - len(ending)
    return (text if len(text) <= room else text[: room - 1] + "…") + ending


def _converse(link: Link, terminal: Terminal, prompt: dict[str, Any]) -> bool:
    watch = link.open("GET", f"/v1/prompts/{prompt['id']}?wait&attend")
    try:
        terminal.write(headline(prompt) + "\n" + (_ALLOW if consents(prompt) else _ASK))
        return _listen(link, terminal, prompt, watch)
    except KeyboardInterrupt:
        # Before `watch` closes: an asker who leaves closes the question without the cool-down that a cancel starts.
        raise _cancelled(link, terminal, prompt) from None
    finally:
        watch.close()


def _listen(link: Link, terminal: Terminal, prompt: dict[str, Any], watch: Connection) -> bool:
    sources: list[Terminal | Connection] = [terminal, watch]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if watch in ready:
            terminal.write(_CLEAR)
            return _over(watch, prompt, terminal)
        ended = (_decided if consents(prompt) else _typed)(link, terminal, prompt)
        if ended is not None:
            return ended


def _over(watch: Connection, prompt: dict[str, Any], terminal: Terminal) -> bool:
    try:
        outcome = _outcome(watch.reply())
    except Refusal as refusal:
        if refusal.status != 404:
            raise
        return False  # over before we came
    if outcome == "answered":
        terminal.write("answered elsewhere\n")
        return True
    raise over(prompt, outcome)


def _outcome(ended: dict[str, Any]) -> object:
    """Of all that cancels a question a lock and a stop are told: their next step is another one."""
    return ended.get("reason") or ended.get("outcome")


def over(prompt: dict[str, Any], outcome: object) -> Stop:
    """Why a question ended without an answer."""
    identity = clean(prompt.get("identity"))
    about = clean(prompt.get("profile")) if consents(prompt) else identity
    if outcome == "locked":
        return Stop(f"vaultd was locked, so the question for {about} is over: type `vault-client unlock`")
    if outcome == "stopped":
        return Stop(f"vaultd was stopped, so the question for {about} is over: type `vaultd start`", UNREACHABLE)
    if consents(prompt):
        if outcome == "cancelled":
            return Stop(f"the use of {about} was denied elsewhere: {_AFTER_A_NO}")
        # By then no question is open: `mfa` alone would find none.
        return Stop(
            f"nobody allowed {clean(prompt.get('requester'))} the use of {about} in time: run it again, and type "
            f"{_mfa(prompt)} meanwhile",
            NEEDS_PERSON,
        )
    if outcome == "cancelled":
        return Stop(f"the question for {identity} was cancelled elsewhere: wait 30 s, then type {_mfa(prompt)}")
    return Stop(f"nobody answered the question for {identity} in time: type {_mfa(prompt)}", NEEDS_PERSON)


def _typed(link: Link, terminal: Terminal, prompt: dict[str, Any]) -> bool | None:
    """True when the line that was typed ended the question, False when something else had, None when it goes on."""
    code = six_digits(terminal.line())
    terminal.write("\n")
    if code is None:
        terminal.write(f"a code is six digits, so nothing was sent: type the one that the device shows\n{_ASK}")
        return None
    try:
        link.call("POST", f"/v1/prompts/{prompt['id']}", {"token_code": code})
    except Refusal as refusal:
        if refusal.status == 404:
            return False
        terminal.write(once_more(refusal) + "\n" + _ASK)
        return None
    return True


def _decided(link: Link, terminal: Terminal, prompt: dict[str, Any]) -> bool:
    """A line is an answer, whatever it says; raises Stop for a no."""
    allow = terminal.understood(terminal.line())
    try:
        link.call("POST", f"/v1/prompts/{prompt['id']}", {"allow": allow})
    except Refusal as refusal:
        if refusal.status != 404:
            raise
        return False
    if not allow:
        raise denied(prompt)
    return True


def denied(prompt: dict[str, Any]) -> Stop:
    """A person's no."""
    about, who = clean(prompt.get("profile")), clean(prompt.get("requester"))
    return Stop(f"{about} was not given to {who}: {_AFTER_A_NO}")


def once_more(refusal: Refusal) -> str:
    """The sentence before the next try; raises what no further code can mend."""
    if refusal.prompt is not None:
        left = refusal.prompt.get("attempts_left")
        return f"AWS refused that code as invalid ({left} left): type the next one that the device shows"
    if refusal.code == "CodeSpent":
        wait = refusal.body.get("retry_after_seconds")
        return f"that code was used before: wait {wait} seconds and type the next one"
    if refusal.code == "InvalidCode":
        return "a code is six digits, so nothing was sent: type the one that the device shows"
    raise refusal


def wait_elsewhere(link: Link, prompt: dict[str, Any]) -> None:
    """Wait until somebody answered; Stop 3 when nobody did before the question expired. Counted as an asker: when the
    SDK that called us gives up, the question goes too, unless others are at it.
    """
    caller = os.getppid()
    expires = epoch(prompt.get("expires_at"))
    left = 120.0 if expires is None else max(1.0, expires - time.time() + 5.0)
    watch = link.open("GET", f"/v1/prompts/{prompt['id']}?wait&attend", seconds=_LOOK)
    try:
        _until_over(watch, caller, left)
        outcome = _outcome(watch.reply())
    except Refusal as refusal:
        if refusal.status != 404:
            raise
        outcome = "answered"
    finally:
        watch.close()
    if outcome != "answered":
        why = over(prompt, outcome)
        raise Stop(why.message, max(why.exit_status, NEEDS_PERSON))


def _until_over(watch: Connection, caller: int, seconds: float) -> None:
    """Go gives a credential_process 60 s, kills the `sh` between us and then waits for whoever still holds its pipe."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not select.select([watch], [], [], _LOOK)[0]:
        if os.getppid() != caller:
            raise Stop(
                "the program that wanted the keys has given up: run it again when the code is at hand", NEEDS_PERSON
            )
