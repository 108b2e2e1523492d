"""A question to a person: as a terminal sees it, as the desk holds it while it is open, and what an answer came to.

Rule: every string that leaves here is fit for a terminal; no code is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from vaultd.engine.consents import Subject
from vaultd.errors import VaultdError
from vaultd.model.dialects import stamp
from vaultd.model.secret import Secret
from vaultd.model.text import shown

Ending = Literal["answered", "cancelled", "expired"]


@dataclass(frozen=True, slots=True)
class Question:
    """A question as a terminal sees it. `note` says why it is asked once more."""

    id: str
    kind: Literal["code", "consent"]
    identity: str
    mfa_serial: str
    profile: str
    requester: str
    attempts_left: int
    expires_at: datetime
    note: str = ""

    def wire(self) -> dict[str, Any]:
        """interface.md §6, every string fit for a terminal."""
        return {
            "id": self.id,
            "kind": self.kind,
            "identity": shown(self.identity),
            "mfa_serial": shown(self.mfa_serial),
            "profile": shown(self.profile),
            "requester": shown(self.requester),
            "attempts_left": self.attempts_left,
            "expires_at": stamp(self.expires_at),
            "note": shown(self.note),
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a code. No error: taken. `again`: the question stays open; `counted`: one attempt less.

    `mfa_serial`: the question has moved to another device of the same identity (aws-facts §1.5 row 3).
    """

    error: VaultdError | None = None
    again: bool = False
    counted: bool = False
    mfa_serial: str | None = None


#: Takes (question, code, who answered); the broker's side of a question. It never raises.
OnCode = Callable[[Question, Secret, str], Awaitable[Verdict]]
#: Hears of a consent's end: profile, identity, `allow` or `deny`, who answered.
OnConsent = Callable[[str, str, str, str], None]
Device = tuple[str, str]
#: What there is one question for: a device, or a program at a profile.
Key = Device | Subject


@dataclass(slots=True, eq=False)
class Open:
    """A question as the desk holds it, until it has ended."""

    question: Question
    purpose: str
    on_code: OnCode | None
    stays: bool
    deadline: float
    ended: asyncio.Future[Ending]
    askers: int = 0
    attended: bool = False
    landing: asyncio.Task[VaultdError | None] | None = None
    subject: Subject | None = None
    on_consent: OnConsent | None = None

    @property
    def abandoned(self) -> bool:
        """Opened by askers, and all of them have left."""
        return self.attended and self.askers == 0 and not self.stays

    @property
    def device(self) -> Key:
        """What it is the one question for."""
        return self.subject or (self.question.identity, self.question.mfa_serial)
