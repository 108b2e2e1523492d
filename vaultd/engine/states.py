"""States: a profile's row in `status`, from its cells (interface.md §6). No I/O, no effect."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from vaultd.engine.asking import Asking
from vaultd.engine.cells import Cells, device_key, is_device
from vaultd.engine.chains import Chain, Chains
from vaultd.model import steps
from vaultd.model.credentials import RoleSession
from vaultd.model.dialects import stamp
from vaultd.model.plan import Plan
from vaultd.model.text import shown

StateWord = Literal["none", "fresh", "due", "expired", "mfa_required", "locked", "error"]


@dataclass(frozen=True, slots=True)
class ProfileState:
    """A profile's row in `status` (interface.md §6). `last_error` is {code, message, time} until the next success."""

    state: StateWord
    expiration: datetime | None
    seconds_left: int | None
    last_error: dict[str, Any] | None
    warnings: tuple[str, ...] = ()

    def wire(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "state": self.state,
            "expiration": None if self.expiration is None else stamp(self.expiration),
            "seconds_left": self.seconds_left,
            "last_error": self.last_error,
        }


class States:
    """Reads cells and questions."""

    def __init__(self, *, cells: Cells, chains: Chains, asking: Asking) -> None:
        self._cells = cells
        self._chains = chains
        self._asking = asking

    def of(self, plan: Plan, *, locked: bool) -> ProfileState:
        """What `status` shows; no I/O."""
        moment = self._cells.moment()
        chain = self._chains.of(plan)
        cell = self._cells.get(plan.last.fingerprint)
        session = steps.servable(cell, moment.now)
        failure = cell.failure or self._device_failure(chain)
        return ProfileState(
            state="locked" if locked else self._word(chain, cell, failure),
            expiration=None if session is None else session.expiration,
            seconds_left=None if session is None else int(session.left(moment.now).total_seconds()),
            last_error=None
            if failure is None
            else {"code": failure.error.code, "message": failure.error.message, "time": stamp(failure.time)},
            warnings=_warnings(plan, cell, session),
        )

    def marked(self) -> Collection[str] | None:
        """The cells; None when a question is open or a device failed, which is the state of all its profiles."""
        table = self._cells.table
        failed = any(is_device(key) and cell.failure is not None for key, cell in table.items())
        return None if failed or self._asking.asks else table

    def _device_failure(self, chain: Chain) -> steps.Failure | None:
        for key in (device_key(chain[0].identity, None), self._chains.device(chain[0])):
            failure = self._cells.get(key).failure
            if failure is not None:
                return failure
        return None

    def _word(self, chain: Chain, cell: steps.Cell, failure: steps.Failure | None) -> StateWord:
        now = self._cells.moment().now
        if steps.servable(cell, now) is not None:
            return steps.freshness(cell, now)
        needed = self._chains.code_step(chain, len(chain) - 1)
        if needed is not None and self._asking.pending(needed):
            return "mfa_required"
        if failure is not None:
            return "error"
        return steps.freshness(cell, now)


def _warnings(plan: Plan, cell: steps.Cell, session: RoleSession | None) -> tuple[str, ...]:
    name, said = shown(plan.profile), []
    said_by, lower, raise_ = "configured", "lower its duration_seconds", "raise its duration_seconds"
    if plan.last.length_asked:
        said_by, lower, raise_ = "asked", "leave out or lower --duration", "leave out or raise --duration"
    if cell.duration is not None and cell.unsure is None and cell.duration < plan.last.duration:
        said.append(
            f"AWS gives {name} {int(cell.duration.total_seconds())} s at most, not the {said_by} "
            f"{int(plan.last.duration.total_seconds())} s: {lower}."
        )
    if plan.last.role is not None and plan.last.duration < timedelta(seconds=1800):
        said.append(f"Sessions of {name} under 1800 s make SDKs fetch each time: {raise_}.")
    if session is not None and (session.packed_policy_size or 0) > 80:
        said.append(f"Policy and tags of {name} fill {session.packed_policy_size} % of AWS's limit: shorten them.")
    return tuple(said)
