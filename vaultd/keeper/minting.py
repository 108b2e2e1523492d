"""Minting: an order becomes a session at AWS, by a code that is spent, a key that is proven, or a session at hand.

Rules (architecture.md §3, aws-facts §1.5)
- What lands after a lock is dropped and answered Locked, whatever the call brought: each carries its epoch.
- A code is written down as sent before it is sent, and taken back only after a clean Throttling.
- An MFA session that is dead at AWS is dropped, and the key behind it probed: its own death is one that no code mends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from vaultd.engine.seams import Minted, MintMfa, MintRole, MintServed, Sts
from vaultd.errors import (
    BadRequest,
    IdentityBroken,
    Locked,
    MfaRequired,
    SessionRejected,
    StsUnavailable,
    Throttled,
    VaultdError,
)
from vaultd.keeper.codes import Codes, Sent, six_digits
from vaultd.keeper.custody import Identities
from vaultd.keeper.rotation import KeyRotation
from vaultd.keeper.sessions import MfaSessions
from vaultd.model.credentials import Identity, IdentityKey, MfaHandle, MfaSession, RoleSession
from vaultd.model.partitions import Endpoint
from vaultd.model.secret import Secret
from vaultd.model.text import shown, typed

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Gate:
    """The keeper's own: `live` gives the epoch or raises Locked, `still` raises it once that is over, `same` asks."""

    live: Callable[[], int]
    still: Callable[[int], None]
    same: Callable[[int], bool]


class Minting:
    """`Keeper.mint` and `Custody.probe`, and what a rotation's steps sign with."""

    def __init__(
        self,
        gate: Gate,
        *,
        sts: Sts,
        identities: Identities,
        codes: Codes,
        sessions: MfaSessions,
        rotation: KeyRotation,
    ) -> None:
        self._gate = gate
        self._sts = sts
        self._identities = identities
        self._codes = codes
        self._sessions = sessions
        self._rotation = rotation

    async def mint(self, order: MintMfa | MintRole | MintServed) -> Minted:
        """One session, or the error; Locked when a lock came first, whatever the call brought."""
        epoch = self._gate.live()
        try:
            return await self._minted(order, epoch)
        except VaultdError as exc:
            if not isinstance(exc, Locked):
                self._gate.still(epoch)
            if isinstance(exc, IdentityBroken) and not isinstance(order, MintServed):
                raise self.too_young(order.identity, exc) from exc
            raise

    async def probe(self, name: str, *, endpoint: Endpoint) -> str:
        """See `Custody.probe`."""
        try:
            return await self._prove(name, self._gate.live(), endpoint)
        except IdentityBroken as exc:
            raise self.too_young(name, exc) from exc

    # ---- orders ----

    async def _minted(self, order: MintMfa | MintRole | MintServed, epoch: int) -> Minted:
        if isinstance(order, MintMfa):
            return Minted(handle=await self._mint_mfa(order, epoch))
        if isinstance(order, MintRole):
            return Minted(session=await self._mint_role(order, epoch))
        return Minted(session=self._mint_served(order))

    async def _mint_mfa(self, order: MintMfa, epoch: int) -> MfaHandle:
        key = await self.key(order.identity, epoch)
        asked = self._identities.identity(order.identity)
        code, sent = self._spend(order.mfa_serial, order.token_code)
        try:
            session = await self._sts.session_token(
                key,
                endpoint=order.endpoint,
                duration=order.duration,
                mfa_serial=order.mfa_serial,
                token_code=code,
            )
        except Throttled:
            self._throttled(sent, epoch)
            raise
        self._gate.still(epoch)
        self._still_there(asked)
        self._sessions.put(replace(session, opened_by=key.access_key_id), region=order.endpoint.region)
        return session.handle

    async def _mint_role(self, order: MintRole, epoch: int) -> RoleSession:
        source = await self._source(order, epoch)
        code, sent = self._spend(order.mfa_serial, order.token_code)
        asked = None if code is None else self._identities.identity(order.identity)
        try:
            session = await self._sts.assume_role(
                source,
                endpoint=order.endpoint,
                duration=order.duration,
                role=order.role,
                mfa_serial=order.mfa_serial,
                token_code=code,
            )
        except Throttled:
            self._throttled(sent, epoch)
            raise
        except SessionRejected as exc:
            self._gate.still(epoch)
            if isinstance(order.source, MfaHandle):
                await self.rejected(order.source, exc, epoch, endpoint=order.endpoint)
            raise
        self._gate.still(epoch)
        self._still_there(asked)
        return session

    async def _source(self, order: MintRole, epoch: int) -> IdentityKey | MfaSession | RoleSession:
        if order.source is None:
            return await self.key(order.identity, epoch)
        if order.token_code is not None:
            raise BadRequest("token_code goes with an identity key only; run `vault-client explain PROFILE`")
        return self.session(order.source) if isinstance(order.source, MfaHandle) else order.source

    def _mint_served(self, order: MintServed) -> RoleSession:
        session = self.session(order.handle)
        return RoleSession(
            access_key_id=session.access_key_id,
            secret_access_key=session.secret_access_key,
            session_token=session.session_token,
            issued=session.handle.issued,
            expiration=session.handle.expiration,
            account_id=self._identities.identity(order.handle.identity).account_id,
        )

    def _still_there(self, asked: Identity | None) -> None:
        """A call with a code is never cancelled, so it may land after `remove`: what it brought goes with the identity.

        Raises UnknownIdentity, or MfaRequired where another key has taken the name.
        """
        if asked is None:
            return
        self._identities.identity(asked.name)
        if not self._identities.holds(asked):
            name = typed(asked.name)
            raise MfaRequired(
                f"the key of identity {shown(asked.name)} was replaced under way; type `vault-client mfa {name}`"
            )

    # ---- codes ----

    def _spend(self, serial: str | None, code: Secret | None) -> tuple[Secret | None, Sent | None]:
        """The code as it is sent, written down as sent; both None for a call without one."""
        if (serial is None) != (code is None):
            raise BadRequest("mfa_serial and token_code go together; run `vault-client explain PROFILE`")
        if serial is None or code is None:
            return None, None
        digits = six_digits(code)
        return digits, self._codes.spend(serial, digits)

    def _throttled(self, sent: Sent | None, epoch: int) -> None:
        if sent is not None and self._gate.same(epoch):
            again = self._codes.unmark(sent)
            log.info("throttle code serial=%s again=%s", sent.serial, again)

    # ---- keys and sessions ----

    async def key(self, name: str, epoch: int) -> IdentityKey:
        """The key in use; raises as `Identities.key`, and Locked."""
        key = await self._identities.key(name)
        self._gate.still(epoch)
        return key

    def session(self, handle: MfaHandle) -> MfaSession:
        """Raises SessionRejected where it was dropped."""
        found = self._sessions.find(handle)
        if found is None:
            raise SessionRejected("that MFA session was dropped; run `vault-client mfa`", expired=True)
        return found

    async def rejected(self, handle: MfaHandle, exc: SessionRejected, epoch: int, *, endpoint: Endpoint) -> None:
        """Rows 9 and 10: the MFA session is dead. Row 10 may be the key's own death, which no code mends: probe it."""
        log.warning("drop mfa-session identity=%s expired=%s", handle.identity, exc.details.get("expired"))
        self._sessions.drop(lambda each: each == handle)
        if exc.details.get("expired"):
            return
        try:
            await self._prove(handle.identity, epoch, endpoint)
        except IdentityBroken:
            raise
        except VaultdError as probe:
            log.info("probe identity-key undecided identity=%s error=%s", handle.identity, probe.kind)

    async def _prove(self, name: str, epoch: int, endpoint: Endpoint) -> str:
        """Whose key it is, by AWS, in the account that it was added for (security.md §1 T13). Raises IdentityBroken."""
        key = await self.key(name, epoch)
        arn = await self._sts.caller_identity(key, endpoint=endpoint)
        account = arn.split(":")[4]
        added = self._identities.identity(name).account_id
        if account != added:
            raise IdentityBroken(
                f"the key that is stored for {typed(name)} is of account {shown(account)}, and was added for {added}: "
                f"type `vault-client add {typed(name)} --replace`",
                account=account,
            )
        return arn

    def too_young(self, name: str, exc: IdentityBroken) -> VaultdError:
        """Row 10 of a key that was rotated in a moment ago: not every region knows it yet, so it may work later."""
        if "account" in exc.details or not self._rotation.young(name):  # one of another account never will
            return exc
        return StsUnavailable(
            f"the key of identity {shown(name)} was rotated a moment ago, and AWS does not know the new one everywhere "
            "yet; try again in a minute",
            code_sent=False,
        )
