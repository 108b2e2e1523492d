"""`list`, `status`, `explain`, `grants` and `log`: what the daemon knows, for people and (--json) for scripts."""

from __future__ import annotations

import os
import select
import sys
import time

from vault_client.cli import Call
from vault_client.errors import MISCONFIGURED, Stop
from vault_client.link import LOOK, quoted
from vault_client.tables import Ink, ago, clean, epoch, local, peer_text, skew, span, table, typed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

_STATES = {"mfa_required": "needs a code", "none": "none yet"}
_STEPS = {
    "mfa_session": "GetSessionToken with an MFA code",
    "session_token": "GetSessionToken without MFA",
    "assume_role": "AssumeRole",
    "assume_role_with_code": "AssumeRole with an MFA code",
}
_CLEAR_SCREEN = "\x1b[H\x1b[2J"


def _ink() -> Ink:
    return Ink(sys.stdout, os.environ)


def list_profiles(call: Call) -> int:
    """Every profile of the AWS config file."""
    body = call.link.call("GET", "/v1/profiles", seconds=LOOK)
    if call.flag("json"):
        call.json(body)
    elif body["profiles"]:
        call.out(_profiles(body["profiles"], _ink()))
    troubles = _list(body, "trouble")
    for trouble in troubles:  # the rows may be those of before the file broke
        call.say(str(trouble))
    if troubles and not body["profiles"]:
        return MISCONFIGURED
    if not body["profiles"] and not call.flag("json"):
        call.say("there is no profile: write one to ~/.aws/config (`vault-client explain PROFILE` then tells its plan)")
    return 0


def _profiles(profiles: list[dict[str, Any]], ink: Ink) -> str:
    rows = [
        (each["profile"], each.get("account_id"), str(each.get("role_arn") or "").rpartition("/")[2],
         each.get("identity"), str(each.get("mfa_serial") or "").rpartition("/")[2], each["state"], _left(each))
        for each in profiles
    ]  # fmt: skip
    heads = ("PROFILE", "ACCOUNT", "ROLE", "IDENTITY", "MFA", "SESSION", "LEFT")
    return table(heads, rows, ink, state=5)


def _left(profile: dict[str, Any]) -> str:
    seconds = profile.get("seconds_left")
    return span(seconds) if isinstance(seconds, (int, float)) and seconds > 0 else ""


def grants(call: Call) -> int:
    """Who holds a token."""
    body = call.link.call("GET", "/v1/grants", seconds=LOOK)
    if call.flag("json"):
        call.json(body)
    elif not body["grants"]:
        call.say("nobody holds a token: `vault-client use PROFILE` or `vault-client exec PROFILE -- CMD` makes one")
    else:
        call.out(_grants(body["grants"], _ink()))
    return 0


def _grants(rows: list[dict[str, Any]], ink: Ink) -> str:
    now = time.time()
    cells = [
        (each["id"], each["profile"], _kind(each), _holder(each), local(each.get("created")),
         ago(each.get("last_used"), now), _until(each.get("expires"), now))
        for each in rows
    ]  # fmt: skip
    return table(("GRANT", "PROFILE", "KIND", "HELD BY", "SINCE", "LAST USE", "ENDS IN"), cells, ink)


def _kind(grant: dict[str, Any]) -> str:
    """`shell`, or `shell · imds 127.0.0.1:39433`: a door is found by its address."""
    door = grant.get("door")
    if not grant.get("imds") or not isinstance(door, dict):
        return str(grant["kind"])
    return f"{grant['kind']} · imds {door.get('address')}:{door.get('port')}"


def _holder(grant: dict[str, Any]) -> str:
    """By eval the lines went to a shell that the daemon does not know: the process that asked for them is long gone."""
    pid = (grant.get("peer") or {}).get("pid")
    if grant["kind"] == "shell" and isinstance(pid, int):
        try:
            os.kill(pid, 0)
        except OSError:
            return "a shell, by eval"
    return peer_text(grant.get("peer"))


def _until(stamp: object, now: float) -> str:
    at = epoch(stamp)
    return "" if at is None else span(at - now)


def status(call: Call) -> int:
    """The daemon at a glance; --watch redraws when something happens, and once a second on a terminal."""
    if call.flag("watch"):
        return _watch(call)
    body = call.link.call("GET", "/v1/status", seconds=LOOK)
    if call.flag("json"):
        call.json(body)
    else:
        call.out(status_text(body, _ink()))
    return 0


def _watch(call: Call) -> int:
    stream = call.link.open("GET", "/v1/events")
    terminal = sys.stdout.isatty()
    last = ""
    try:
        stream.events()
        while True:
            body = call.link.call("GET", "/v1/status", seconds=LOOK)
            shown = _line_of(body) if call.flag("json") else status_text(body, _ink())
            if shown != last:
                call.out((_CLEAR_SCREEN if terminal and not call.flag("json") else "") + shown)
                last = shown
            if not stream.pending:
                select.select([stream], [], [], 1.0 if terminal else 5.0)
            _drain(stream)
    finally:
        stream.close()


def _line_of(body: object) -> str:
    import json

    return json.dumps(body) + "\n"


def _drain(stream: Any) -> None:
    while stream.pending or select.select([stream], [], [], 0)[0]:
        if stream.event() is None:
            raise Stop("vaultd has stopped: type `vaultd start`", 69)


def status_text(body: dict[str, Any], ink: Ink) -> str:
    """Store, lock, clock, then what is open and what is wrong, then the tables."""
    lines = [_first_line(body, ink)]
    if text := skew(body.get("clock_skew_seconds")):
        lines.append(ink.paint(f"{text}: AWS refuses signatures from 15 minutes on, so set the clock", "bad"))
    if lost := body.get("lost_audit_lines"):
        lines.append(
            ink.paint(
                f"{lost} audit line{'' if lost == 1 else 's'} could not be written: free space for {body.get('log')}",
                "bad",
            )
        )
    trouble = body.get("trouble")
    troubles = trouble if isinstance(trouble, list) else [trouble] if trouble else []
    lines += [ink.paint(clean(each), "bad") for each in troubles]
    lines += [_question(each) for each in _rows(body, "prompts")]
    lines.append(_identities(body))
    text = "\n".join(lines) + "\n"
    if profiles := _rows(body, "profiles"):
        text += "\n" + _profiles(profiles, ink) + _errors(profiles, ink)
    if held := _rows(body, "grants"):
        text += "\n" + _grants(held, ink)
    return text


def _identities(body: dict[str, Any]) -> str:
    names = [clean(each.get("name") if isinstance(each, dict) else each) for each in _list(body, "identities")]
    return f"identities: {', '.join(names) or 'none: type `vault-client add IDENTITY`'}"


def _list(body: dict[str, Any], name: str) -> list[Any]:
    found = body.get(name)
    return found if isinstance(found, list) else []


def _rows(body: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [each for each in _list(body, name) if isinstance(each, dict)]


def _first_line(body: dict[str, Any], ink: Ink) -> str:
    state = ink.paint("locked: type `vault-client unlock`", "locked") if body.get("locked") else "unlocked"
    where = f"pid {body.get('pid')} · http://127.0.0.1:{body.get('port')}"
    return f"vaultd {clean(body.get('version'))} · {where} · store {clean(body.get('store'))} · {state}"


def _question(prompt: dict[str, Any]) -> str:
    who = f" (asked by {clean(prompt['requester'])})" if prompt.get("requester") else ""
    about = clean(prompt.get("profile") or prompt.get("identity"))
    if prompt.get("kind") == "consent":
        return (
            f"{about} is wanted{who}, which nobody allowed yet: type `vault-client mfa {typed(prompt.get('identity'))}`"
        )
    return f"{about} waits for a code{who}: type `vault-client mfa {typed(prompt.get('identity'))}`"


def _errors(profiles: Iterable[dict[str, Any]], ink: Ink) -> str:
    return "".join(
        ink.paint(f"{clean(each['profile'])}: {clean(each['last_error'].get('message'))}", "bad") + "\n"
        for each in profiles
        if isinstance(each.get("last_error"), dict)
    )


def explain(call: Call) -> int:
    """The plan step by step, each value's source, and what would go wrong."""
    plan = call.link.call("GET", f"/v1/profiles/{quoted(call.operands[0])}/plan")
    if call.flag("json"):
        call.json(plan)
        return 0
    ink = _ink()
    lines = [ink.paint(f"{clean(plan['profile'])} of identity {clean(plan.get('identity'))}", "heading")]
    for number, step in enumerate(plan["steps"], 1):
        lines += _step(number, step)
    lines += _callers(plan.get("callers"))
    problems = plan.get("problems") or []
    last = _last_error(call, ink)
    if problems:
        lines += ["", "what would go wrong:", *(ink.paint(f"  - {clean(problem)}", "bad") for problem in problems)]
    elif not last:
        lines += ["", "nothing is known that would go wrong"]
    lines += last
    call.out("\n".join(lines) + "\n")
    return 0


def _callers(callers: object) -> list[str]:
    """Who is given its keys, where not simply every program of this user."""
    if not isinstance(callers, dict):
        return []
    said = []
    allowed = callers.get("allow_executables")
    if isinstance(allowed, list):
        said.append(f"only {', '.join(map(clean, allowed)) or 'nobody'} (allow_executables)")
    if callers.get("protected"):
        said.append("each program only after a person has allowed it (protected)")
    if callers.get("relays"):
        said.append(f"also {', '.join(map(clean, callers['relays']))}, which others may stand behind (relays)")
    return ["", "which programs are given its keys:", *(f"  - {each}" for each in said)] if said else []


def _last_error(call: Call, ink: Ink) -> list[str]:
    """Why the last session was not made: who comes from `run vault-client explain` wants to know."""
    for row in _rows(call.link.call("GET", "/v1/profiles"), "profiles"):
        error = row.get("last_error")
        if row.get("profile") == clean(call.operands[0]) and isinstance(error, dict):
            return ["", f"the last try{_when(error)} failed:", ink.paint(f"  - {_read(error)}", "bad")]
    return []


def _read(error: dict[str, Any]) -> str:
    """The sentence without its way to `explain`: the reader is there."""
    said = clean(error.get("message"))
    for way in ("; run `vault-client explain ", ", or type `vault-client explain "):
        said = said.partition(way)[0]
    return said


def _when(error: dict[str, Any]) -> str:
    return f" (at {local(error['time'])})" if error.get("time") else ""


def _step(number: int, step: dict[str, Any]) -> list[str]:
    kind = clean(_STEPS.get(step["kind"], step["kind"]))
    values = step.get("values") or ()
    return [
        f"{number}. {kind}, signed with the {clean(step.get('source')).replace('_', ' ')}",
        *(f"     {clean(each.get('field')):<22}{clean(each.get('value')):<48}  {clean(each.get('source'))}"
          for each in values),
    ]  # fmt: skip


def log(call: Call) -> int:
    """The audit log; -f goes on with what happens."""
    profile = call.value("profile")
    query = f"?profile={quoted(profile)}" if profile else ""
    follow = call.flag("follow")
    # Subscribed, as the head of the answer tells, before the past is read: no line falls between the two.
    stream = call.link.open("GET", "/v1/events") if follow else None
    if stream is not None:
        stream.events()
    body = call.link.call("GET", f"/v1/audit{query}")
    if call.flag("json") and not follow:
        call.json(body)
        return 0
    show = _line_of if call.flag("json") else audit_line
    for event in body["events"]:
        call.out(show(event))
    if stream is not None:
        _follow(call, stream, show, seen=max((each.get("seq") or 0 for each in body["events"]), default=0))
    return 0


def _follow(call: Call, stream: Any, show: Callable[[Any], str], *, seen: int) -> None:
    profile = call.value("profile")
    try:
        while (event := stream.event()) is not None:
            if (event.get("seq") or seen + 1) > seen and profile in {None, event.get("profile")}:
                call.out(show(event))
    finally:
        stream.close()
    raise Stop("vaultd has stopped: type `vaultd start`", 69)


def audit_line(event: dict[str, Any]) -> str:
    """One event: when, what, for which profile, by whom, and why."""
    about = event.get("profile") or event.get("identity")
    parts = [clean(event.get("time")), f"{clean(event.get('event')):<18}", clean(about) or "-"]
    if isinstance(event.get("peer"), dict):
        parts.append(peer_text(event["peer"]))
    parts += [f"{name}={clean(event[name])}" for name in ("decision", "reason", "grant", "access_key_id", "count")
              if event.get(name) not in {None, ""}]  # fmt: skip
    return "  ".join(parts) + "\n"
