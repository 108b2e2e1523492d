"""`list`, `status`, `explain`, `grants` and `log`: what the daemon knows, for people and (--json) for scripts."""

from __future__ import annotations

import os
import sys
import time

from vault_client.cli import Call, brief
from vault_client.errors import MISCONFIGURED, UNREACHABLE, Stop
from vault_client.link import LOOK, quoted
from vault_client.tables import Ink, ago, clean, epoch, local, peer_text, skew, span, table, typed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

_STATES = {"mfa_required": "needs a code", "none": "none yet"}
#: Lines read again after a cut.
_MOST = 100_000


def _ink() -> Ink:
    return Ink(sys.stdout, os.environ)


def list_profiles(call: Call) -> int:
    """Every profile of the AWS config file."""
    body = call.link.call("GET", "/v1/profiles", seconds=LOOK)
    if call.flag("json"):
        call.json(body)
    elif body["profiles"]:
        call.out(_profiles(body["profiles"], _ink()))
        _say_errors(call, body["profiles"])
    troubles = _list(body, "trouble")
    for trouble in troubles:  # the rows may be those of before the file broke
        call.say(str(trouble))
    for reminder in _list(body, "reminders"):
        call.say(str(reminder))
    if troubles and not body["profiles"]:
        return MISCONFIGURED
    if not body["profiles"] and not call.flag("json"):
        call.say("there is no profile: write one to ~/.aws/config (`vault-client explain PROFILE` then tells its plan)")
    return 0


def _say_errors(call: Call, profiles: list[dict[str, Any]]) -> None:
    """The reasons are too long for a column."""
    if count := sum(each.get("state") == "error" for each in profiles):
        call.say(f"{count} profile{' is' if count == 1 else 's are'} in error: for why, type `vault-client status`")


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
    """The daemon at a glance; --watch goes on with it (watch.py)."""
    if call.flag("watch"):
        from vault_client.watch import watch

        return watch(call)
    body = call.link.call("GET", "/v1/status", seconds=LOOK)
    if call.flag("json"):
        call.json(body)
    else:
        call.out(status_text(body, _ink()))
    return 0


def _line_of(body: object) -> str:
    import json

    return json.dumps(body) + "\n"


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


def log(call: Call) -> int:
    """The audit log; -f goes on with what happens."""
    show = _line_of if call.flag("json") else audit_line
    if not call.flag("follow"):
        body = call.link.call("GET", _audit(call))
        if call.flag("json"):
            call.json(body)
        else:
            call.out("".join(show(event) for event in body["events"]))
            _of_nobody(call, body)
        return 0
    seen: int | None = None
    while True:  # again after a cut: whoever pauses his terminal for long is told all the same
        seen = _follow(call, show, seen=seen)


def _of_nobody(call: Call, body: dict[str, Any]) -> None:
    """No line may mean a wrong name; one of a profile that is gone from the config is none."""
    profile = call.value("profile")
    if not profile or body["events"]:
        return
    names = [each["profile"] for each in _rows(call.link.call("GET", "/v1/profiles"), "profiles")]
    if profile not in names:
        import difflib

        close = [typed(each) for each in difflib.get_close_matches(brief(profile), names, n=3)]
        meant = f" Did you mean {', '.join(close)}?" if close else ""
        call.say(
            f"no line is about {clean(brief(profile))}, and no profile has that name.{meant} Type `vault-client list`"
        )


def _audit(call: Call, *, most: int | None = None) -> str:
    profile = call.value("profile")
    asked = [f"n={most}"] if most else []
    asked += [f"profile={quoted(profile)}"] if profile else []
    return "/v1/audit" + ("?" + "&".join(asked) if asked else "")


def _follow(call: Call, show: Callable[[Any], str], *, seen: int | None) -> int:
    """One stream to its end: what is past and not `seen` yet, then what happens. The last number of all, where the
    daemon let a slow reader go; raises Stop 69 where it stopped itself.
    """
    # Subscribed, as the head of the answer tells, before the past is read: no line falls between the two.
    stream = call.link.open("GET", "/v1/events")
    profile = call.value("profile")
    try:
        stream.events()
        last = seen or 0
        for event in call.link.call("GET", _audit(call, most=None if seen is None else _MOST))["events"]:
            last = _shown(call, event, show, last)
        while (event := stream.event()) is not None:
            if event.get("event") == "stream.cut":
                return last
            if profile in {None, event.get("profile")}:
                last = _shown(call, event, show, last)
    finally:
        stream.close()
    raise Stop("vaultd has stopped: type `vaultd start`", UNREACHABLE)


def _shown(call: Call, event: dict[str, Any], show: Callable[[Any], str], last: int) -> int:
    number = event.get("seq") or last + 1
    if number > last:
        call.out(show(event))
    return max(number, last)


def audit_line(event: dict[str, Any]) -> str:
    """One event: when, what, for which profile, by whom, and why."""
    about = event.get("profile") or event.get("identity")
    parts = [clean(event.get("time")), f"{clean(event.get('event')):<18}", clean(about) or "-"]
    if isinstance(event.get("peer"), dict):
        parts.append(peer_text(event["peer"]))
    parts += [f"{name}={clean(event[name])}" for name in ("decision", "reason", "grant", "access_key_id", "count")
              if event.get(name) not in {None, ""}]  # fmt: skip
    return "  ".join(parts) + "\n"
