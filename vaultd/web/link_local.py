"""What is served on the link-local addresses: 169.254.169.254 for one profile, 169.254.170.2 for whoever has a token.

Rules (interface.md §4, §5)
- An address is served for one process at a time, and only while that process stays (web/handover.py).
- 169.254.169.254 is the door of a grant of kind lease. It is made for the profile that the unit names, and found again
  by a daemon that was restarted, so that metadata tokens live on. It is pinned as every grant is: a profile that has
  come to mean another role is refused until the grant is revoked and the unit restarted.
- A grant that expired or idled out while its address is held has a successor with the same metadata key; one that was
  revoked has none.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from vaultd.engine.grant_records import Door, Grant
from vaultd.engine.grants import Grants
from vaultd.errors import Unwritable, VaultdError
from vaultd.host.link_local import PLACES, LinkLocal
from vaultd.model.peer import Peer
from vaultd.model.plan import Overrides, Plans
from vaultd.web.app import SdkSide
from vaultd.web.doors import Doors
from vaultd.web.handover import Held, Offer

#: What ends a grant by itself; the address is still wanted.
_BY_ITSELF: Final = frozenset({"expired", "idle"})

log = logging.getLogger(__name__)


class Log(Protocol):
    """What is used of the audit log."""

    def record(self, event: str, *, sync: bool = False, **fields: object) -> None:
        """One line of interface.md §8."""


class Sides(Protocol):
    """Makes another listener of the SDK side, on the same connections' limit."""

    def __call__(self) -> SdkSide:
        """One that was not started yet."""


class LinkLocalSide:
    """Serves what `Handover` takes. `ended` is to be told of every grant's end."""

    def __init__(
        self,
        *,
        plans: Callable[[], Plans],
        grants: Grants,
        doors: Doors,
        audit: Log,
        sides: Sides,
        places: Mapping[str, LinkLocal] = PLACES,
    ) -> None:
        self._plans = plans
        self._grants = grants
        self._doors = doors
        self._audit = audit
        self._sides = sides
        self._places = places
        self._held: dict[str, _Imds | _Ecs] = {}
        self._following: set[asyncio.Task[None]] = set()

    async def take(self, offer: Offer, sock: socket.socket) -> Held:
        """Serve an offered socket. Raises Unwritable (held already), UnknownProfile, UnknownIdentity, BadProfile."""
        place = self._places[offer.dialect]
        try:
            held = self._prepared(offer, sock, place)
        except BaseException:
            sock.close()
            raise
        self._held[offer.dialect] = held
        try:
            await held.open()
        except BaseException:
            await held.close()
            raise
        log.info("take listener address=%s grant=%s", place.address, held.grant)
        return held

    def _prepared(self, offer: Offer, sock: socket.socket, place: LinkLocal) -> _Imds | _Ecs:
        if offer.dialect in self._held:
            raise Unwritable(
                f"{place.address} is held by another process of yours: type `systemctl status {place.unit}`."
            )
        if offer.profile is None:
            return _Ecs(self, self._sides(), sock, place)
        door = Door(place.address, place.port)
        return _Imds(self, sock, self._found(offer.profile, door) or self._granted(offer.profile, door, offer.peer))

    def _found(self, profile: str, door: Door) -> Grant | None:
        """The grant of that address from before a restart; one of another profile ends: the unit was changed."""
        same = None
        for grant in self._grants.list():
            if grant.door != door:
                continue
            if grant.profile == profile and same is None:
                same = grant
            else:
                self._grants.revoke(grant.id, reason="its address was given to another profile")
        return same

    def _granted(self, profile: str, door: Door, peer: Peer | None, *, key: bytes | None = None) -> Grant:
        plan = self._plans().plan(profile, Overrides())
        grant, _ = self._grants.create(
            profile=plan.profile,
            slug=plan.slug,
            kind="lease",
            ttl=None,
            overrides=Overrides(),
            role_arn=plan.role_arn,
            bound=None,
            peer=peer,
            identity=plan.identity,
            user_arn=plan.user_arn,
            door=door,
            metadata_key=key,
        )
        self._audit.record(
            "grant.create",
            sync=True,
            profile=plan.profile,
            identity=plan.identity,
            role_arn=plan.role_arn,
            grant=grant.id,
            peer=peer,
        )
        return grant

    def ended(self, grant: Grant, reason: str) -> None:
        """A grant has ended: where it held an address, that gets a successor or is over."""
        held = next((each for each in self._held.values() if isinstance(each, _Imds) and each.of(grant)), None)
        if held is None:
            return
        if reason not in _BY_ITSELF:
            held.finish(reason)
            return
        # Not here and now: the grants are in the middle of their sweep.
        task = asyncio.ensure_future(self._follow(held, grant))
        self._following.add(task)
        task.add_done_callback(self._following.discard)

    async def _follow(self, held: _Imds, before: Grant) -> None:
        try:
            assert before.door is not None
            after = self._granted(before.profile, before.door, before.peer, key=before.metadata_key)
            await held.go_on_with(after)
        except VaultdError as exc:  # the profile has left the config, the disk is full
            log.warning("end listener grant=%s reason=%s", before.id, exc)
            held.finish(exc.message)
        except OSError as exc:  # no descriptor is left
            log.warning("end listener grant=%s reason=%s", before.id, exc)
            held.finish("its socket could not be opened again")

    # ---- of what is held ----

    def wire(self) -> list[dict[str, Any]]:
        """`link_local` of GET /v1/status: the addresses that are served now, and for which grant; null for tokens."""
        held = ((self._places[dialect], each.grant) for dialect, each in self._held.items())
        return [{"address": place.address, "port": place.port, "grant": grant} for place, grant in held]

    @property
    def doors(self) -> Doors:
        """The doors of grants."""
        return self._doors

    def left(self, held: _Imds | _Ecs) -> None:
        """It is served no more."""
        for dialect, each in tuple(self._held.items()):
            if each is held:
                del self._held[dialect]
                log.info("leave listener address=%s", self._places[dialect].address)


class _End:
    """When and why a handed-over socket is over. Whoever else has it can shut it down: each accept() fails then, and a
    loop that is told so again and again would do nothing else. Where there is no epoll it is not noticed.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._watch = select.epoll() if sys.platform == "linux" else None
        if self._watch is not None:
            self._watch.register(sock.fileno(), 0)  # nothing but its end, which is always told
            asyncio.get_running_loop().add_reader(self._watch.fileno(), self.come, "its socket listens no more")

    def come(self, reason: str) -> None:
        """Nothing follows."""
        if not self._over.done():
            self._over.set_result(reason)
        self.forget()

    async def wait(self) -> str:
        """Why it is over."""
        return await asyncio.shield(self._over)

    def forget(self) -> None:
        """Watch it no longer."""
        if self._watch is not None:
            asyncio.get_running_loop().remove_reader(self._watch.fileno())
            self._watch.close()
            self._watch = None


class _Imds:
    """169.254.169.254 as a grant's door. The socket stays here: each grant's door gets a duplicate of its own."""

    def __init__(self, side: LinkLocalSide, sock: socket.socket, grant: Grant) -> None:
        self._side = side
        self._sock = sock
        self._grant = grant
        self._end = _End(sock)

    @property
    def grant(self) -> str | None:
        return self._grant.id

    def of(self, grant: Grant) -> bool:
        """Whether it is that one's door."""
        return grant.id == self._grant.id

    async def open(self) -> None:
        """Serve; raises Unwritable."""
        assert self._grant.door is not None
        await self._side.doors.adopt(self._grant, self._sock.dup(), hosts=(self._grant.door.address,))

    async def go_on_with(self, grant: Grant) -> None:
        """The next grant with the same key."""
        self._grant = grant
        if self._sock.fileno() >= 0:
            await self.open()

    def finish(self, reason: str) -> None:
        """Nothing follows."""
        self._end.come(reason)

    async def wait(self) -> str:
        """Why it is over."""
        return await self._end.wait()

    async def close(self) -> None:
        """The door, not the grant."""
        self._end.forget()
        self._side.left(self)
        self._sock.close()
        self._side.doors.close(self._grant)


class _Ecs:
    """169.254.170.2 as another listener of the SDK side."""

    def __init__(self, side: LinkLocalSide, listener: SdkSide, sock: socket.socket, place: LinkLocal) -> None:
        self._side = side
        self._listener = listener
        self._sock = sock
        self._place = place
        self._end = _End(sock)

    @property
    def grant(self) -> str | None:
        return None

    async def open(self) -> None:
        """Serve; the listener owns the socket once it has begun."""
        try:
            await self._listener.start(self._sock, hosts=(self._place.address,))
        except BaseException:
            self._sock.close()
            raise

    async def wait(self) -> str:
        """As long as the socket listens: the tokens come and go, the address stays."""
        return await self._end.wait()

    async def close(self) -> None:
        """No new connections; those that are answered have a moment."""
        self._end.forget()
        self._side.left(self)
        await self._listener.stop(deadline=0.5)
