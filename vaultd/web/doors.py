"""The IMDS listeners, which follow the grants: opened with one, closed with it, reopened on the same port at a start.

Rules (interface.md §5, architecture.md §7)
- A grant keeps its port by number: an open shell has it in its environment. Where another process has it by then, the
  grant is revoked, and status and log say so; no grant is ever moved.
- A port is freed in the turn in which its grant ends, and who is connected to it is cut off.
- Bounded: a listener is a descriptor.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Collection
from typing import Final

from vaultd.engine.attestation import Attestation
from vaultd.engine.grant_records import LOOPBACK, Door
from vaultd.engine.grants import Grant, Grants
from vaultd.engine.seams import Clock
from vaultd.errors import Unwritable, VaultdError
from vaultd.host import sockets
from vaultd.host.peers import Peers
from vaultd.model.plan import Plans
from vaultd.model.text import shown, typed
from vaultd.web.imds import Behind, DoorSide
from vaultd.web.limits import Crowd, Limits
from vaultd.web.serving import Serving, Sessions, Witness

#: What Host may name on a port of a grant's own.
OWN_HOSTS: Final = (LOOPBACK, "localhost")

log = logging.getLogger(__name__)


class Doors:
    """Every open door, by the id of its grant. `crowd` is that of the other listeners: one limit for all. `peers` are
    the doors' own, closed with the last of them.
    """

    def __init__(
        self,
        *,
        plans: Callable[[], Plans],
        broker: Sessions,
        grants: Grants,
        audit: Witness,
        peers: Peers,
        clock: Clock,
        describe: Callable[[int], Awaitable[str]],
        limits: Limits | None = None,
        crowd: Crowd | None = None,
        listen: Callable[[int], socket.socket] = sockets.listen_tcp,
        attestation: Attestation | None = None,
    ) -> None:
        limits = limits or Limits()
        plain, extended = Behind.renderings()
        self._behind = Behind(
            serving=Serving(plans=plans, broker=broker, clock=clock, describe=describe, attestation=attestation),
            grants=grants,
            audit=audit,
            peers=peers,
            clock=clock,
            limits=limits,
            crowd=crowd or Crowd(limits.most()),
            plain=plain,
            extended=extended,
        )
        self._grants = grants
        self._listen = listen
        self._most = limits.most_doors()
        self._sides: dict[str, DoorSide] = {}
        self._lost: dict[str, tuple[str, str]] = {}

    def __len__(self) -> int:
        """How many are open."""
        return len(self._sides)

    @property
    def trouble(self) -> tuple[str, ...]:
        """Which grants lost their port at the start; said until their profile is used with `--imds` again."""
        return tuple(text for _, text in self._lost.values())

    # ---- open ----

    async def open(self, create: Callable[[Door], Grant]) -> Grant:
        """A port of its own for the grant that `create` makes with it; raises Unwritable, and nothing is left then."""
        sock = self._bound()
        try:
            grant = create(Door(*sock.getsockname()))
        except BaseException:
            sock.close()
            raise
        try:
            await self.adopt(grant, sock, hosts=OWN_HOSTS)
        except BaseException:
            with contextlib.suppress(VaultdError):
                self._grants.revoke(grant.id, reason="its port could not be served")
            raise
        self._lost = {lost: said for lost, said in self._lost.items() if said[0] != grant.profile}
        return grant

    async def adopt(self, grant: Grant, sock: socket.socket, *, hosts: Collection[str]) -> None:
        """Serve `grant` on a bound socket, which is the door's from now on; one that it had is closed."""
        self.close(grant)
        self._sides[grant.id] = side = DoorSide(self._behind, grant)
        try:
            await side.start(sock, hosts=hosts)
        except BaseException:
            self.close(grant)
            raise
        log.info("open door grant=%s port=%d", grant.id, grant.door.port if grant.door else 0)

    async def reopen(self) -> None:
        """The doors of the grants that lived through the restart; never raises for one that is lost."""
        for grant in self._grants.list():
            if grant.door is None or grant.door.address != LOOPBACK:  # the link-local socket is handed over to us
                continue
            try:
                await self.adopt(grant, self._listen(grant.door.port), hosts=OWN_HOSTS)
            except (Unwritable, OSError) as exc:
                self._lose(grant, grant.door, exc)

    def _bound(self) -> socket.socket:
        if len(self._sides) >= self._most:
            raise Unwritable(
                f"{self._most} IMDS ports are open, and more are not given out: end a grant that is not needed with "
                "`vault-client revoke GRANT`; `vault-client grants` lists them."
            )
        try:
            return self._listen(0)
        except Unwritable as exc:
            raise Unwritable(
                f"No port can be opened for --imds ({_reason(exc)}): leave --imds out to use the container endpoint."
            ) from exc

    def _lose(self, grant: Grant, door: Door, exc: Exception) -> None:
        why = f"is taken by {sockets.taken_by(door.port)}" if _taken(exc) else f"cannot be opened ({_reason(exc)})"
        why = shown(f"its IMDS port {door.port} {why}")
        name = typed(grant.profile)
        again = f"vault-client exec --imds {name} -- CMD" if grant.kind == "exec" else f"vault-client use --imds {name}"
        said = f"grant {grant.id} of profile {shown(grant.profile)} is revoked, because {why}: type `{again}` again"
        self._lost[grant.id] = grant.profile, said
        log.warning("lose door grant=%s port=%d reason=%r", grant.id, door.port, why)
        with contextlib.suppress(Unwritable):  # it holds in memory, and the sweep tries the disk again
            self._grants.revoke(grant.id, reason=why)

    # ---- close ----

    def close(self, grant: Grant) -> None:
        """The grant has ended, or its socket was taken back; nothing happens where there is no door."""
        side = self._sides.pop(grant.id, None)
        if side is not None:
            side.close()
            log.info("close door grant=%s", grant.id)

    async def close_all(self, *, deadline: float = 2.0) -> None:
        """At stop: no new connections, and `deadline` seconds for the requests that are being answered."""
        sides, self._sides = tuple(self._sides.values()), {}
        await asyncio.gather(*(side.stop(deadline=deadline) for side in sides))
        self._behind.peers.close()


def _cause(exc: Exception) -> OSError | None:
    found = exc if isinstance(exc, OSError) else exc.__cause__
    return found if isinstance(found, OSError) else None


def _taken(exc: Exception) -> bool:
    found = _cause(exc)
    return found is not None and found.errno == errno.EADDRINUSE


def _reason(exc: Exception) -> str:
    found = _cause(exc)
    return os.strerror((found and found.errno) or 0).lower()
