"""One AWS call from the loop's side: a thread, a deadline, our retry rule, the fallback region, the clock's skew.

Rules (aws-facts §1.3(6), §1.5 rows 13, 14 and 19)
- One attempt, but for what asks for more: STS calls are repeated by the engine alone, whose count of calls and
  back-off (D1, D2) would be multiplied by a second loop here. Repeats are jittered, and begin within 10 s.
- A call with a token code goes out once, whatever happens; a resent code reads as a wrong one (A10 is the one case
  where a code is sent again, and the keeper's).
- Where a fallback is set, a call without a code goes there at once, and a region found switched off is remembered
  for a day, so that the next code is not tried there first.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

from vaultd.aws.clients import Clients, Service, Signer
from vaultd.aws.threads import NotDone, Threads
from vaultd.aws.translate import Called, from_exception, unavailable
from vaultd.engine.seams import Clock
from vaultd.errors import RegionDisabled, StsUnavailable, VaultdError
from vaultd.model.partitions import Endpoint

log = logging.getLogger(__name__)

#: Seconds for a call with its retries (row 19; scenario A11).
DEADLINE = 10.0
_BACKOFF = 0.2
_OFF_FOR = 86400.0


@dataclass(frozen=True, slots=True)
class Request:
    """One operation. `parameters` is called in the thread, so that a revealed code exists nowhere else."""

    service: Service
    method: str
    called: Called
    signer: Signer
    parameters: Callable[[], Mapping[str, object]]
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came back: a reply or an error, and AWS's Date header with either."""

    reply: Mapping[str, Any] | None = None
    error: VaultdError | None = None
    date: str | None = None


class Calls:
    """Every call to AWS goes through here; loop only."""

    def __init__(
        self,
        *,
        clients: Clients,
        threads: Threads,
        clock: Clock,
        jitter: Callable[[], float] | None = None,
        deadline: float = DEADLINE,
    ) -> None:
        self._clients = clients
        self._threads = threads
        self._clock = clock
        self._jitter = jitter or secrets.SystemRandom().random
        self._deadline = deadline
        self._off: dict[tuple[Service, str], float] = {}
        self._skew: float | None = None

    @property
    def skew(self) -> float | None:
        """Seconds by which this machine is ahead of AWS, by the last reply's Date header (whole seconds)."""
        return self._skew

    async def warm(self) -> None:
        """Import botocore in a thread, so that the first call need not (architecture.md §5)."""
        await self._threads.run(self._clients.warm, deadline=60.0)

    async def call(self, request: Request, *, endpoint: Endpoint) -> Mapping[str, Any]:
        """The reply; raises the errors of aws-facts §1.5."""
        endpoint = self._region(request.service, endpoint)
        try:
            return await self._tried(request, endpoint)
        except RegionDisabled as exc:
            if endpoint.fallback_region in {None, endpoint.region}:
                raise
            off = exc
        self._off[request.service, endpoint.region] = self._clock.boottime()
        log.warning("switch region off=%s to=%s", endpoint.region, endpoint.fallback_region)
        if request.called.with_code:
            account = off.details.get("account_id", "unknown")
            why = f"STS is off there for account {account}, and {endpoint.fallback_region} takes over"
            raise unavailable(replace(request.called, region=endpoint.region), why)
        return await self._tried(request, self._region(request.service, endpoint))

    def _region(self, service: Service, endpoint: Endpoint) -> Endpoint:
        """`endpoint`, or its fallback while its region is known to be off."""
        since = self._off.get((service, endpoint.region))
        if endpoint.fallback_region is None or since is None or self._clock.boottime() - since > _OFF_FOR:
            return endpoint
        return replace(endpoint, region=endpoint.fallback_region, fallback_region=None)

    async def _tried(self, request: Request, endpoint: Endpoint) -> Mapping[str, Any]:
        request = replace(request, called=replace(request.called, region=endpoint.region))
        started = self._clock.boottime()
        for attempt in range(1, request.attempts + 1):
            left = self._deadline - (self._clock.boottime() - started)
            outcome = await self._once(request, endpoint, left)
            if outcome.reply is not None:
                return outcome.reply
            error = outcome.error or unavailable(request.called, "there was no answer")
            pause = _BACKOFF * 2**attempt * (0.5 + self._jitter())
            spent = self._clock.boottime() - started + pause
            again = isinstance(error, StsUnavailable) and not request.called.with_code and spent < self._deadline
            if not again or attempt == request.attempts:
                raise error
            log.info("retry %s attempt=%d error=%s", request.called.operation, attempt, error.kind)
            await self._clock.sleep(pause)
        raise AssertionError  # the last attempt returned or raised

    async def _once(self, request: Request, endpoint: Endpoint, left: float) -> _Outcome:
        """One attempt; only a cancel gets out as an exception."""
        try:
            outcome = await self._threads.run(lambda: _attempt(self._clients, request, endpoint), deadline=left)
        except NotDone as late:
            return _Outcome(error=unavailable(request.called, "no answer came in time", sent=late.started))
        self._note_date(outcome.date)
        return outcome

    def _note_date(self, date: str | None) -> None:
        if date is None:
            return
        try:
            there = parsedate_to_datetime(date)
        except ValueError:
            return
        there = there if there.tzinfo else there.replace(tzinfo=UTC)
        self._skew = (self._clock.now() - there).total_seconds()


def _attempt(clients: Clients, request: Request, endpoint: Endpoint) -> _Outcome:
    """In the thread. The error leaves as a value: botocore's exception, whose text may echo a code, ends here."""
    try:
        reply = clients.call(
            request.service,
            request.method,
            endpoint=endpoint,
            signer=request.signer,
            parameters=request.parameters(),
        )
        return _Outcome(reply=reply, date=_date(reply))
    except Exception as exc:  # noqa: BLE001 - the one place where botocore's exceptions are translated
        error = from_exception(request.called, exc)
        return _Outcome(error=error, date=_date(getattr(exc, "response", None)))


def _date(response: object) -> str | None:
    if not isinstance(response, dict):
        return None
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    found = headers.get("date")
    return str(found) if found else None
