"""The two clocks: logical (codes, MFA age, expiry; a test moves it) and wire (signatures, the Date header; real time).

Advancing one clock for both would break every SigV4 signature, which botocore dates by the real time (scenarios §4.2).
"""

from datetime import UTC, datetime, timedelta
from typing import Protocol


class TimeSource(Protocol):
    """Whatever tells the logical time; the product's FakeClock does."""

    def now(self) -> datetime:
        """The logical time, UTC-aware."""
        ...


class LogicalClock:
    """Wall time plus an offset that a test sets."""

    def __init__(self) -> None:
        self._offset = timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self._offset

    def set(self, moment: datetime) -> None:
        """Makes it `moment` now; the clock runs on from there."""
        self._offset = moment - datetime.now(UTC)

    def advance(self, by: timedelta | float) -> None:
        """Moves the clock by a timedelta or seconds, backwards too."""
        self._offset += by if isinstance(by, timedelta) else timedelta(seconds=by)


class WireClock:
    """Real time plus a skew: what AWS's front door compares a signature's date with."""

    def __init__(self) -> None:
        self.skew = timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.skew


def stamp(moment: datetime) -> str:
    """A time as STS writes it: whole seconds and Z."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(value: str | float) -> datetime:
    """ISO text or epoch seconds → UTC-aware time. Raises ValueError."""
    if isinstance(value, str):
        parsed = datetime.fromisoformat(value)
        return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    return datetime.fromtimestamp(value, UTC)
