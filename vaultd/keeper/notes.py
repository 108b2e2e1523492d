"""What the broker wants kept over a restart: role sessions, learned limits, accepted durations, the audit head.

Rule: records of a cell are `cell:FINGERPRINT:KIND`; a session that is dead, does not read, or came from a time when
sessions were kept leaves the log at open.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from vaultd.engine.seams import Head, Note
from vaultd.keeper import codec
from vaultd.keeper.records import Records

_CELL = "cell:"
_HEAD = "head"


def living_notes(
    records: Records, living: Mapping[str, bytes], *, now: datetime, persist: bool
) -> tuple[tuple[Note, ...], Head | None]:
    """The notes for `Opened`, and the head last sealed."""
    notes: list[Note] = []
    for key in [key for key in living if key.startswith(_CELL)]:
        note = _note(key, living[key], now=now, persist=persist)
        if note is not None:
            notes.append(note)
        else:
            records.keep(key, None)
    return tuple(notes), codec.head_of(living[_HEAD]) if _HEAD in living else None


def seal_note(records: Records, note: Note, *, persist: bool) -> None:
    """All kinds but drop_mfa; raises Unwritable."""
    if note.kind == "drop":
        records.seal(_cell(note.cell, "session"), None)
        records.compact()
    elif note.kind == "head":
        seal_head(records, note.head)
    elif note.session is not None:
        if persist:
            records.seal(_cell(note.cell, "session"), codec.session_record(note.session))
    elif note.seconds is not None:
        records.seal(_cell(note.cell, note.kind), codec.seconds_record(note.seconds))


def seal_head(records: Records, head: Head | None) -> None:
    """The audit head; None changes nothing."""
    if head is not None:
        records.seal(_HEAD, codec.head_record(head))


def _cell(cell: str, kind: str) -> str:
    return f"{_CELL}{cell}:{kind}"


def _note(key: str, record: bytes, *, now: datetime, persist: bool) -> Note | None:
    cell, _, kind = key.removeprefix(_CELL).rpartition(":")
    if kind == "session":
        session = codec.session_of(record) if persist else None
        return Note("session", cell, session=session) if session is not None and session.servable(now) else None
    seconds = codec.seconds_of(record)
    if seconds is None:
        return None
    if kind == "limit":
        return Note("limit", cell, seconds=seconds)
    return Note("duration", cell, seconds=seconds) if kind == "duration" else None
