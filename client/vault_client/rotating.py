"""`rotate`: a new access key in the place of an identity's old one, a step a call, with what stands told at each.

Rules (aws-facts §2.1)
- The daemon keeps how far it is: whatever ends this command, the same command goes on from there. Whoever leaves is
  told what stands at AWS and how to go on.
- Only the first step may begin a rotation: after it this command goes on with that one, and begins no second one where
  an answer was lost or another terminal was faster.
- Nothing waits silently: while AWS spreads the new key, each look at it is shown.
"""

from __future__ import annotations

import sys
import time

from vault_client.ask import Cancelled, settled
from vault_client.cli import Call, brief
from vault_client.errors import TEMPORARY, USAGE, Refusal, Stop
from vault_client.link import quoted
from vault_client.tables import Ink, clean, fit, local, typed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_INTERRUPTED = 130
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST_GRACE = 90 * 86400
#: How often in a row a step is tried again that AWS was not there for, and how long after.
_TRIES, _PAUSE = 3, 2.0
#: Steps that ask nothing of IAM, so that a code was not sent.
_WITHOUT_IAM = frozenset({"tried", "swapped", "kept"})
_CLEAR = "\r\x1b[K"
_KEPT = "how far it is is kept"
_STANDS = {
    "intent": "…{old_key} is in use, and a new key may have been made",
    "pending": "the new key …{new_key} is stored and not in use yet, and …{old_key} is in use",
    "swapped": "…{new_key} is in use, and …{old_key} is Active, too",
    "reactivated": "…{new_key} is in use, and …{old_key} is Active, too",
    "inactive": "…{new_key} is in use, and …{old_key} is Inactive",
}


def rotate(call: Call) -> int:
    """Up to the grace of the old key, or what --undo or --abandon want."""
    name, body = call.operands[0], _body(call)
    code = call.token_code
    progress = Progress(call, typed(name))
    try:
        answer = _steps(call, name, body, code, progress)
    except KeyboardInterrupt:
        progress.end()
        call.say(f"stopped: {_left(call, name)}")
        return _INTERRUPTED
    except Cancelled as stop:
        progress.end()
        raise Stop(f"cancelled: {_after_cancel(call, name)}", stop.exit_status) from None
    except Stop as stop:
        progress.end()
        if progress.began and getattr(stop, "code", "") != "RotationStopped":  # which says what stands
            call.say(f"stopped: {_left(call, name)}")
        raise
    if call.flag("json"):
        call.json(answer)
    return 0


def _body(call: Call) -> dict[str, Any]:
    wishes = [wish for wish in ("undo", "abandon") if call.flag(wish)]
    if len(wishes) > 1:
        raise Stop("rotate: --undo and --abandon exclude each other: choose one", USAGE)
    body: dict[str, Any] = {"wish": wishes[0]} if wishes else {}
    if (grace := call.value("grace")) is not None:
        body["grace_seconds"] = _grace(grace)
    return body


def _grace(text: str) -> int:
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not number.isascii() or not number.isdigit() or len(number) > 9:
        raise Stop(f"--grace {brief(text)} is no length of time: write it as 24h, 7d or 0s", USAGE)
    seconds = int(number) * _UNITS[unit]
    if seconds > _LONGEST_GRACE:
        raise Stop(f"--grace {brief(text)} is too long: keep an old key for 90d at most", USAGE)
    return seconds


def _steps(call: Call, name: str, body: dict[str, Any], code: str | None, progress: Progress) -> dict[str, Any]:
    """Step by step until the daemon says that there is none for now; the last answer."""
    path, failures = f"/v1/identities/{quoted(name)}/rotate", 0
    while True:
        try:
            answer: dict[str, Any] = settled(call.link, "POST", path, body, token_code=code)
        except Refusal as refusal:
            failures += 1
            if refusal.exit_status != TEMPORARY or failures == _TRIES or not progress.began:
                raise
            progress.end()
            call.say(refusal.message)
            time.sleep(_PAUSE)
            continue
        failures = 0
        code = code if answer.get("did") in _WITHOUT_IAM else None  # a code is for the first step that IAM is asked in
        body.setdefault("wish", "on")
        progress.tell(answer)
        if answer.get("done"):
            return answer
        time.sleep(float(answer.get("retry_after_seconds") or 0))


class Progress:
    """What is told of each step: a sentence, or on a terminal one line that changes while the new key spreads."""

    def __init__(self, call: Call, name: str) -> None:
        self._call = call
        self._name = name
        self._since = time.monotonic()
        self._rewrites = sys.stderr.isatty() and call.environ.get("TERM") != "dumb"
        self._width = Ink(sys.stderr, call.environ).width
        self._line = False
        self.began = False

    def tell(self, answer: dict[str, Any]) -> None:
        """One answer."""
        self.began = True
        did = str(answer.get("did"))
        if did == "tried":
            self._look(answer)
            return
        self.end()
        if did == "pending":
            self._since = time.monotonic()
        for sentence in _told(did, answer, self._name):
            self._call.say(sentence)

    def _look(self, answer: dict[str, Any]) -> None:
        """A terminal sees each look, a log (and TERM=dumb) the first and the last."""
        usable, wanted = int(answer.get("usable") or 0), int(answer.get("usable_wanted") or 0)
        seconds = int(time.monotonic() - self._since)
        known = f"known {usable} of {wanted} times in a row" if usable else "not known yet"
        text = f"waiting until AWS knows …{clean(answer.get('new_key'))} everywhere: {known} ({seconds} s)"
        if self._rewrites:
            line = f"vault-client: {text}"
            sys.stderr.write(_CLEAR + (fit(line, self._width - 1) if self._width else line))
            sys.stderr.flush()
        elif not self._line or usable == wanted:
            self._call.say(text)
        self._line = True

    def end(self) -> None:
        """The line that changes is over."""
        if self._line and self._rewrites:
            sys.stderr.write("\n")
            sys.stderr.flush()
        self._line = False


def _told(did: str, answer: dict[str, Any], name: str) -> list[str]:
    """The sentences about one step."""
    old, new = f"…{clean(answer.get('old_key'))}", f"…{clean(answer.get('new_key'))}"
    again = f"`vault-client rotate {name}`"
    said = {
        "intent": [f"AWS has one key of {name}, {old}: it stays in use while a new one is made"],
        "pending": [f"made {new} and stored it; {old} stays in use until AWS knows the new one"],
        "swapped": [f"{new} is in use now; sessions live on"],
        "inactive": _inactive(answer, old, name),
        "kept": [f"{old} is Inactive until {_until(answer)}, when vaultd deletes it; sooner: {again[:-1]} --grace 0s`"],
        "deleted": [f"{old} is deleted; {name} has one key, …{clean(_identity(answer).get('access_key_id'))}"],
        "reactivated": [f"{old} works again and is not deleted; once nothing uses it any more, type {again}"],
        "over": [f"the rotation of {name} was ended elsewhere; its key in use is {new}"],
        "abandoned": [f"what was made for the rotation is deleted; {old} is in use as before"],
    }.get(did, [])
    if answer.get("signed_out"):
        said = [*said, "the MFA session that the old key had opened was ended: the next renewal asks for a code"]
    return said


def _inactive(answer: dict[str, Any], old: str, name: str) -> list[str]:
    used = f" (last used {clean(answer['last_used'])})" if answer.get("last_used") else ""
    if not answer.get("done"):
        return [f"{old} is Inactive{used}"]
    undo = f"if something still needs it, type `vault-client rotate {name} --undo`"
    return [f"{old} is Inactive{used}, and vaultd deletes it after {_until(answer)}; {undo}"]


def _identity(answer: dict[str, Any]) -> dict[str, Any]:
    found = answer.get("identity")
    return found if isinstance(found, dict) else {}


def _until(answer: dict[str, Any]) -> str:
    rotation = _identity(answer).get("rotation")
    return local(rotation.get("delete_after")) if isinstance(rotation, dict) else "-"


def _left(call: Call, name: str) -> str:
    """What stands, and how to go on; the step under way ends in the daemon all the same."""
    again = f"to go on, type `vault-client rotate {typed(name)}`"
    identity = _listed(call, name)
    if identity is None:
        return f"{_KEPT}; {again}"
    rotation = identity.get("rotation")
    if not isinstance(rotation, dict):
        return f"no rotation of {clean(name)} is under way; to begin one, type `vault-client rotate {typed(name)}`"
    return f"{_stands(rotation)}; {again}"


def _after_cancel(call: Call, name: str) -> str:
    """The same after a Ctrl-C at the code question: a cool-down runs, which `mfa` of the identity ends."""
    wish = next((f" --{each}" for each in ("undo", "abandon") if call.flag(each)), "")
    again = f"`vault-client mfa {typed(name)}` and `vault-client rotate {typed(name)}{wish}`"
    again = f"to go on, wait 30 s, then type {again}"
    identity = _listed(call, name)
    if not identity:
        return f"{_KEPT}; {again}"
    rotation = identity.get("rotation")
    if isinstance(rotation, dict):
        return f"{_stands(rotation)}; {again}"
    return f"nothing was changed at AWS, and …{clean(identity.get('access_key_id'))} is in use; {again}"


def _listed(call: Call, name: str) -> dict[str, Any] | None:
    """What the daemon says of the identity now, empty where there is none of that name; None where it says nothing."""
    try:
        listed = call.link.call("GET", "/v1/identities")["identities"]
    except (Stop, KeyboardInterrupt):
        return None
    return next((each for each in listed if each.get("name") == name), {})


def _stands(rotation: dict[str, Any]) -> str:
    words = {key: clean(rotation.get(key)) for key in ("old_key", "new_key")}
    return _STANDS.get(str(rotation.get("stage")), _KEPT).format(**words)
