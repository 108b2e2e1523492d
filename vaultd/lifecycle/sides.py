"""The sides that a daemon shows to programs and people, built together: what is served, opened and ended in order.

Rule: it is imported late. aiohttp is 200 ms of import, and the keeper is to exist before it (architecture.md §3).
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from vaultd.catalog import Catalog
from vaultd.engine.attestation import Attestation
from vaultd.engine.audit import Audit
from vaultd.engine.broker import Broker
from vaultd.engine.desk import Desk
from vaultd.engine.grant_records import Grant
from vaultd.engine.grants import Grants
from vaultd.engine.rotations import Rotations
from vaultd.engine.seams import Custody, Importer
from vaultd.engine.signins import SignIns
from vaultd.host.peers import Peers
from vaultd.lifecycle.clients import Clients
from vaultd.lifecycle.surroundings import Surroundings
from vaultd.web.app import SdkSide
from vaultd.web.control import Control
from vaultd.web.doors import Doors
from vaultd.web.handover import Handover, Held, Offer
from vaultd.web.hold import Holds
from vaultd.web.limits import Crowd, Limits
from vaultd.web.link_local import LinkLocalSide
from vaultd.web.rooms import Lifecycle, Rooms


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """What every side works with. `catalog` is the snapshot, `looked` the file as it is now."""

    around: Surroundings
    desk: Desk
    broker: Broker
    grants: Grants
    audit: Audit
    attestation: Attestation
    clients: Clients
    custody: Custody
    importer: Importer
    rotations: Rotations
    signins: SignIns
    catalog: Callable[[], Catalog]
    looked: Callable[[], Awaitable[Catalog]]
    lifecycle: Lifecycle
    boot_id: str
    port: Callable[[], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """The credential endpoint, the doors of IMDS and of the link-local addresses, and the control API."""

    sdk: SdkSide
    doors: Doors
    linked: LinkLocalSide
    handover: Handover
    control: Control

    async def start(self, tcp: socket.socket, unix: socket.socket, *, handed: Callable[[], socket.socket]) -> None:
        """`handed`: opens the socket over which listening sockets are handed to us, which is done last."""
        await self.doors.reopen()
        await self.sdk.start(tcp)
        await self.control.start(unix)
        self.handover.start(handed())

    def ended(self, grant: Grant, reason: str) -> None:
        """Its door goes in the same turn."""
        self.doors.close(grant)
        self.linked.ended(grant, reason)

    async def stop_serving(self) -> None:
        """What SDKs are connected to; whoever waits at the control API is told of the end later, by `close`."""
        await self.sdk.stop()
        await self.handover.close()
        await self.doors.close_all()


def build(behind: Behind) -> Sides:
    """Nothing is served yet."""
    prompt, limits = behind.around.settings.prompt, Limits()
    crowd, sdk_peers = Crowd(limits.most()), Peers()
    holds = Holds(
        questions=behind.desk,
        clock=behind.around.clock,
        mode=prompt.hold,
        longest=prompt.hold_max,
        most=limits.most_held(),
    )

    def side() -> SdkSide:
        """A listener; what it holds ends with it."""
        return SdkSide(
            plans=behind.catalog,
            broker=behind.broker,
            grants=behind.grants,
            audit=behind.audit,
            peers=sdk_peers,
            clock=behind.around.clock,
            describe=behind.clients.describe,
            holds=holds,
            crowd=crowd,
            attestation=behind.attestation,
        )

    async def take(offer: Offer, sock: socket.socket) -> Held:
        """The profile of a unit is that of the file as it is now."""
        try:
            await behind.looked()
        except BaseException:
            sock.close()
            raise
        return await linked.take(offer, sock)

    sdk, doors = side(), _doors(behind, crowd)
    linked = LinkLocalSide(plans=behind.catalog, grants=behind.grants, doors=doors, audit=behind.audit, sides=side)
    return Sides(
        sdk=sdk,
        doors=doors,
        linked=linked,
        handover=Handover(take=take),
        control=Control(_rooms(behind, doors, linked)),
    )


def _doors(behind: Behind, crowd: Crowd) -> Doors:
    return Doors(
        plans=behind.catalog,
        broker=behind.broker,
        grants=behind.grants,
        audit=behind.audit,
        peers=Peers(),
        clock=behind.around.clock,
        describe=behind.clients.describe,
        crowd=crowd,
        attestation=behind.attestation,
    )


def _rooms(behind: Behind, doors: Doors, linked: LinkLocalSide) -> Rooms:
    return Rooms(
        catalog=behind.looked,
        broker=behind.broker,
        desk=behind.desk,
        grants=behind.grants,
        doors=doors,
        linked=linked,
        audit=behind.audit,
        attestation=behind.attestation,
        custody=behind.custody,
        importer=behind.importer,
        rotations=behind.rotations,
        signins=behind.signins,
        lifecycle=behind.lifecycle,
        clock=behind.around.clock,
        boot_id=behind.boot_id,
        port=behind.port,
    )
