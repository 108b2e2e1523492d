"""Proving: is the identity's key any good, before a person is asked for a code?

Rule: a question is opened only for a key that AWS took within the last 10 minutes. A wrong secret (D8), a deleted key
(E8), a clock that is off or an STS that is away (D3) would each burn a person's code for nothing. GetCallerIdentity
tells them apart, needs no permission and cannot be denied (aws-facts §1.1). What is not known in time stops nobody.
"""

from __future__ import annotations

import logging

from vaultd.engine.cells import Cells, device_key
from vaultd.engine.flights import Flight, Flights, Outcome, within
from vaultd.engine.renewals import Recorder, again
from vaultd.engine.seams import Clock, Custody
from vaultd.errors import VaultdError
from vaultd.model import steps
from vaultd.model.plan import Step
from vaultd.model.steps import Failed
from vaultd.model.text import shown

#: How long a key that AWS took is believed.
PROVED_SECONDS = 600.0

log = logging.getLogger(__name__)


class Proving:
    """Remembers which identities' keys were taken, and when; a failure is remembered in the identity's own cell."""

    def __init__(self, *, custody: Custody, clock: Clock, flights: Flights, cells: Cells, audit: Recorder) -> None:
        self._custody = custody
        self._clock = clock
        self._flights = flights
        self._cells = cells
        self._audit = audit
        self._proved: dict[str, float] = {}

    async def key_of(self, step: Step, *, seconds: float | None) -> None:
        """Raises why a code would be wasted; waits at most `seconds` (None: until AWS has spoken)."""
        since = self._proved.get(step.identity)
        if since is not None and self._clock.boottime() - since < PROVED_SECONDS:
            return
        cell, boot = self._cells.get(device_key(step.identity, None)), self._clock.boottime()
        if cell.failure is not None and steps.pause(cell, boot) > 0:
            raise again(cell.failure.error)
        flight = self._flight(step)
        if await within(self._clock, {flight}, seconds) and not flight.cancelled():
            outcome = flight.result()
            if isinstance(outcome, VaultdError):
                raise again(outcome)

    def forget(self, identity: str | None = None) -> None:
        """The identity has another key, or (None) everything is locked."""
        if identity is None:
            self._proved.clear()
        else:
            self._proved.pop(identity, None)

    def _flight(self, step: Step) -> Flight:
        key = f"prove {step.identity}"
        return self._flights.get(key) or self._flights.start(key, self._prove(step))

    async def _prove(self, step: Step) -> Outcome:
        epoch = self._flights.epoch
        try:
            await self._custody.probe(step.identity, endpoint=step.endpoint)
        except VaultdError as exc:
            if epoch == self._flights.epoch:
                self._cells.apply(device_key(step.identity, None), Failed(error=exc, jitter=self._cells.jitter()))
            self._audit.record("session.fail", profile=step.profile, identity=step.identity, reason=exc.kind)
            log.warning("fail probe identity=%s error=%s", shown(step.identity), exc.kind)
            raise
        if epoch == self._flights.epoch:
            self._proved[step.identity] = self._clock.boottime()
        return None
