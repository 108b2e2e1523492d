"""GET /v1/credentials/{slug}: token → grant → plan → session → bytes, in the container dialect.

Rules
- Checked in the contract's order: 401, ProfileMismatch (also when the slug is no profile), UnknownProfile, the rest.
- A session that is not ready, or was long idle, is waited for 0.8 s in all: an SDK gives up after 1 s.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from vaultd.engine.attestation import Attestation
from vaultd.engine.grants import Grant, Grants
from vaultd.engine.seams import Clock
from vaultd.engine.sightings import Sighting
from vaultd.errors import InvalidToken, ProfileMismatch, StsUnavailable
from vaultd.model.dialects import ecs_reply
from vaultd.model.environment import CREDENTIALS_PATH
from vaultd.model.plan import Plan, Plans
from vaultd.model.text import shown, typed
from vaultd.web.serving import Rendered, Served, Serving, Sessions, Witness

#: Seconds for anything but a session that is ready (interface.md §4, 503).
PATIENCE: Final = 0.8
_NO_GRANT: Final = "The token is unknown, revoked or expired; type `vault-client use PROFILE`."


class Credentials:
    """The credentials path. `describe` names the process behind a socket's inode, off the loop."""

    def __init__(
        self,
        *,
        plans: Callable[[], Plans],
        broker: Sessions,
        grants: Grants,
        clock: Clock,
        describe: Callable[[int], Awaitable[str]],
        attestation: Attestation | None = None,
    ) -> None:
        self._broker = broker
        self._grants = grants
        self._serving = Serving(plans=plans, broker=broker, clock=clock, describe=describe, attestation=attestation)
        self._rendered = Rendered(ecs_reply)

    def grant(self, token: bytes) -> Grant:
        """Raises InvalidToken."""
        grant = self._grants.find(token) if token else None
        if grant is None:
            raise InvalidToken(_NO_GRANT)
        return grant

    def plan(self, grant: Grant, path: str) -> Plan:
        """Raises ProfileMismatch, UnknownProfile, BadProfile."""
        if path != CREDENTIALS_PATH + grant.slug:
            name = shown(grant.profile)
            raise ProfileMismatch(
                f"The token is for profile {name} alone, and the path names another; "
                f"type `vault-client use {typed(grant.profile)}`."
            )
        return self._serving.plan(grant)

    def unmet(self, grant: Grant, sighting: Sighting) -> bool:
        """Who asks is not known yet."""
        return self._serving.unmet(grant, sighting)

    def ready(self, grant: Grant, plan: Plan, sighting: Sighting) -> Served | None:
        """What goes out now, without waiting. Raises ForbiddenPeer."""
        if sighting.badge.cleared != grant.id and not self._serving.cleared(grant, sighting):
            return None
        return self._serving.ready(grant, plan, self._rendered, patience=PATIENCE)

    async def made(self, grant: Grant, plan: Plan, sighting: Sighting) -> Served:
        """The same within PATIENCE; raises whatever keeps a session from being made, or this program from it."""
        left = await self._serving.admitted(grant, plan, sighting, patience=PATIENCE)
        ready = None if self.locked else self._serving.ready(grant, plan, self._rendered, patience=left)
        served = ready or await self._serving.made(grant, plan, sighting, self._rendered, patience=left)
        if not self._grants.lives(grant.id):  # revoked meanwhile, and that was acknowledged
            raise InvalidToken(_NO_GRANT)
        if not self._serving.still_admitted(grant, sighting):
            raise _gone_again(grant)
        return served

    @property
    def locked(self) -> bool:
        """Nothing is served."""
        return self._broker.locked

    def landed(self, token: bytes, path: str, sighting: Sighting) -> Served:
        """What a held request gets, in the turn of its bytes: grant, plan and session as they are now, not as they were
        when it came. Raises what `grant` and `plan` do, and StsUnavailable.
        """
        grant = self.grant(token)
        served = self._serving.ready(grant, self.plan(grant, path), self._rendered)
        if served is None or self.locked or not self._serving.still_admitted(grant, sighting):
            raise _gone_again(grant)
        return served

    async def awaited(self, grant: Grant, plan: Plan, sighting: Sighting, patience: float) -> None:
        """For a held request: once the session is made, it is `ready`. Raises what keeps it from being made."""
        left = await self._serving.admitted(grant, plan, sighting, patience=patience)
        await self._serving.session(plan, sighting, patience=left)

    def sent(self, served: Served, sighting: Sighting, audit: Witness) -> Callable[[], None]:
        """What is to be done after the bytes went out."""
        return self._serving.sent(served, sighting, audit)


def _gone_again(grant: Grant) -> StsUnavailable:
    name = shown(grant.profile)
    return StsUnavailable(f"The session of {name} is gone again; type `vault-client use {typed(grant.profile)}`.")
