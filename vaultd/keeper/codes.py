"""Which token codes were sent for which device, and when; the last gate before a second time.

Rules (aws-facts §1.3(6), (7); security.md §2.1 item 17)
- A code is written down as sent before the call: after a kill in flight it counts as sent. It is kept as an HMAC under
  the data key, never as itself.
- A code that was sent is refused for as long as it is remembered: 10 minutes, and a phone shows it for 90 s at most.
  The wall clock may be set, so it is remembered until boottime says so too; over a restart only the wall clock knows.
- Where the log that should say which codes were sent was missing or damaged, none is sent for the first 30 s: by then
  every device shows another one. `codes` is the record by which a log is known to say it.
- Only a clean Throttling un-marks a code, twice at most.
- At most 6 codes in 10 minutes for one device.
"""

from __future__ import annotations

import hmac
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from vaultd.engine.seams import Clock
from vaultd.errors import CodeSpent, InvalidCode, TooManyAttempts
from vaultd.keeper.records import Records
from vaultd.model.secret import Secret
from vaultd.model.text import shown

_STEP = 30
_MEMORY = timedelta(minutes=10)
_LIMIT = 6
_RESENDS = 2
_PREFIX = "codes:"
_KNOWN = "codes"


@dataclass(frozen=True, slots=True)
class Sent:
    """One code of one device. `spent` False: un-marked after a Throttling, of which there were `throttled`.

    `at` is the wall time, `boot` the boottime of this boot; for what was sent before a start it is reckoned from `at`.
    """

    serial: str
    mac: str
    at: datetime
    boot: float
    spent: bool = True
    throttled: int = 0


def six_digits(code: Secret) -> Secret:
    """` 123 456 ` → `123456`; raises InvalidCode for all else, other scripts' digits included (aws-facts §1.4)."""
    text = "".join(code.reveal().split()) if code else ""
    if not re.fullmatch(r"[0-9]{6}", text):
        raise InvalidCode("the code must be six digits; type the six digits that the device shows")
    return Secret(text)


class Codes:
    """The codes sent, by serial. Open between the keeper's open and close."""

    def __init__(self, *, records: Records, clock: Clock) -> None:
        self._records = records
        self._clock = clock
        self._data_key: Secret | None = None
        self._sent: dict[str, tuple[Sent, ...]] = {}
        #: Boottimes over a lock, by serial and MAC: the log holds wall times only.
        self._boots: dict[tuple[str, str], float] = {}
        self._known = True
        self._free = 0.0

    def open(self, data_key: Secret, living: Mapping[str, bytes], *, expected: bool = False) -> bool:
        """Reread what was sent before; what is older than the memory leaves the log.

        `expected`: codes may have been sent from this home. False where the log does not say which: see the rules.
        """
        self._data_key = data_key
        self._known = _KNOWN in living
        self._free = self._clock.boottime() + (_STEP if expected and not self._known else 0)
        for key in [key for key in living if key.startswith(_PREFIX)]:
            serial = key.removeprefix(_PREFIX)
            self._sent[serial] = self._remembered(self._read(serial, living[key]))
            if not self._sent[serial]:
                self._records.keep(key, None)
        return self._known or not expected

    def vouch(self) -> None:
        """From now on the log says which codes were sent: at the first key, at a code, at the end of a longer life."""
        if not self._known and self._clock.boottime() >= self._free:
            self._known = self._records.keep(_KNOWN, b"1")

    def close(self) -> None:
        """Forget them; the log remembers."""
        self._data_key = None
        self._boots = {(each.serial, each.mac): each.boot for known in self._sent.values() for each in known}
        self._sent.clear()

    def spend(self, serial: str, code: Secret) -> Sent:
        """Write `code` (six_digits) down as sent; raises CodeSpent or TooManyAttempts, and nothing may be sent then."""
        now, boot = self._clock.now(), self._clock.boottime()
        if boot < self._free:
            raise _unknown(serial, self._free - boot)
        known = self._remembered(self._sent.get(serial, ()))
        mac = self._mac(serial, code)
        before = next((each for each in known if hmac.compare_digest(each.mac, mac)), None)
        if before is not None and before.spent:
            raise _spent(serial, now)
        spent = [each for each in known if each.spent]
        if len(spent) >= _LIMIT:
            raise _too_many(serial, min(self._left(each) for each in spent))
        sent = replace(before, spent=True) if before else Sent(serial, mac, now, boot)
        self.vouch()
        self._write(serial, (*(each for each in known if each.mac != mac), sent))
        return sent

    def unmark(self, sent: Sent) -> bool:
        """After a clean Throttling: True when the same code may go again."""
        if sent.throttled >= _RESENDS:
            return False
        freed = replace(sent, spent=False, throttled=sent.throttled + 1)
        known = self._sent.get(sent.serial, ())
        self._write(sent.serial, tuple(freed if each.mac == sent.mac else each for each in known))
        return True

    def _write(self, serial: str, known: tuple[Sent, ...]) -> None:
        """In memory whatever the disk says: a full disk must not keep a person from a session (interface.md §1)."""
        self._sent[serial] = known
        lines = [[each.mac, each.at.isoformat(), each.spent, each.throttled] for each in known]
        self._records.keep(_PREFIX + serial, json.dumps({"v": 1, "sent": lines}).encode())

    def _remembered(self, known: tuple[Sent, ...]) -> tuple[Sent, ...]:
        return tuple(sorted((each for each in known if self._left(each) > 0), key=lambda each: each.at))

    def _left(self, sent: Sent) -> float:
        """Seconds until it is forgotten, by the clock that says later. The wall clock both ways: one that was years
        ahead must not lock a device for years.
        """
        memory, wall = _MEMORY.total_seconds(), (self._clock.now() - sent.at).total_seconds()
        return max(memory - wall if abs(wall) < memory else 0, memory - (self._clock.boottime() - sent.boot))

    def _read(self, serial: str, record: bytes) -> tuple[Sent, ...]:
        try:
            lines = json.loads(record)["sent"]
            return tuple(
                Sent(serial, mac, at, self._boot_of(serial, mac, at), bool(spent), int(n))
                for mac, at, spent, n in (
                    (str(mac), datetime.fromisoformat(at), spent, n) for mac, at, spent, n in lines
                )
            )
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):  # a later version wrote it
            return ()

    def _boot_of(self, serial: str, mac: str, at: datetime) -> float:
        known = self._boots.get((serial, mac))
        age = min(abs(self._clock.now() - at), _MEMORY)
        return self._clock.boottime() - age.total_seconds() if known is None else known

    def _mac(self, serial: str, code: Secret) -> str:
        if self._data_key is None:
            raise AssertionError  # the keeper is open whenever a code is spent
        message = b"vaultd token code\0" + serial.encode() + b"\0" + code.reveal_bytes()
        return hmac.new(self._data_key.reveal_bytes(), message, "sha256").hexdigest()


def _spent(serial: str, now: datetime) -> CodeSpent:
    wait = _STEP - int(now.timestamp()) % _STEP
    return CodeSpent(
        f"that code of {shown(serial)} was sent before; wait {wait} s for the next one and type that",
        retry_after_seconds=wait,
    )


def _unknown(serial: str, left: float) -> CodeSpent:
    wait = max(1, math.ceil(left))
    return CodeSpent(
        f"which codes of {shown(serial)} were sent is not known, since sessions.sealed was missing or damaged; wait "
        f"{wait} s for the next one and type that",
        retry_after_seconds=wait,
    )


def _too_many(serial: str, left: float) -> TooManyAttempts:
    wait = max(1, int(left) + 1)
    return TooManyAttempts(
        f"{_LIMIT} codes were sent for {shown(serial)} in 10 minutes; wait {wait} s, then run `vault-client mfa`",
        retry_after_seconds=wait,
    )
