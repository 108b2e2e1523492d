"""What the routes of the control API work with: every collaborator, built once by daemon.py, and the caller."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web

from vaultd.engine.attestation import Attestation
from vaultd.engine.audit import Audit
from vaultd.engine.broker import Broker
from vaultd.engine.desk import Desk
from vaultd.engine.grants import Grants
from vaultd.engine.rotations import Rotations
from vaultd.engine.seams import Clock, Custody, Importer
from vaultd.engine.signins import SignIns
from vaultd.host import processes
from vaultd.model.ground import Ground
from vaultd.model.peer import Peer
from vaultd.model.plan import Overrides, Plan
from vaultd.model.secret import Secret
from vaultd.web.control_connection import ControlConnection
from vaultd.web.doors import Doors
from vaultd.web.link_local import LinkLocalSide


class Catalogue(Protocol):
    """What the control side reads of the catalog's current snapshot."""

    def names(self) -> tuple[str, ...]:
        """Every profile, in file order."""

    def plan(self, profile: str, overrides: Overrides = ...) -> Plan:
        """Raises UnknownProfile, UnknownIdentity, BadProfile."""

    def served_as(self, profile: str) -> str:
        """The profile whose session its row tells of: another one where its tools get that one's from vaultd."""

    def summary(self, profile: str) -> Mapping[str, str | None]:
        """{profile, account_id, role_arn, identity, mfa_serial}: the static part of its row, fit for the wire."""

    def marked(self, cells: Collection[str]) -> list[str]:
        """The profiles that have one of these cells, or cannot be planned; of those that were planned."""

    def identity_ground(self, name: str) -> Ground:
        """An identity's own MFA device and endpoint, also before it was added."""

    def trouble(self) -> tuple[str, ...]:
        """What of the AWS config file cannot be read, or is overlooked."""


class Lifecycle(Protocol):
    """What only the composition root can do: it owns the order of lock, unlock and stop."""

    def status(self) -> dict[str, Any]:
        """The daemon's own part of the status object of interface.md §6; the lists are the route's."""

    async def lock(self, *, by: Peer | None) -> None:
        """Forget keys and sessions, serve nothing, survive a restart; raises Unwritable when it would not survive."""

    async def unlock(self, passphrase: Secret | None, *, accept_rollback: bool, by: Peer | None) -> dict[str, bool]:
        """Open the store: `{"created": True}` where it was not there, `{"open": True}` where it was open. Raises
        Locked, WrongPassphrase (after a delay), StoreUnavailable, KeyringBusy, StoreDamaged, StoreRolledBack.
        """

    async def checks(self) -> list[dict[str, Any]]:
        """Every diagnosis: {name, ok, message, remedy}."""

    def identities_changed(self) -> None:
        """The index has changed: plans are made anew."""

    def granted(self) -> None:
        """A grant was made: its session is to be kept fresh."""

    def used(self) -> None:
        """A person's command has come, or has been answered."""

    def stop(self, *, by: Peer | None) -> None:
        """Begin the orderly end; returns at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """The collaborators of every route."""

    #: The file as it is now: a changed one is read first, beside the loop.
    catalog: Callable[[], Awaitable[Catalogue]]
    broker: Broker
    desk: Desk
    grants: Grants
    doors: Doors
    linked: LinkLocalSide
    audit: Audit
    attestation: Attestation
    custody: Custody
    importer: Importer
    rotations: Rotations
    signins: SignIns
    lifecycle: Lifecycle
    clock: Clock
    boot_id: str
    port: Callable[[], int]


def connection(request: web.Request) -> ControlConnection:
    """The connection behind a request."""
    protocol = request.protocol
    assert isinstance(protocol, ControlConnection)
    return protocol


def caller(request: web.Request) -> Peer:
    """The process at the other end, as SO_PEERCRED said at accept."""
    peer = connection(request).peer
    assert peer is not None
    return peer


def requester(request: web.Request) -> str:
    """Who asks, for the line that a person reads before typing a code."""
    return processes.describe(caller(request), looking=False)  # on the loop
