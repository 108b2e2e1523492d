"""`mfa`, `refresh`, `clear`, `lock`, `unlock` and `revoke`: commands that change what the daemon holds."""

# pathlib may not load at start-up (architecture.md §2), so os.path it is.
# ruff: noqa: PTH110
from __future__ import annotations

import os
import sys
import time
from contextlib import suppress

from vault_client.ask import ROUNDS, ask, consents, post, settled
from vault_client.cli import Call
from vault_client.errors import NEEDS_PERSON, USAGE, Refusal, Stop
from vault_client.link import LOOK, quoted
from vault_client.tables import clean, local

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: In characters; the daemon takes 64 KiB of JSON.
_LINE_LIMIT = 10_000
_NO_STORE = "no store was made"


def mfa(call: Call) -> int:
    """Answer the oldest open question (a code, or a program's wish for a protected profile), or open an MFA session."""
    token_code = call.token_code
    body: dict[str, Any] = {"identity": call.operands[0]} if call.operands else {}
    if token_code is not None:
        body["token_code"] = token_code
    for _ in range(ROUNDS):  # what is over before it is answered here may have ended by a lock as well
        prompt = _opened(call, body)
        if "id" not in prompt:
            return _lives(call, prompt)
        if ask(call.link, prompt) if token_code is None else post(call.link, prompt, token_code):
            return _answered(call, prompt)
    raise Stop("questions end before they can be answered here: look at `vault-client status`")


def _lives(call: Call, prompt: dict[str, Any]) -> int:
    until = f" until {local(prompt['expiration'])}" if prompt.get("expiration") else ""
    if prompt.get("live"):  # who comes too late for a program's wish did not come for the session
        about = f" about {clean(call.operands[0])}" if call.operands else ""
        call.say(f"no question{about} is open, and the MFA session lives already{until}")
    else:
        call.say(f"the MFA session is open{until}")
    return 0


def _answered(call: Call, prompt: dict[str, Any]) -> int:
    if consents(prompt):
        who = clean(prompt.get("requester"))
        call.say(f"{clean(prompt.get('profile'))} is allowed to {who}: run it again, if it has given up")
    else:
        call.say(f"the MFA session of {prompt['identity']} is open: its profiles need no code for now")
    _next(call)
    return 0


def _next(call: Call) -> None:
    """The oldest question comes first, so the one that somebody came for may be open still."""
    with suppress(Stop):  # that one was answered, whatever becomes of this
        if left := call.link.call("GET", "/v1/prompts")["prompts"]:
            about = clean(left[0].get("profile") or left[0].get("identity"))
            call.say(f"another question is open, for {about}: type `vault-client mfa`")


def _opened(call: Call, body: dict[str, Any]) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = call.link.call("POST", "/v1/prompts", body)
    except Refusal as refusal:
        if refusal.prompt is None:
            raise
        if "token_code" in body:  # it was sent, and AWS refused it
            raise Stop(refusal.message, 1) from None
        return refusal.prompt
    return answer.get("prompt") or answer


def refresh(call: Call) -> int:
    """A new role session; a new MFA session only if the old no longer serves."""
    name = call.operands[0]
    path = f"/v1/profiles/{quoted(name)}/refresh"
    profile = settled(call.link, "POST", path, {}, token_code=call.token_code)
    call.say(f"{name} has a new session until {local(profile.get('expiration'))}")
    return 0


def clear(call: Call) -> int:
    """Drop sessions."""
    if call.operands:
        call.link.call("DELETE", f"/v1/sessions?profile={quoted(call.operands[0])}")
        call.say(f"dropped the sessions of {call.operands[0]}; the next use makes a new one")
    else:
        call.link.call("DELETE", "/v1/sessions")
        call.say("dropped all sessions, MFA sessions too; the next use asks for a code")
    return 0


def lock(call: Call) -> int:
    """Serve nothing until `unlock`."""
    call.link.call("POST", "/v1/lock", {})
    call.say("locked: nothing is served until `vault-client unlock`. Keys that were handed out live until they expire")
    return 0


def unlock(call: Call) -> int:
    """Open the store: with the passphrase of the file store, else by asking the OS keyring."""
    status = call.link.call("GET", "/v1/status", seconds=LOOK)
    body: dict[str, str] = {}
    if call.flag("stdin"):
        body["passphrase"] = stdin_line()
    elif not status.get("locked"):
        call.say("it is not locked")
        return 0
    elif str(status.get("store", "")).startswith("file"):
        body["passphrase"] = _passphrase(new=not os.path.exists(call.link.places.store))
    answer = call.link.call("POST", "/v1/unlock", body)
    if answer.get("created"):
        call.say("made a new store: nothing opens it but this passphrase; next: `vault-client add IDENTITY`")
    elif answer.get("open"):
        call.say("it was open already, so the passphrase was not checked: `vault-client lock` closes it")
    else:
        call.say("unlocked: sessions that still live are served again")
    return 0


def stdin_line() -> str:
    """The passphrase of --stdin."""
    try:
        line = sys.stdin.readline(_LINE_LIMIT)
        line.encode()  # in some locales what is no UTF-8 is read as half a character
    except UnicodeError:
        raise Stop("what stdin gave is not UTF-8 text: give the passphrase as one line", USAGE) from None
    if len(line) == _LINE_LIMIT:
        raise Stop("what stdin gave is too long for a passphrase: give the passphrase as one line", USAGE)
    passphrase = line.removesuffix("\n")
    if not passphrase:
        raise Stop("stdin is empty: give the passphrase as one line", USAGE)
    return passphrase


def _passphrase(*, new: bool) -> str:
    from vault_client.terminal import Terminal

    terminal = Terminal.find("`vault-client unlock` again")
    if terminal is None:
        raise Stop("there is no terminal to ask for the passphrase on: type `vault-client unlock` in one, or give it "
                   "with --stdin", NEEDS_PERSON)  # fmt: skip
    with terminal:
        if not new:
            return _not_empty(terminal.ask("Passphrase of vaultd's store: ", cancelled="it stays locked"))
        first = _not_empty(terminal.ask("New passphrase for vaultd's store: ", cancelled=_NO_STORE))
        if terminal.ask("The same again: ", cancelled=_NO_STORE) != first:
            raise Stop("the two differ, so no store was made: type `vault-client unlock` again")
        return first


def _not_empty(passphrase: str) -> str:
    if not passphrase:
        raise Stop("an empty passphrase is none, so nothing was sent: type `vault-client unlock` again")
    return passphrase


def revoke(call: Call) -> int:
    """End one grant, or all."""
    if call.flag("all") == bool(call.operands):
        raise Stop("revoke: give one GRANT or --all: `vault-client grants` lists them", USAGE)
    if call.operands:
        call.link.call("DELETE", f"/v1/grants/{quoted(call.operands[0])}")
        call.say(f"revoked {call.operands[0]}; keys that it was handed live until they expire")
        return 0
    call.link.call("DELETE", "/v1/grants")
    call.say("revoked every grant; keys that were handed out live until they expire. To end them at AWS at once, "
             "attach this policy to the roles or users:")  # fmt: skip
    call.json(_deny_before(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())))
    return 0


def _deny_before(moment: str) -> dict[str, Any]:
    """IAM cannot end a session, but it can deny what was issued before a moment (security.md §1)."""
    condition = {"DateLessThan": {"aws:TokenIssueTime": moment}}
    deny = {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": condition}
    return {"Version": "2012-10-17", "Statement": [deny]}
