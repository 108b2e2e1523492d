"""`add`, `identities` and `remove`: long-term access keys on their way into the daemon's store.

Rule: a secret key comes from the terminal without echo, from stdin, the environment or the AWS credentials file, never
from argv, and goes nowhere but over the peer-checked socket.
"""

from __future__ import annotations

import os
import sys

from vault_client.cli import Call, brief
from vault_client.credentials_file import sections
from vault_client.errors import NEEDS_PERSON, USAGE, Refusal, Stop
from vault_client.link import quoted
from vault_client.places import aws_credentials
from vault_client.tables import Ink, clean, local, table, typed
from vault_client.terminal import Terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_LONGEST_NAME = 128
_NOTHING = "nothing was stored"
#: What a rotation that is kept leaves at AWS when the identity goes (aws-facts §2.1): only vaultd knows it.
_LOST = {
    "intent": "a new key may have been made for its rotation, and nobody would look for it",
    "pending": "…{new_key} is stored nowhere else",
    "swapped": "…{new_key} is stored nowhere else, and …{old_key} stays Active and is deleted by nobody",
    "reactivated": "…{new_key} is stored nowhere else, and …{old_key} stays Active and is deleted by nobody",
    "inactive": "…{new_key} is stored nowhere else, and …{old_key} stays Inactive and is deleted by nobody",
}
_KEY_ID = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def add(call: Call) -> int:
    """Store a key under IDENTITY. One that exists is refused before a secret is asked for; with --replace a person
    agrees before that to what goes with a rotation.
    """
    name = call.operands[0]
    source = _source(call)
    _check_name(name)  # before a secret is typed
    if call.flag("replace"):
        _agree_to_replace(call, name)
    else:
        _refuse_existing(call, name)
    key = source(call)
    body = {"name": name, **checked(key), "replace": call.flag("replace")}
    if serial := call.value("mfa-serial") or key.get("MfaSerial"):
        body["MfaSerial"] = serial
    identity = stored(call, "/v1/identities", body, again=_again(call), cancelled=_NOTHING)
    if call.flag("json"):
        call.json(identity)
    call.say(f"stored {identity['name']}: {identity.get('user_arn')}, {_device(identity)}")
    for warning in identity.get("warnings") or ():
        call.say(f"warning: {warning}")
    if call.flag("from-credentials-file"):
        path = aws_credentials(call.environ)
        call.say(f"the key is still in {path} in clear: delete its section [{name}] there")
    call.say("next: vault-client list shows the profiles; vault-client use PROFILE points this shell at one")
    return 0


def _check_name(name: str) -> None:
    """As the daemon will take it: it is one word of every command that names it."""
    if name.startswith("-") or len(name) > _LONGEST_NAME or "/" in name or "\\" in name:
        raise Stop(f"no key is stored under a name like {clean(brief(name))}: choose one of up to {_LONGEST_NAME} "
                   f"characters without / and \\ that does not begin with -, and write it as source_profile",
                   USAGE)  # fmt: skip


def _source(call: Call) -> Callable[[Call], dict[str, str]]:
    sources = {"stdin": _from_stdin, "from-env": _from_env, "from-credentials-file": _from_file}
    given = [name for name in sources if call.flag(name)]
    if len(given) > 1:
        raise Stop(f"add: --{given[0]} and --{given[1]} exclude each other: choose one", USAGE)
    return sources[given[0]] if given else _from_terminal


def _refuse_existing(call: Call, name: str) -> None:
    identity = _listed(call, name)
    if identity is not None:
        raise Stop(
            f"{name} is stored already (key …{identity.get('access_key_id')}): to put another key in its place, "
            f"type `vault-client add {typed(name)} --replace`"
        )


def _agree_to_replace(call: Call, name: str) -> None:
    """The daemon refuses while the rotation can be gone on with; where it cannot, that goes (aws-facts §2.1)."""
    identity = _listed(call, name)
    lost = "" if identity is None else _lost(identity)
    if identity is None or not lost:
        return
    call.say(f"the key of {clean(name)} is being rotated, so it is replaced only where AWS does not take it any more "
             f"or the store has lost it, and with it goes what its rotation keeps: {lost}; to end the rotation first, "
             f"type `vault-client rotate {typed(name)}{_ending(identity)}`")  # fmt: skip
    _ask(call, f"replace the key of {clean(name)}, key …{clean(identity.get('access_key_id') or '????')}? [y/N] ",
         again=f"`vault-client add {typed(name)} --replace", otherwise=_NOTHING, needs_person=True)  # fmt: skip


def _listed(call: Call, name: str) -> dict[str, Any] | None:
    """The daemon's object."""
    listed = call.link.call("GET", "/v1/identities")["identities"]
    return next((each for each in listed if each.get("name") == name), None)


def _ask(call: Call, question: str, *, again: str, otherwise: str, needs_person: bool) -> None:
    """Raises Stop unless a person agrees on a terminal; --yes has. Where there is none, `needs_person` says whether a
    script goes on without. `again` is the command, without its closing mark; `otherwise`: what did not happen.
    """
    if call.flag("yes"):
        return
    terminal = Terminal.find(f"{again}`")
    if terminal is None:
        if needs_person:
            raise Stop(f"{otherwise}, as there is no terminal to ask on: type {again} --yes`", NEEDS_PERSON)
        return
    with terminal:
        yes = terminal.agrees(question, cancelled=otherwise)
    if not yes:
        raise Stop(f"{otherwise}: to do it after all, type {again}`")


def stored(call: Call, path: str, body: dict[str, Any], *, again: str, cancelled: str = "") -> dict[str, Any]:
    """The stored identity. Where AWS lists several devices, the person chooses one (aws-facts §2.2). `again`: what to
    type when he leaves the question; `cancelled` as for Terminal.ask.
    """
    try:
        return _post(call, path, body)
    except Refusal as refusal:
        serials = refusal.body.get("mfa_serials")
        if not isinstance(serials, list) or not serials:
            raise
        terminal = Terminal.find(again)
        if terminal is None:
            raise
        return _post(call, path, {**body, "MfaSerial": _choice(list(map(str, serials)), terminal, cancelled)})


def _post(call: Call, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = call.link.call("POST", path, body)
    return answer


def _choice(serials: list[str], terminal: Terminal, cancelled: str) -> str:
    with terminal:
        rows = "".join(f"  {number}  {clean(serial)}\n" for number, serial in enumerate(serials, 1))
        terminal.write(f"several MFA devices are registered:\n{rows}")
        while True:
            typed = terminal.ask("number of the one to use: ", cancelled=cancelled).strip()
            if typed.isascii() and typed.isdigit() and 1 <= int(typed) <= len(serials):
                return serials[int(typed) - 1]
            terminal.write(f"type a number from 1 to {len(serials)}\n")


def _device(identity: dict[str, Any]) -> str:
    serial = identity.get("mfa_serial")
    return f"MFA device {serial}" if serial else "no MFA device"


def _again(call: Call) -> str:
    replace = " --replace" if call.flag("replace") else ""
    return f"`vault-client add {typed(call.operands[0])}{replace}` again"


def _from_terminal(call: Call) -> dict[str, str]:
    terminal = Terminal.find(_again(call))
    if terminal is None:
        raise Stop(
            f"there is no terminal to ask for the key on: type `vault-client add {typed(call.operands[0])}` in "
            f"one, or give the key as JSON with --stdin",
            NEEDS_PERSON,
        )
    status = call.link.call("GET", "/v1/status")
    if status.get("locked"):  # before a secret is typed that could not be stored
        raise Stop(clean(status.get("locked_reason")))
    with terminal:
        terminal.write(f"The access key of {clean(call.operands[0])}; what you type is not shown.\n")
        key_id = terminal.ask("Access key ID: ", cancelled=_NOTHING).strip()
        _check_key_id(key_id)  # before the secret is typed
        secret = terminal.ask("Secret access key: ", cancelled=_NOTHING).strip()
        return {"AccessKeyId": key_id, "SecretAccessKey": secret}


def _from_stdin(_: Call) -> dict[str, str]:
    import json

    try:
        body = json.loads(sys.stdin.read(64 * 1024))
    except ValueError:
        body = None
    known = {"AccessKeyId", "SecretAccessKey", "MfaSerial"}
    if not isinstance(body, dict) or not all(isinstance(value, str) for value in body.values()) or set(body) - known:
        raise Stop('stdin is not one JSON object {"AccessKeyId", "SecretAccessKey", "MfaSerial"?}: correct it and try '
                   "again", USAGE)  # fmt: skip
    return body


def _from_env(call: Call) -> dict[str, str]:
    if call.environ.get("AWS_SESSION_TOKEN"):
        raise Stop("AWS_SESSION_TOKEN is set, so the key in the environment is a temporary one: set a long-term key, "
                   "or type it without --from-env")  # fmt: skip
    return {
        "AccessKeyId": call.environ.get("AWS_ACCESS_KEY_ID", ""),
        "SecretAccessKey": call.environ.get("AWS_SECRET_ACCESS_KEY", ""),
    }


def _from_file(call: Call) -> dict[str, str]:
    path, name = aws_credentials(call.environ), call.operands[0]
    found = sections(path, otherwise="type the key without --from-credentials-file")
    if name not in found:
        named = ", ".join(clean(section) for section in found) or "none"
        raise Stop(f"{path} has no section [{name}] (it has: {named}): name one of them, or type the key in")
    section = found[name]
    if section.get("aws_session_token"):
        raise Stop(f"[{name}] in {path} holds a temporary key: name a section with a long-term one")
    return {
        "AccessKeyId": section.get("aws_access_key_id", ""),
        "SecretAccessKey": section.get("aws_secret_access_key", ""),
        **({"MfaSerial": section["mfa_serial"]} if section.get("mfa_serial") else {}),
    }


def checked(key: dict[str, str]) -> dict[str, str]:
    """Key id and secret; raises Stop for what has not the shape of a long-term key."""
    key_id, secret = key.get("AccessKeyId", "").strip(), key.get("SecretAccessKey", "").strip()
    _check_key_id(key_id)
    if not secret or not secret.isascii() or any(char.isspace() for char in secret):
        raise Stop("the secret access key is missing or has characters that no AWS key has: copy it again and retry")
    return {"AccessKeyId": key_id, "SecretAccessKey": secret}


def _check_key_id(key_id: str) -> None:
    if key_id.startswith("ASIA"):
        raise Stop("that is a temporary key (ASIA…), which ends by itself: give the user's long-term key (AKIA…)")
    if not 16 <= len(key_id) <= 128 or any(char not in _KEY_ID for char in key_id):
        raise Stop("that is no access key ID (16 or more capital letters and digits): copy it again and retry")


def identities(call: Call) -> int:
    """A table of the stored keys."""
    body = call.link.call("GET", "/v1/identities")
    if call.flag("json"):
        call.json(body)
        return 0
    if not body["identities"]:
        call.say("no key is stored: type `vault-client add IDENTITY`")
        return 0
    rows = [
        (each["name"], each.get("account_id"), each.get("user_arn"), each.get("mfa_serial"),
         f"…{each.get('access_key_id') or '????'}", _age(each), local(each.get("created")))
        for each in body["identities"]
    ]  # fmt: skip
    heads = ("IDENTITY", "ACCOUNT", "USER", "MFA DEVICE", "KEY", "AGE", "STORED")
    call.out(table(heads, rows, Ink(sys.stdout, os.environ)))
    for reminder in body.get("reminders") or ():
        call.say(str(reminder))
    return 0


def _age(identity: dict[str, Any]) -> str:
    """`100d`, or `≥ 3d` where AWS has not told yet when the key was made."""
    days = identity.get("key_age_days")
    if not isinstance(days, int):
        return ""
    return f"{days}d" if identity.get("key_created") else f"≥ {days}d"


def remove(call: Call) -> int:
    """Forget a key, once a person on a terminal has agreed to what is lost."""
    name = call.operands[0]
    _consent(call, name)
    call.link.call("DELETE", f"/v1/identities/{quoted(name)}")
    call.say(f"removed {name}, its sessions and the grants that needed it; the key itself still works at AWS until it "
             f"is deleted there")  # fmt: skip
    return 0


def _consent(call: Call, name: str) -> None:
    """A script goes on without, unless a rotation is kept: what only vaultd knows of that goes, too."""
    identity = _listed(call, name)
    if identity is None:  # the daemon says what was meant
        return
    lost = _lost(identity)
    if lost:
        call.say(f"with {clean(name)} goes what its rotation keeps: {lost}; to end the rotation first, type "
                 f"`vault-client rotate {typed(name)}{_ending(identity)}`")  # fmt: skip
    ending = clean(identity.get("access_key_id") or "????")
    what = "" if lost else " (its secret may be stored nowhere else)"
    _ask(
        call,
        f"remove {clean(name)}, key …{ending}{what}? [y/N] ",
        again=f"`vault-client remove {typed(name)}",
        otherwise="nothing was removed",
        needs_person=bool(lost),
    )


def _rotation(identity: dict[str, Any]) -> dict[str, Any]:
    found = identity.get("rotation")
    return found if isinstance(found, dict) else {}


def _lost(identity: dict[str, Any]) -> str:
    rotation = _rotation(identity)
    keys = {key: clean(rotation.get(key)) for key in ("old_key", "new_key")}
    return _LOST.get(str(rotation.get("stage")), "how far it is" if rotation else "").format(**keys)


def _ending(identity: dict[str, Any]) -> str:
    """How a rotation ends now: once the new key is in use the old one would wait for its grace."""
    return " --grace 0s" if _rotation(identity).get("stage") in {"swapped", "inactive", "reactivated"} else ""
