"""What happened between two looks at the daemon, a sentence each: `status --watch` where nothing can be drawn, and for
screen readers.

Rule: time that passes is no change. What a person has to do is said with what to type. What happens to many profiles
at once (a lock, a restart) is said once.
"""

from __future__ import annotations

from vault_client.tables import clean, local, peer_text, span, typed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Body = dict[str, Any]

#: Profiles to which the same happens at once are named, up to so many.
_EACH = 3


def rows(body: Body, name: str) -> list[Body]:
    """A list of objects of `status`, whatever the daemon sent."""
    found = body.get(name)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def troubles(body: Body) -> list[str]:
    """What is wrong with the daemon itself: one sentence, or several."""
    found = body.get("trouble")
    return [clean(each) for each in (found if isinstance(found, list) else [found] if found else [])]


def between(before: Body, after: Body) -> list[str]:
    """Of two answers of GET /v1/status."""
    return [*_daemon(before, after), *_questions(before, after), *_sessions(before, after), *_grants(before, after)]


def _daemon(before: Body, after: Body) -> Iterator[str]:
    if before.get("pid") != after.get("pid"):
        yield f"vaultd was started again, pid {clean(after.get('pid'))}"
    known, found = troubles(before), troubles(after)
    if bool(before.get("locked")) is not bool(after.get("locked")):
        said = clean(after.get("locked_reason")) in found  # then it says so itself, with why
        yield from () if said else ["locked: type `vault-client unlock`" if after.get("locked") else "unlocked"]
    yield from (each for each in found if each not in known)


def question(prompt: Body) -> str:
    """Who waits for what, and what to type."""
    who = f", asked by {clean(prompt['requester'])}" if prompt.get("requester") else ""
    about = clean(prompt.get("profile") or prompt.get("identity"))
    waits = "is wanted by a program that nobody allowed yet" if prompt.get("kind") == "consent" else "waits for a code"
    return f"{about} {waits}{who}: type `vault-client mfa {typed(prompt.get('identity'))}`"


def _questions(before: Body, after: Body) -> Iterator[str]:
    old = {each.get("id"): each for each in rows(before, "prompts")}
    new = {each.get("id"): each for each in rows(after, "prompts")}
    yield from (question(each) for key, each in new.items() if key not in old)
    for key, each in old.items():
        if key not in new:
            yield f"the question for {clean(each.get('profile') or each.get('identity'))} is over"


def _sessions(before: Body, after: Body) -> Iterator[str]:
    old = {each.get("profile"): each for each in rows(before, "profiles")}
    new = {each.get("profile"): each for each in rows(after, "profiles")}
    said: list[tuple[str, str, str]] = []
    for name, each in new.items():
        was = old.get(name, {})
        if each.get("state") != was.get("state"):
            said.append((clean(name), clean(each.get("state")).replace("_", " "), _left(each)))
        elif each.get("expiration") != was.get("expiration"):
            said.append((clean(name), "renewed", _left(each)))
        if (error := _error(each)) and error != _error(was):
            said.append((clean(name), error, ""))
    said += [(clean(name), "no session any more", "") for name in old if name not in new]
    yield from _together(said)


def _together(said: list[tuple[str, str, str]]) -> Iterator[str]:
    """A lock, an unlock and a restart happen to every profile at once: who listens hears that once."""
    alike: dict[str, list[str]] = {}
    for name, what, left in said:
        alike.setdefault(what, []).append(f"{name}: {what}{left}")
    for what, lines in alike.items():
        yield from lines if len(lines) <= _EACH else [f"{len(lines)} profiles: {what}"]


def _left(row: Body) -> str:
    seconds = row.get("seconds_left")
    return f", {span(seconds)} left" if isinstance(seconds, (int, float)) and seconds > 0 else ""


def _error(row: Body) -> str:
    error = row.get("last_error")
    return clean(error.get("message")) if isinstance(error, dict) else ""


def _grants(before: Body, after: Body) -> Iterator[str]:
    old = {each.get("id"): each for each in rows(before, "grants")}
    new = {each.get("id"): each for each in rows(after, "grants")}
    for key, each in new.items():
        if key not in old:
            yield f"a grant for {clean(each.get('profile'))} was made: {clean(key)}, for {peer_text(each.get('peer'))}"
    for key, each in old.items():
        if key not in new:
            yield f"the grant {clean(key)} of {clean(each.get('profile'))} has ended"


def denial(event: Body) -> str:
    """A `credentials.deny` of the audit log."""
    times = event.get("count")
    often = f", {times} times" if isinstance(times, int) and times > 1 else ""
    about = f" {clean(event['profile'])}" if event.get("profile") else ""
    return f"{peer_text(event.get('peer'))} was denied{about}: {clean(event.get('reason'))}{often}"


def denials(events: list[Body]) -> list[Body]:
    """Those of a log."""
    return [each for each in events if each.get("event") == "credentials.deny"]


def clock(event: Body) -> str:
    """When, on the local wall clock."""
    return local(event.get("time"))
