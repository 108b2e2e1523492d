"""`vaultd check --audit`: the audit log's proof, read from the files here, its end asked of the daemon.

Rules
- The files are this user's own and are read by this process: what a daemon says of them would prove nothing more.
- Where they must end only the daemon knows, which has the head in memory and sealed; without one it is said that the
  end could not be checked, and a chain that is whole so far is no failure.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from vault_client.errors import Stop
from vault_client.link import Link
from vaultd.command import running
from vaultd.engine.audit_proof import BEGUN_ANEW, Proof, examine
from vaultd.engine.seams import Head
from vaultd.errors import VaultdError
from vaultd.files import Files
from vaultd.layout import Layout
from vaultd.model.text import counted

#: The daemon flushes, and reads what it checks.
_SECONDS = 60


def run(*, json_wanted: bool) -> int:
    """Print the proof; 1 when anything is not as it was written."""
    head, check = _asked()
    layout = Layout.find(os.environ)
    try:
        proof = _examined(layout.audit_jsonl, head)
    except VaultdError as exc:
        if not json_wanted:
            raise
        print(json.dumps({"checks": [_refused(exc)], "audit": None}))
        return exc.exit
    if missing := proof.missing(layout.audit_jsonl, used=layout.identities_json.exists()):
        found = {"name": "audit", "ok": False, "message": missing, "remedy": BEGUN_ANEW}
    else:
        found = _check(proof, head, check)
    if json_wanted:
        print(json.dumps({"checks": [found], "audit": _wire(proof, head)}))
    else:
        _print(found, proof)
    return 0 if found["ok"] else 1


def _examined(path: Path, head: Head | None) -> Proof:
    """Raises FileRefused and Misconfigured of Files.read."""
    proof = examine(Files(), path, head=head)
    # looked at twice: a running daemon may rotate the files under the first look
    return examine(Files(), path, head=head) if proof.breaches else proof


def _refused(exc: VaultdError) -> dict[str, Any]:
    """The file itself is not ours to read."""
    message, _, remedy = exc.message.rpartition(": ")
    return {"name": "audit", "ok": False, "message": message, "remedy": remedy.removesuffix(".")}


def _asked() -> tuple[Head | None, dict[str, Any] | None]:
    """Where the files must end, and what the daemon found when it opened them; None of both without a daemon."""
    if running.answer() is None:  # asked first: one that hangs would hold this up for a minute, a unit be started
        return None, None
    link = Link(running.places())
    try:
        head = link.call("GET", "/v1/audit?n=0", seconds=_SECONDS)["head"]
        checks = link.call("GET", "/v1/checks", seconds=_SECONDS)["checks"]
    except Stop:
        return None, None
    audit = next((each for each in checks if each["name"] == "audit"), None)
    return Head(int(head["seq"]), str(head["digest"])), audit


def _check(proof: Proof, head: Head | None, check: dict[str, Any] | None) -> dict[str, Any]:
    """{name, ok, message, remedy} of interface.md §2: the daemon's own where it knows of more than the files show."""
    if not proof.breaches and check is not None and not check["ok"]:
        return check
    if proof.breaches:
        more = f", and {len(proof.breaches) - 1} more" if len(proof.breaches) > 1 else ""
        remedy = "keep a copy of the files, then see what is left with `vault-client log`"
        return {"name": "audit", "ok": False, "message": f"{_told(proof.breaches[0].message)}{more}", "remedy": remedy}
    lines = f"{counted(proof.lines, 'line')} in {counted(len(proof.files), 'file')}, {proof.first} to {proof.last}"
    end = "" if head is not None else f"; where it should end {_unknown()}"
    return {"name": "audit", "ok": True, "message": f"the chain is whole: {lines}{end}", "remedy": ""}


def _unknown() -> str:
    """Why nobody says where the log ends, and what to type."""
    silent = running.silent()
    return f"is not known: {silent}" if silent else "is known once vaultd runs: type `vaultd start`"


def _told(sentence: str) -> str:
    """Without the remedy, which the check gives in its own place."""
    return sentence.rpartition(": keep a copy")[0] or sentence.rpartition("; see what")[0] or sentence


def _wire(proof: Proof, head: Head | None) -> dict[str, Any]:
    """{files, lines, first, last, end_known, breaches:[{kind, file, line, seq, message}]}."""
    return {
        "files": [str(each) for each in proof.files],
        "lines": proof.lines,
        "first": proof.first,
        "last": proof.last,
        "end_known": head is not None,
        "breaches": [each.wire() for each in proof.breaches],
    }


def _print(found: dict[str, Any], proof: Proof) -> None:
    print(f"{'ok  ' if found['ok'] else 'BAD '} {found['name']:<12} {found['message']}")
    for each in proof.breaches:
        print(f"     {each.kind:<12} {each.message}")
    if found["remedy"]:
        print(f"     {'':<12} → {found['remedy']}")
