"""Chains: which steps a plan takes now, which device answers for them, and where a code is needed.

Rule: only reads cells. A device that AWS no longer knows is replaced by the one that detection found, and a direct step
that AWS capped to an hour by the default path; both are remembered until the daemon ends (the cap for good).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from vaultd.engine.cells import Cells, device_key
from vaultd.model import steps
from vaultd.model.credentials import MfaHandle
from vaultd.model.plan import Plan, Step
from vaultd.model.steps import ONE_HOUR

Chain = tuple[Step, ...]


class Chains:
    """Plans as chains of steps. `mfa_duration` is asked for where a plan has no MFA step of its own."""

    def __init__(self, *, cells: Cells, mfa_duration: timedelta) -> None:
        self._cells = cells
        self._mfa_duration = mfa_duration
        #: (identity, serial AWS refused) → the serial it has instead
        self._moved: dict[tuple[str, str], str] = {}

    def move(self, step: Step, mfa_serial: str) -> None:
        """From now on the step's device is this one (aws-facts §1.5 row 3)."""
        self._moved[step.identity, step.mfa_serial or ""] = mfa_serial

    def forget(self, identity: str) -> None:
        """The identity has another key, or is gone."""
        self._moved = {key: serial for key, serial in self._moved.items() if key[0] != identity}

    def of(self, plan: Plan) -> Chain:
        """The steps, with a direct step that AWS capped to an hour replaced by the default path (C2).

        One code then opens the MFA session that every role shares, in place of one code an hour for this role alone.
        """
        chain: list[Step] = []
        for step in plan.steps:
            self._cells.own(step)
            chain.extend(self.capped(step) or (step,))
        return tuple(chain)

    def capped(self, step: Step) -> Chain | None:
        """A direct step by the default path, where AWS allowed an hour only or wants to see the code first."""
        if step.kind != "assume_role_with_code" or self._cells.get(step.fingerprint).duration is None:
            return None
        mfa = self.mfa_step(step)
        return mfa, replace(step, kind="assume_role", duration=ONE_HOUR)

    def straight(self, plan: Plan) -> timedelta | None:
        """What AWS gives a role that comes straight from the identity key; None: it comes from another session."""
        chain = self.of(plan)
        if len(chain) != 1 or chain[0].role is None:
            return None
        return self._cells.get(chain[0].fingerprint).duration or chain[0].duration

    def mfa_step(self, step: Step) -> Step:
        """GetSessionToken on that step's device."""
        return replace(step, kind="mfa_session", fingerprint="", duration=self._mfa_duration, role=None)

    def serial(self, step: Step) -> str | None:
        """The step's device, or the one that detection found in its place."""
        if step.mfa_serial is None:
            return None
        return self.moved(step.identity, step.mfa_serial)

    def moved(self, identity: str, mfa_serial: str) -> str:
        """That device, or the one in its place."""
        return self._moved.get((identity, mfa_serial), mfa_serial)

    def device(self, step: Step) -> str:
        """The key of the cell of the step's MFA session."""
        return device_key(step.identity, None if step.kind == "session_token" else self.serial(step))

    def handle_for(self, mfa: Step, role: Step | None) -> MfaHandle | None:
        """The MFA session if it may open `role`, or be served itself (role None)."""
        handle = self._cells.get(self.device(mfa)).handle
        if handle is None:
            return None
        limit = None if role is None else self._cells.limit(role)
        if not steps.usable(handle, limit, self._cells.moment().now):
            return None
        cell = self._cells.get(mfa.fingerprint if role is None else role.fingerprint)
        if role is None:
            return None if self._used_up(cell, handle) else handle
        return None if steps.spoiled(cell, handle) else handle

    def _used_up(self, cell: steps.Cell, handle: MfaHandle) -> bool:
        """True when this MFA session is served already and due: serving it again would renew nothing.

        Of a doubted one the source is gone: a handle that is there is another's.
        """
        session = cell.session
        return (
            session is not None
            and not cell.doubted
            and session.expiration >= handle.expiration
            and steps.due(cell, self._cells.moment().now)
        )

    def code_step(self, chain: Chain, index: int) -> Step | None:
        """The step whose code a person must give before `chain[index]` can be made; None when none."""
        step = chain[index]
        if step.kind == "mfa_session":
            return None if self.handle_for(step, None) else step
        if step.kind == "assume_role_with_code":
            return step
        if index == 0:
            return None
        parent = chain[index - 1]
        if parent.kind == "mfa_session":
            return None if self.handle_for(parent, step) else parent
        if steps.servable(self._cells.get(parent.fingerprint), self._cells.moment().now):
            return None
        return self.code_step(chain, index - 1)
