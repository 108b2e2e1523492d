"""Cool-downs: how long a person is not asked again after a no, or after refused codes.

Rules
- One for each device, or program at a profile; a lock does not end it. Counted by boottime (architecture.md §8.9).
- A code given unasked (`--token-code`), and a bare `vault-client mfa`, end one that is 30 s old (interface.md §3). That
  is the duration that a person is told; the keeper's own limit no code ends, so its duration is told whole.
"""

from __future__ import annotations

from dataclasses import dataclass

from vaultd.engine.questions import Key
from vaultd.engine.seams import Clock
from vaultd.errors import TooManyAttempts
from vaultd.model.text import typed

#: A cool-down of this age ends when a code is given unasked (interface.md §3).
THAW_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class _Cooldown:
    since: float
    until: float
    why: str
    whole: bool


class Cooldowns:
    """The table."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._running: dict[Key, _Cooldown] = {}

    def begin(self, device: Key, why: str, seconds: float, *, whole: bool = False) -> None:
        """From now on; one that runs is replaced. `whole`: a code sooner than that would be refused all the same."""
        boot = self._clock.boottime()
        self._running = {key: each for key, each in self._running.items() if boot < each.until}
        self._running[device] = _Cooldown(since=boot, until=boot + seconds, why=why, whole=whole)

    def end(self, device: Key) -> None:
        """A code was good."""
        self._running.pop(device, None)

    def thaw(self, device: Key) -> None:
        """End one that is 30 s old."""
        cooldown = self._running.get(device)
        if cooldown is not None and self._clock.boottime() - cooldown.since >= THAW_SECONDS:
            del self._running[device]

    def check(self, device: Key) -> None:
        """Raises TooManyAttempts while one runs."""
        if (refusal := self.refusal(device)) is not None:
            raise refusal

    def refusal(self, device: Key) -> TooManyAttempts | None:
        """What is said while one runs."""
        cooldown, boot = self._running.get(device), self._clock.boottime()
        if cooldown is None:
            return None
        if boot >= cooldown.until:
            del self._running[device]
            return None
        wait = whole_seconds(cooldown.until - boot)
        if not isinstance(device[1], str):
            remedy = f"wait {wait} s, run the program again, and allow it with `vault-client mfa`"
            return TooManyAttempts(f"{cooldown.why}: {remedy}.", retry_after_seconds=wait)
        told = wait if cooldown.whole else min(wait, whole_seconds(cooldown.since + THAW_SECONDS - boot))
        remedy = f"{f'wait {told} s, then ' if told > 0 else ''}type `vault-client mfa {typed(device[0])}`"
        return TooManyAttempts(f"{cooldown.why}: {remedy}.", retry_after_seconds=wait)


def whole_seconds(left: float) -> int:
    """Rounded up: "wait 0 s" would be a lie."""
    return int(-(-left // 1))
