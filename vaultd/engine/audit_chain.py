"""The lines of `audit.jsonl` and the chain that binds them (interface.md §8).

Rules
- `prev` is the lower-case hex SHA-256 of the previous line's bytes without its newline, 64 zeros in the first; `seq`
  counts from 1; both go on over rotation (`audit.jsonl.1` is the file before, `.2` the one before that).
- A chain shows edits, deletions and reorderings; a cut tail is shown only by the head, which is kept sealed. Code of
  the same user that can read the keyring can forge both (security.md §2.2 item 28).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from vaultd.engine.seams import Head
from vaultd.files import Files

FIELDS = (
    "time",
    "event",
    "profile",
    "identity",
    "account_id",
    "role_arn",
    "role_session_name",
    "grant",
    "peer",
    "access_key_id",
    "expiration",
    "decision",
    "reason",
    "count",
    "aws_request_id",
    "seq",
    "prev",
)
FIRST = "0" * 64
#: Events that nothing but an open store brings about.
_TAKES_A_STORE = {"credentials.serve", "grant.create", "identity.add", "identity.remove", "mfa.answer", "session.renew"}
#: No line was ever numbered higher; one more than 4,300 digits could not even be written.
_HIGHEST = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of the chain on disk. `size` is the current file's whole lines in bytes, `torn` the bytes after them."""

    head: Head
    size: int
    torn: int
    damaged: int


def line_of(fields: Mapping[str, Any], *, after: Head) -> bytes:
    """The line that follows `after`, every field in the contract's order, null where it has no value."""
    chained = {**fields, "seq": after.seq + 1, "prev": after.digest}
    return json.dumps({name: chained.get(name) for name in FIELDS}, separators=(",", ":")).encode()


def digest_of(line: bytes) -> str:
    """What the next line's `prev` is."""
    return sha256(line).hexdigest()


def parsed(line: bytes) -> dict[str, Any] | None:
    """The line as an object with a number and an event's name; None when it is damaged."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("event"), str):
        return None
    seq = found.get("seq")
    return found if type(seq) is int and abs(seq) <= _HIGHEST else None


def older(path: Path, number: int) -> Path:
    """The file that was rotated away `number` rotations ago; 0 is the current one."""
    return path if number == 0 else path.with_name(f"{path.name}.{number}")


def kept(path: Path) -> list[Path]:
    """Every file of the chain that is there, the newest first."""
    numbers = [found.name.removeprefix(f"{path.name}.") for found in path.parent.glob(f"{path.name}.*")]
    return [older(path, number) for number in sorted({0, *(int(each) for each in numbers if each.isdecimal())})]


def read_tail(files: Files, path: Path) -> Tail:
    """Where the chain goes on. Raises FileRefused and Misconfigured of Files.read."""
    content = files.read(path) or b""
    size = content.rfind(b"\n") + 1
    head, damaged = Head(seq=0, digest=FIRST), 0
    for each in (content[:size], *(files.read(other) or b"" for other in kept(path)[1:2])):
        head, damaged = _end(each)
        if head.seq:
            break
    return Tail(head=head, size=size, torn=len(content) - size, damaged=damaged)


def _end(content: bytes) -> tuple[Head, int]:
    damaged = 0
    lines = content.splitlines()
    for line in reversed(lines):
        if (found := parsed(line)) is not None:
            return Head(seq=found["seq"] + damaged, digest=digest_of(lines[-1])), damaged
        damaged += 1
    return Head(seq=damaged, digest=digest_of(lines[-1]) if lines else FIRST), damaged


def lines_backwards(files: Files, path: Path) -> Iterator[bytes]:
    """Every whole line, the last one first."""
    for each in kept(path):
        content = files.read(each) or b""
        yield from reversed(content[: content.rfind(b"\n") + 1].splitlines())


def compare(files: Files, path: Path, head: Head, *, now: Head) -> tuple[str, ...]:
    """Sentences on what the sealed head says against the files, which end in `now`; none: they agree."""
    if head.seq > now.seq:
        said = f"it ends with line {now.seq}, line {head.seq} had been written"
        return (f"The audit log {path} was cut: {said}; see what is left with `vault-client log`.",)
    marker = f'"seq":{head.seq},'.encode()
    lowest = now.seq
    for line in lines_backwards(files, path):
        if marker in line:
            return () if digest_of(line) == head.digest else (_rewritten(path, head.seq),)
        if (found := parsed(line)) is not None:
            lowest = found["seq"]
        if lowest < head.seq:
            return (_rewritten(path, head.seq),)
    return ()  # rotated away since, or sealed before the first line


def older_seal(files: Files, path: Path, head: Head) -> tuple[str, ...]:
    """A sentence where `sessions.sealed` is an older one, put back: each life seals the log's end as soon as its store
    is open, so behind the head no life can have begun and done what takes an open store.
    """
    opened = False
    for line in lines_backwards(files, path):
        found = parsed(line) or {}
        if found.get("seq", head.seq + 1) <= head.seq:
            return ()
        opened = opened or (found.get("event") in _TAKES_A_STORE and found.get("decision") != "deny")
        if opened and found.get("event") == "start":
            said = f"it knows of line {head.seq} of the audit log, and vaultd was open after line {found['seq']}"
            return (f"sessions.sealed is not the one last written: {said}; see what happened with `vault-client log`.",)
    return ()


def _rewritten(path: Path, seq: int) -> str:
    return f"The audit log {path} was rewritten at line {seq}: see where with `vaultd check`."
