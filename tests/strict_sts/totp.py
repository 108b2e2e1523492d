"""MFA devices: RFC 6238 codes, accepted once; wrong, reused and stale look alike (aws-facts §1.5 row 1)."""

import base64
import hashlib
import hmac
import struct
from dataclasses import dataclass, field
from datetime import datetime

STEP_SECONDS = 30


def code_at(seed: str, step: int) -> str:
    """The six digits that a device with this base32 seed shows in that step."""
    key = base64.b32decode(seed + "=" * (-len(seed) % 8), casefold=True)
    digest = hmac.new(key, struct.pack(">Q", step), hashlib.sha1).digest()
    at = digest[-1] & 0x0F
    number = struct.unpack(">I", digest[at : at + 4])[0] & 0x7FFFFFFF
    return f"{number % 1_000_000:06d}"


def step_of(moment: datetime) -> int:
    """The number of the 30-second step that holds this moment."""
    return int(moment.timestamp()) // STEP_SECONDS


@dataclass
class Device:
    """One MFA device of one user; `kind` u2f is a passkey, which STS never takes (aws-facts §1.1)."""

    serial: str
    user: str
    kind: str
    seed: str
    enabled: datetime
    used: set[int] = field(default_factory=set)

    def code(self, moment: datetime, *, step: int = 0) -> str:
        return code_at(self.seed, step_of(moment) + step)

    def consume(self, code: str, moment: datetime, *, window: int) -> int | None:
        """Verifies and spends in one turn: the step it was spent for, or None for wrong, reused and stale alike."""
        here = step_of(moment)
        for step in range(here - window, here + window + 1):
            if step not in self.used and hmac.compare_digest(code_at(self.seed, step), code):
                self.used.add(step)
                return step
        return None
