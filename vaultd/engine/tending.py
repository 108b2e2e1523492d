"""Tending: what is due for a plan in use, ahead of anybody asking (architecture.md §6.2).

Rules
- A session is renewed when due, and once more in the last moment that its MFA session still opens the role (top-up,
  aws-facts §1.3.3). Where a code is needed it is asked for early and quietly, and never again while one is open.
- What nobody used for half an hour is not renewed unasked. The first to ask for it again waits for the new session, if
  nothing is known to be in its way, until its flight is as old as the request has patience: a slow AWS costs that once.
"""

from __future__ import annotations

import logging
from datetime import datetime

from vaultd.engine.asking import Asking
from vaultd.engine.cells import Cells, device_key
from vaultd.engine.chains import Chain, Chains
from vaultd.engine.flights import Flight, Flights
from vaultd.engine.renewals import Renewals
from vaultd.errors import VaultdError
from vaultd.model import steps
from vaultd.model.plan import Plan, Step
from vaultd.model.text import shown

#: There is nothing to do before this long; the refresher never sleeps longer anyway.
IDLE_SECONDS = 30.0
#: While a renewal is under way: one that fails is to be tried again after its own pause, not after 30 s (D5).
FLYING_SECONDS = 2.0

log = logging.getLogger(__name__)


class Tending:
    """Looks at plans, starts flights, opens quiet questions."""

    def __init__(self, *, cells: Cells, flights: Flights, renewals: Renewals, chains: Chains, asking: Asking) -> None:
        self._cells = cells
        self._flights = flights
        self._renewals = renewals
        self._chains = chains
        self._asking = asking

    def tend(self, plan: Plan) -> float:
        """Begin what is due for an active plan; the seconds until it is worth another look, at most 30.

        A code is asked for at the earliest 20 min before the served session ends, and quietly: by a question that
        nobody attends (architecture.md §6.2); of a session that AWS may have ended, once at once.
        """
        if self._cells.get(plan.last.fingerprint).session is None:
            return IDLE_SECONDS
        chain = self._chains.of(plan)
        return min(IDLE_SECONDS, *(self._tend(plan, chain, index) for index in range(len(chain))), IDLE_SECONDS)

    def worth_waiting(self, plan: Plan, *, patience: float) -> bool:
        """True when the session that lives has so little left that a new one is worth `patience` seconds (§5: 25 min).

        Never of a plan that is tended, nor for a person's code, nor against a failure since it fell due.
        """
        cell, now = self._cells.get(plan.last.fingerprint), self._cells.moment().now
        if not steps.untended(cell, now) or self._flights.age(plan.last.fingerprint) >= patience:
            return False
        chain = self._chains.of(plan)
        keys = (*(step.fingerprint for step in chain), device_key(plan.identity, None), self._chains.device(chain[0]))
        if any(steps.failed_since(self._cells.get(key), cell.renew_at) for key in keys):
            return False
        return self._chains.code_step(chain, len(chain) - 1) is None

    def begun(self, plan: Plan) -> Flight:
        """The flight of the plan's last step, joined or begun."""
        chain = self._chains.of(plan)
        return self._renewals.renew(chain, len(chain) - 1)

    def _tend(self, plan: Plan, chain: Chain, index: int) -> float:
        step, moment, last = chain[index], self._cells.moment(), index == len(chain) - 1
        cell = self._cells.get(step.fingerprint)
        if cell.session is None:
            return IDLE_SECONDS
        if self._flights.get(step.fingerprint) is not None:
            return FLYING_SECONDS
        at = steps.renewal(cell, self._source_ends(chain, index))
        if at is not None and at > moment.now:
            return (at - moment.now).total_seconds()
        resting = steps.pause(cell, moment.boot)
        if resting > 0:
            return resting
        needed = self._chains.code_step(chain, index)
        if needed is not None:
            return self._ask_early(plan, cell, needed) if last else IDLE_SECONDS
        self._renewals.renew(chain, index)
        return FLYING_SECONDS

    def _source_ends(self, chain: Chain, index: int) -> datetime | None:
        """When the parent stops opening this step, for the top-up at that edge (aws-facts §1.3.3)."""
        if index == 0:
            return None
        parent = chain[index - 1]
        if parent.kind == "mfa_session":
            handle = self._chains.handle_for(parent, chain[index])
            return None if handle is None else steps.edge(handle, self._cells.limit(chain[index]))
        session = self._cells.get(parent.fingerprint).session
        return None if session is None else session.expiration

    def _ask_early(self, plan: Plan, cell: steps.Cell, step: Step) -> float:
        moment = self._cells.moment()
        at = steps.question_time(cell)
        if at is None or steps.servable(cell, moment.now) is None:
            return IDLE_SECONDS  # nobody is served any more: the next request asks by itself
        if at > moment.now:
            return (at - moment.now).total_seconds()
        keys = (device_key(step.identity, None), self._chains.device(step))
        if any(steps.refusal(self._cells.get(key), moment.boot) for key in keys):
            return IDLE_SECONDS
        try:
            question = self._asking.ask(plan, step, "vaultd, to renew it in time", stays=True)
        except VaultdError as exc:
            log.debug("skip question profile=%s error=%s", shown(plan.profile), exc.kind)
            return IDLE_SECONDS
        self._cells.apply(plan.last.fingerprint, steps.Asked())
        # Unanswered, it is asked again as soon as it has expired: a prompt is open while the end comes near (C7).
        return max(1.0, (question.expires_at - moment.now).total_seconds())
