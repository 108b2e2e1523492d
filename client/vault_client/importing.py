"""`import`: keys that lie elsewhere, shown first, then verified and stored one by one, and at last deleted there.

Rules (security.md §3.2)
- One consent to a list that says of each key where it lies, what it will be called and what is in the way.
- Each key's outcome is a line of its own; one that fails leaves the others done, and the same command goes on later.
- The source of a key is deleted with --delete-source only, and only after the store gave that very key back.
"""

from __future__ import annotations

import os
import sys

from vault_client.cli import Call, brief
from vault_client.errors import NEEDS_PERSON, USAGE, Refusal, Stop
from vault_client.foreign import AwsCredentials, AwsVault, Row, again
from vault_client.tables import Ink, clean, table, typed
from vault_client.terminal import Terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Source = AwsCredentials | AwsVault

#: Wrong passphrases that a person may type.
_TRIES = 3
#: What the list says of a key, and whether something is to be done about it.
_STATES = {
    "new": "will be stored",
    "same": "is stored already",
    "taken": "another key has that name",
    "temporary": "temporary, left out",
    "wrong": "cannot be imported",
    "missing": "not there",
}
#: Of these nothing is stored whatever is answered, and the list says why.
_UNFIT = frozenset({"wrong", "missing", "old"})


def run(call: Call) -> int:
    """List, preview, one consent, then key by key; 1 when one of them failed."""
    source, delete = _source(call), call.flag("delete-source")
    try:
        rows = _meant(call, source, delete=delete)
    except KeyboardInterrupt:
        call.say(f"stopped: nothing was stored and nothing deleted; to go on, type `{again(call)}`")
        raise
    outcomes = _brought(call, source, rows, delete=delete)
    if call.flag("json"):
        call.json({"imports": outcomes})
    _advise(call, source, outcomes, delete=delete)
    return 1 if any(each["outcome"] == "failed" for each in outcomes) else 0


def _source(call: Call) -> Source:
    kind = call.operands[0]
    if kind not in {"aws-credentials", "aws-vault"}:
        raise Stop(f"import: keys are imported from aws-credentials or aws-vault, not from {brief(kind)}: type "
                   f"`vault-client import --help`", USAGE)  # fmt: skip
    return AwsVault(call) if kind == "aws-vault" else AwsCredentials(call)


def _meant(call: Call, source: Source, *, delete: bool) -> list[Row]:
    """The list, shown and agreed to."""
    rows = _rows(call, source, call.operands[1:])
    if rows:
        _preview(call, source, rows)
    else:
        call.say(f"{source.where} holds no long-term key: nothing is to be done")
    if meant := [row for row in rows if row.state == "new" or (row.state == "same" and delete)]:
        _agreed(call, source, meant, delete=delete)
    return rows


def _rows(call: Call, source: Source, names: list[str]) -> list[Row]:
    """Of each name a row, of no names all there are. A wrong passphrase may be typed again."""
    left = 1 if call.flag("stdin") else _TRIES
    while True:
        try:
            found = source.rows(names)
        except Refusal as refusal:
            left -= 1
            if refusal.code == "WrongPassphrase":  # the daemon knows no options of ours
                refusal.message = refusal.message.replace("`vault-client import aws-vault`", f"`{again(call)}`")
            if refusal.code != "WrongPassphrase" or not left:
                raise
            call.say(refusal.message)
            source.forget()
            continue
        listed = {row.name for row in found}
        return [*found, *(_missing(name, source) for name in dict.fromkeys(names) if name not in listed)]


def _missing(name: str, source: Source) -> Row:
    import difflib

    near = difflib.get_close_matches(brief(name), source.known(), n=3)
    meant = f" (did you mean {', '.join(map(clean, near))}?)" if near else ""
    message = f"no such key is there{meant}; type `vault-client import {source.name}` to see what is"
    return Row(name, "", "", "missing", message)


def _preview(call: Call, source: Source, rows: list[Row]) -> None:
    cells = [(row.name, f"…{row.ending or '????'}", row.identity, _state(row)) for row in rows]
    call.say(f"in {source.where}:")
    sys.stderr.write(table(("NAME", "KEY", "IDENTITY", ""), cells, Ink(sys.stderr, os.environ)))
    sys.stderr.flush()
    for row in rows:  # before the question: who reads why may want to mend it first
        if row.state in _UNFIT:
            call.say(f"{clean(row.name)}: {row.message}")


def _state(row: Row) -> str:
    if row.state == "old":
        return f"the old key of {row.like}"
    return f"{_STATES[row.state]}; same key as {row.like}" if row.like else _STATES[row.state]


def _agreed(call: Call, source: Source, meant: list[Row], *, delete: bool) -> None:
    """The one consent; raises Stop for a no, and where nobody can be asked."""
    if delete:
        sys.stderr.write(source.doomed(meant))
        sys.stderr.flush()
    if call.flag("yes"):
        return
    agreed = f"`{again(call)} --yes`"
    terminal = Terminal.find(agreed)
    if terminal is None:
        raise Stop(f"nothing was stored, as there is no terminal to ask on: type {agreed}", NEEDS_PERSON)
    what = f"{len(meant)} key{'s' if len(meant) > 1 else ''}"
    then = " and delete there" if delete else ""
    with terminal:
        yes = terminal.agrees(f"import {what}{then}? [y/N] ")
    if not yes:
        raise Stop(f"nothing was stored and nothing deleted: to do it after all, type `{again(call)}`")


# ---- key by key ----


def _brought(call: Call, source: Source, rows: list[Row], *, delete: bool) -> list[dict[str, Any]]:
    outcomes: list[dict[str, Any]] = []
    under_way = ""
    try:
        for row in rows:
            under_way = row.name
            outcome = _one(call, source, row, delete=delete)
            outcomes.append(outcome)
            under_way = ""
            if row.state not in _UNFIT:  # the list has said why
                call.say(f"{clean(row.name)}: {outcome['message']}")
    except KeyboardInterrupt:
        done = [each["name"] for each in outcomes if each["outcome"] == "stored"]
        stored = f"stored so far: {', '.join(map(clean, done))}" if done else "nothing was stored"
        # what the daemon has begun it ends, whoever has gone
        maybe = f"; {clean(under_way)} was under way and may be done, too" if under_way else ""
        call.say(f"stopped: {stored}{maybe}; to go on, type `{again(call)}`")
        raise
    return outcomes


def _one(call: Call, source: Source, row: Row, *, delete: bool) -> dict[str, Any]:
    """What became of one key. A daemon that is away or locked ends the whole command: every other would fail, too."""
    told: dict[str, Any] = {"name": row.name, "identity": row.identity, "access_key_id": row.ending, "deleted": False}
    if row.state in {*_UNFIT, "taken", "temporary"}:
        return {**told, "outcome": "skipped" if row.state == "temporary" else "failed", "message": _why(row)}
    try:
        said = "is stored already" if row.state == "same" else _stored(call, source, row)
        outcome = "same" if row.state == "same" else "stored"
    except Refusal as refusal:
        if refusal.code in {"Locked", "ProtocolMismatch"}:
            raise
        return {**told, "outcome": "failed", "message": f"not stored: {_refused(call, source, refusal)}"}
    if not delete:
        return {**told, "outcome": outcome, "message": said}
    try:
        source.discard(row)
    except Stop as stop:
        if stop.exit_status == 69:
            raise
        return {**told, "outcome": "failed", "message": f"{said}, and not deleted in {source.where}: {stop.message}"}
    return {**told, "outcome": outcome, "deleted": True, "message": f"{said}, and deleted in {source.where}"}


def _refused(call: Call, source: Source, refusal: Refusal) -> str:
    """Of a key that AWS does not accept the daemon tells what `add` would; here nothing was typed."""
    if refusal.code != "IdentityBroken":
        return refusal.message
    return f"AWS does not accept that key: correct or delete it in {source.where} and type `{again(call)}`"


def _stored(call: Call, source: Source, row: Row) -> str:
    identity = source.store(row, again=f"`{again(call)}`")
    for warning in identity.get("warnings") or ():
        call.say(f"warning: {warning}")
    serial = identity.get("mfa_serial")
    device = f"MFA device {clean(serial)}" if serial else "no MFA device"
    return f"stored as {clean(identity['name'])}: {clean(identity.get('user_arn'))}, {device}"


def _why(row: Row) -> str:
    if row.state == "taken":
        # it may be the one that this one was rotated into, so nobody is told to remove it
        return (f"not stored, as another key is stored as {clean(row.identity)}, which stays in use; to see that, type "
                f"`vault-client identities`")  # fmt: skip
    return row.message


def _advise(call: Call, source: Source, outcomes: list[dict[str, Any]], *, delete: bool) -> None:
    """What is left to do, when something was done."""
    stored = [each["identity"] for each in outcomes if each["outcome"] in {"stored", "same"}]
    renamed = {each["identity"]: each["name"] for each in outcomes if each["outcome"] in {"stored", "same"}}
    for identity, name in renamed.items():
        if identity != name:
            call.say(f"{clean(name)} is called {clean(identity)} here: write source_profile = {clean(identity)} where "
                     f"~/.aws/config names it")  # fmt: skip
    if not stored:
        return
    if not delete:
        call.say(f"{source.left}: to delete what was stored, type `{again(call)} --delete-source`")
    call.say(f"{source.weak}: put a new key in its place with `vault-client rotate {typed(stored[0])}`"
             + (f", and so for {', '.join(map(clean, stored[1:]))}" if stored[1:] else ""))  # fmt: skip
