"""Renewals: the work of a flight: one plan's steps, parents first, each call to the keeper with a deadline.

Rules
- A renewal never waits for a person: where a code is needed it ends in MfaRequired and the broker asks.
- A call without a code is repeated twice (aws-facts §1.5 row 19), one with a code only after a clean Throttling
  (§1.3.6).
- A dead source is dropped and made again once (row 9); a role above its maximum is asked again for an hour (rows 16,
  17); a device that AWS does not know is detected once (row 3).
- A result of an older epoch is dropped here, before anything is stored.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Protocol

from vaultd.engine.cells import Cells, device_key
from vaultd.engine.chains import Chain, Chains
from vaultd.engine.flights import Flight, Flights, within
from vaultd.engine.seams import Clock, Custody, Keeper, Minted, MintMfa, MintRole, MintServed
from vaultd.errors import (
    BadProfile,
    DeviceRefused,
    IdentityBroken,
    Locked,
    MfaRequired,
    SessionRejected,
    StsUnavailable,
    Throttled,
    VaultdError,
)
from vaultd.model import steps
from vaultd.model.credentials import MfaHandle, RoleSession
from vaultd.model.plan import Step
from vaultd.model.secret import Secret
from vaultd.model.steps import Dropped, Effect, Failed, Opened
from vaultd.model.text import shown, typed

#: How aws/ ends a DurationTooLong; who asked for that length is known here.
LOWER = "lower duration_seconds in the AWS config file"
#: No call to the keeper takes longer (A11; aws/ itself gives up after 2 + 8 s).
DEADLINE_SECONDS = 10.0
#: Before a code goes out again after a clean Throttling: twice at most, within its 30 s (A10).
RESEND_SECONDS = (1.0, 2.0)

Source = MfaHandle | RoleSession | None
Order = MintMfa | MintRole | MintServed

log = logging.getLogger(__name__)


class Recorder(Protocol):
    """The audit log, as far as the engine writes to it."""

    def record(self, event: str, *, sync: bool = False, **fields: object) -> None:
        """Never raises."""


class Renewals:
    """Runs steps, each as the flight of its cell."""

    def __init__(
        self,
        *,
        keeper: Keeper,
        custody: Custody,
        clock: Clock,
        cells: Cells,
        flights: Flights,
        audit: Recorder,
        chains: Chains,
    ) -> None:
        self._keeper = keeper
        self._custody = custody
        self._clock = clock
        self._cells = cells
        self._flights = flights
        self._audit = audit
        self._chains = chains

    # ---- flights ----

    def renew(self, chain: Chain, index: int) -> Flight:
        """Make `chain[index]`'s session; joins the flight that is under way."""
        key = chain[index].fingerprint
        return self._flights.get(key) or self._flights.start(key, self._make(chain, index))

    def with_code(self, step: Step, code: Secret) -> Flight:
        """Use a code: for the MFA session, or for the role directly (C1)."""
        if step.kind == "mfa_session":
            return self._flights.start(self._chains.device(step), self._open_mfa(step, code), code=True)
        if self._cells.get(step.fingerprint).duration is not None:
            return self.with_code(self._chains.mfa_step(step), code)
        return self._flights.start(step.fingerprint, self._assume_with_code(step, code), code=True)

    async def _make(self, chain: Chain, index: int) -> RoleSession:
        step = chain[index]
        if step.kind in {"mfa_session", "session_token"}:
            return await self._serve_mfa(step)
        if step.kind == "assume_role_with_code":
            raise self.code_needed(step)
        for last_try in (False, True):
            source = await self._source(chain, index)
            try:
                return await self._assume(step, source)
            except SessionRejected as exc:
                self._drop_source(chain, index, source)
                if last_try:
                    twice = StsUnavailable(f"AWS twice refused a session that it had just given: {_later(step)}")
                    raise self._failed(step, twice, source) from exc
        raise self.code_needed(step)  # the loop above always ends before this

    def _drop_source(self, chain: Chain, index: int, source: Source) -> None:
        """Row 9: drop that session, unless a newer one has taken its place."""
        parent = chain[index - 1] if index else None
        if parent is None:
            return
        key = self._chains.device(parent) if isinstance(source, MfaHandle) else parent.fingerprint
        cell = self._cells.get(key)
        if cell.handle == source or cell.session is source:
            self._cells.apply(key, Dropped())
            log.warning("drop session identity=%s reason=rejected", shown(parent.identity))

    async def _source(self, chain: Chain, index: int) -> Source:
        """The parent's session, renewed first when it is due (C4)."""
        if index == 0:
            return None
        parent = chain[index - 1]
        if parent.kind == "mfa_session":
            handle = self._chains.handle_for(parent, chain[index])
            if handle is None:
                raise self.code_needed(parent)
            return handle
        return await self._parent(chain, index - 1)

    async def _parent(self, chain: Chain, index: int) -> RoleSession:
        key, moment = chain[index].fingerprint, self._cells.moment()
        cell = self._cells.get(key)
        held = steps.servable(cell, moment.now)
        resting = steps.pause(cell, moment.boot) > 0
        if held is not None and (resting or not steps.due(cell, moment.now)):
            return held
        if held is None and resting and cell.failure is not None:
            raise again(cell.failure.error)
        if held is not None and self._chains.code_step(chain, index) is not None:
            return held  # its renewal takes a code; it still opens the child meanwhile
        flight = self.renew(chain, index)
        await asyncio.wait({flight})
        held = steps.servable(self._cells.get(key), self._clock.now())
        if held is None:
            raise outcome_error(flight)
        return held

    # ---- calls without a code ----

    async def _assume(self, step: Step, source: Source) -> RoleSession:
        while True:
            order = self._role_order(step, source)
            try:
                minted = await self._mint(order)
            except SessionRejected:
                raise
            except VaultdError as exc:
                await self._after_failure(step, exc, source, order.duration)
            else:
                return self._store(step, minted, source)

    def _role_order(self, step: Step, source: Source, code: Secret | None = None) -> MintRole:
        if step.role is None:
            raise BadProfile(f"Profile {shown(step.profile)} has no role: type `vault-client explain`.")
        return MintRole(
            identity=step.identity,
            endpoint=step.endpoint,
            duration=self._cells.get(step.fingerprint).duration or step.duration,
            role=step.role,
            source=source,
            mfa_serial=None if code is None else self._chains.serial(step),
            token_code=code,
        )

    async def _after_failure(self, step: Step, error: VaultdError, source: Source, asked: timedelta) -> None:
        """Wait for the next try, or raise."""
        effects = self._apply_failure(step, error, source, asked)
        if Effect.SEAL_DURATION in effects:
            log.warning("cap duration profile=%s seconds=3600 reason=%s", shown(step.profile), error.kind)
            return
        if Effect.AGAIN in effects:
            await self._clock.sleep(steps.pause(self._cells.get(step.fingerprint), self._clock.boottime()))
            return
        self._record_failure(step, error)
        if Effect.ASK in effects:
            raise self.code_needed(step) from error
        known = self._cells.get(step.fingerprint).failure
        raise again(known.error if known is not None and known.final else error) from error

    def _apply_failure(
        self, step: Step, error: VaultdError, source: Source, asked: timedelta, *, direct: bool = False
    ) -> tuple[Effect, ...]:
        issued = source.issued if isinstance(source, MfaHandle) and source.mfa_serial else None
        # aws/ knows roles and no profiles: here the remedy gets the name that can be typed
        error.message = error.message.replace("explain PROFILE`", f"explain {typed(step.profile)}`")
        if step.length_asked:
            error.message = error.message.replace(LOWER, "leave out or lower --duration")
        event = Failed(error=error, jitter=self._cells.jitter(), source=issued, asked=asked, direct=direct)
        if isinstance(error, IdentityBroken):
            # Row 10: never a reason to ask for MFA, so every device of this identity is to know.
            self._cells.apply(device_key(step.identity, None), event)
        return self._cells.apply(step.fingerprint, event)

    def _failed(self, step: Step, error: VaultdError, source: Source) -> VaultdError:
        self._apply_failure(step, error, source, step.duration)
        self._record_failure(step, error)
        return error

    async def _serve_mfa(self, step: Step) -> RoleSession:
        handle = self._chains.handle_for(step, None)
        if handle is None and step.kind == "mfa_session":
            raise self.code_needed(step)
        if handle is None:
            flight = self._flights.start(self._chains.device(step), self._open_plain(step))
            await asyncio.wait({flight})
            handle = self._cells.get(self._chains.device(step)).handle
            if handle is None or self._chains.handle_for(step, None) is None:
                raise self._failed(step, outcome_error(flight), None)
        try:
            minted = await self._mint(MintServed(handle=handle))
        except SessionRejected as exc:
            self._cells.apply(self._chains.device(step), Dropped())
            raise self.code_needed(step) from exc
        return self._store(step, minted, handle)

    async def _open_plain(self, step: Step) -> MfaHandle:
        """GetSessionToken without MFA: only for a profile without a role (aws-facts §1.2)."""
        minted = await self._mint(MintMfa(identity=step.identity, endpoint=step.endpoint, duration=step.duration))
        assert minted.handle is not None
        self._cells.apply(self._chains.device(step), Opened(minted.handle))
        return minted.handle

    def _store(self, step: Step, minted: Minted, source: Source) -> RoleSession:
        assert minted.session is not None
        issued = source.issued if isinstance(source, MfaHandle) else None
        event = steps.Minted(session=minted.session, jitter=self._cells.jitter(), source=issued)
        self._cells.apply(step.fingerprint, event)
        cell = self._cells.get(step.fingerprint)
        if cell.session is not minted.session and cell.failure is not None:
            self._record_failure(step, cell.failure.error)
            raise again(cell.failure.error)
        self._record_renewal(step, minted.session)
        return minted.session

    # ---- calls with a code ----

    async def _open_mfa(self, step: Step, code: Secret) -> MfaHandle:
        order = MintMfa(
            identity=step.identity,
            endpoint=step.endpoint,
            duration=step.duration,
            mfa_serial=self._chains.serial(step),
            token_code=code,
        )
        key = self._chains.device(step)
        try:
            minted = await self._mint_with_code(order)
        except VaultdError as exc:
            error = await self._detect(step, exc) if isinstance(exc, DeviceRefused) else exc
            if "moved_to" not in error.details:
                broken = isinstance(error, IdentityBroken)
                failed = Failed(error=error, jitter=self._cells.jitter())
                self._cells.apply(device_key(step.identity, None) if broken else key, failed)
            raise error from exc
        assert minted.handle is not None
        self._cells.apply(key, Opened(minted.handle))
        log.info("open mfa-session identity=%s serial=%s", shown(step.identity), shown(order.mfa_serial or ""))
        return minted.handle

    async def _assume_with_code(self, step: Step, code: Secret) -> RoleSession:
        order = self._role_order(step, None, code)
        try:
            minted = await self._mint_with_code(order)
        except VaultdError as exc:
            error = await self._detect(step, exc) if isinstance(exc, DeviceRefused) else exc
            if "moved_to" in error.details:
                raise error from exc
            return await self._for_an_hour(step, error, order.duration)
        return self._store(step, minted, None)

    async def _for_an_hour(self, step: Step, error: VaultdError, asked: timedelta) -> RoleSession:
        """C1, C2: too long, or denied with its own code: an hour by an MFA session, open or of the next code.

        The code of this call may be burnt (aws-facts §6 (3)). Everything else is the answer.
        """
        effects = self._apply_failure(step, error, None, asked, direct=True)
        self._record_failure(step, error)
        capped = self._chains.capped(step)
        if capped is None or not {Effect.SEAL_DURATION, Effect.ASK} & set(effects):
            raise error
        log.warning("cap duration profile=%s seconds=3600 reason=%s", shown(step.profile), error.kind)
        try:
            return await self._make(capped, 1)
        except MfaRequired as exc:
            less = "leave out or lower --duration" if step.length_asked else "lower its duration_seconds"
            raise MfaRequired(
                f"AWS allows one hour at most for {shown(step.profile)}: {less} and give the next code."
            ) from exc

    async def _mint_with_code(self, order: MintMfa | MintRole) -> Minted:
        """The one exception to "never send a code twice": AWS was too busy to look at it (A10)."""
        for seconds in RESEND_SECONDS:
            try:
                return await self._mint(order)
            except Throttled:
                await self._clock.sleep(seconds * (1 + self._cells.jitter() / 2))
        return await self._mint(order)

    async def _detect(self, step: Step, error: DeviceRefused) -> VaultdError:
        """Row 3: ask IAM once which device this user has; works, or names the serial (A14)."""
        old = self._chains.serial(step) or ""
        try:
            found = await self._custody.detect(step.identity, endpoint=step.endpoint)
        except VaultdError as exc:
            log.warning("fail detect identity=%s error=%s", shown(step.identity), exc.kind)
            found = ()
        others = [serial for serial in found if serial != old]
        if len(others) == 1 and old not in found:
            self._chains.move(step, others[0])
            log.warning("move device identity=%s from=%s to=%s", shown(step.identity), shown(old), shown(others[0]))
            return DeviceRefused(error.message, moved_to=others[0])
        return DeviceRefused(
            f"AWS does not know the MFA device {shown(old)} as one of {shown(step.identity)}: type "
            f"`vault-client add {typed(step.identity)} --replace --mfa-serial ARN` with the right one."
        )

    # ---- one call ----

    async def _mint(self, order: Order) -> Minted:
        epoch = self._flights.epoch
        call = asyncio.ensure_future(self._keeper.mint(order))
        call.add_done_callback(_retrieve)
        try:
            landed = await within(self._clock, {call}, DEADLINE_SECONDS)
        except asyncio.CancelledError:
            call.cancel()
            raise
        if not landed:
            call.cancel()
            sent = not isinstance(order, MintServed) and order.token_code is not None
            raise StsUnavailable(_SILENT_AFTER_CODE if sent else _SILENT, code_sent=sent)
        if epoch != self._flights.epoch:
            raise Locked("vaultd was locked meanwhile: type `vault-client unlock`.")
        return call.result()

    # ---- words ----

    def code_needed(self, step: Step) -> MfaRequired:
        """The error without a prompt: an SDK's, or inside a flight."""
        return MfaRequired(
            f"Profile {shown(step.profile)} needs an MFA code of {shown(step.identity)}: "
            f"type `vault-client mfa {typed(step.identity)}`."
        )

    def _record_renewal(self, step: Step, session: RoleSession) -> None:
        self._audit.record(
            "session.renew",
            profile=step.profile,
            identity=step.identity,
            account_id=session.account_id,
            role_arn=session.role_arn,
            role_session_name=session.role_session_name,
            access_key_id=session.key_ending,
            expiration=session.expiration,
            aws_request_id=session.aws_request_id,
        )
        log.info("renew session profile=%s expiration=%s", shown(step.profile), session.expiration.isoformat())

    def _record_failure(self, step: Step, error: VaultdError) -> None:
        self._audit.record(
            "session.fail",
            profile=step.profile,
            identity=step.identity,
            role_arn=step.role.role_arn if step.role else None,
            reason=error.kind,
            aws_request_id=error.details.get("aws_request_id"),
        )
        log.warning("fail session profile=%s error=%s", shown(step.profile), error.kind)


_SILENT = "AWS did not answer in 10 s: check the network, then run your command again."
_SILENT_AFTER_CODE = "AWS did not answer in 10 s"  # the asking side adds what became of the code


def _later(step: Step) -> str:
    return f"try again in a minute, or type `vault-client explain {typed(step.profile)}`."


def _retrieve(call: asyncio.Future[Minted]) -> None:
    """A call that outlived its deadline: its late result goes, with its secrets, and its late error is no news."""
    if not call.cancelled():
        call.exception()


def outcome_error(flight: Flight) -> VaultdError:
    """The error of a flight that has landed; a cancelled one was cleared or locked under way."""
    if not flight.cancelled() and isinstance(outcome := flight.result(), VaultdError):
        return again(outcome)
    return StsUnavailable("The session was dropped while it was being made: run your command again.")


def again(error: VaultdError) -> VaultdError:
    """A copy to raise: an exception kept in a cell would grow a traceback with every raise."""
    return type(error)(error.message, **error.details)
