"""Which token codes were sent for which device, and when; the last gate before a second time.

Rules (aws-facts §1.3(6), (7); security.md §2.1 item 17)
- A code is written down as sent before the call: after a kill in flight it counts as sent. It is kept as an HMAC under
  the data key, never as itself.
- A code that was sent is refused for as long as it is remembered: 10 minutes, and a phone shows it for 90 s at most.
- Only a clean Throttling un-marks a code, twice at most.
- At most 6 codes in 10 minutes for one device.
"""

from __future__ import annotations

import hmac
import json
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


@dataclass(frozen=True, slots=True)
class Sent:
    """One code of one device. `spent` False: un-marked after a Throttling, of which there were `throttled`."""

    serial: str
    mac: str
    at: datetime
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

    def open(self, data_key: Secret, living: Mapping[str, bytes]) -> None:
        """Reread what was sent before; what is older than the memory leaves the log."""
        self._data_key = data_key
        for key in [key for key in living if key.startswith(_PREFIX)]:
            serial = key.removeprefix(_PREFIX)
            self._sent[serial] = self._remembered(_read(serial, living[key]))
            if not self._sent[serial]:
                self._records.keep(key, None)

    def close(self) -> None:
        """Forget them; the log remembers."""
        self._data_key = None
        self._sent.clear()

    def spend(self, serial: str, code: Secret) -> Sent:
        """Write `code` (six_digits) down as sent; raises CodeSpent or TooManyAttempts, and nothing may be sent then."""
        now = self._clock.now()
        known = self._remembered(self._sent.get(serial, ()))
        mac = self._mac(serial, code)
        before = next((each for each in known if hmac.compare_digest(each.mac, mac)), None)
        if before is not None and before.spent:
            raise _spent(serial, now)
        spent = [each for each in known if each.spent]
        if len(spent) >= _LIMIT:
            raise _too_many(serial, spent[0].at + _MEMORY - now)
        sent = replace(before, spent=True) if before else Sent(serial, mac, now)
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
        """Both ways: a clock that was years ahead must not lock a device for years."""
        now = self._clock.now()
        return tuple(sorted((each for each in known if abs(now - each.at) < _MEMORY), key=lambda each: each.at))

    def _mac(self, serial: str, code: Secret) -> str:
        if self._data_key is None:
            raise AssertionError  # the keeper is open whenever a code is spent
        message = b"vaultd token code\0" + serial.encode() + b"\0" + code.reveal_bytes()
        return hmac.new(self._data_key.reveal_bytes(), message, "sha256").hexdigest()


def _read(serial: str, record: bytes) -> tuple[Sent, ...]:
    try:
        lines = json.loads(record)["sent"]
        return tuple(
            Sent(serial, str(mac), datetime.fromisoformat(at), bool(spent), int(n)) for mac, at, spent, n in lines
        )
    except (ValueError, KeyError, TypeError):  # a later version wrote it
        return ()


def _spent(serial: str, now: datetime) -> CodeSpent:
    wait = _STEP - int(now.timestamp()) % _STEP
    return CodeSpent(
        f"that code of {shown(serial)} was sent before; wait {wait} s for the next one and type that",
        retry_after_seconds=wait,
    )


def _too_many(serial: str, left: timedelta) -> TooManyAttempts:
    wait = max(1, int(left.total_seconds()) + 1)
    return TooManyAttempts(
        f"{_LIMIT} codes were sent for {shown(serial)} in 10 minutes; wait {wait} s, then run `vault-client mfa`",
        retry_after_seconds=wait,
    )
