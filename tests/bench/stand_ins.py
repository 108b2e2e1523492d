"""The SDK side on real grants, audit and peers; its broker is a stand-in that holds one session."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from vaultd.catalog import Catalog
from vaultd.engine.attestation import Attestation
from vaultd.engine.audit import Audit
from vaultd.engine.desk import Desk
from vaultd.engine.grants import Grants
from vaultd.files import Files
from vaultd.host.clock import SystemClock
from vaultd.host.peers import Peers
from vaultd.lifecycle.clients import Clients
from vaultd.model.credentials import RoleSession
from vaultd.model.plan import Overrides, Plan
from vaultd.web.app import SdkSide


@dataclass
class OneSession:
    """A broker that always has the session."""

    session_held: RoleSession
    used_count: int = 0
    locked: bool = False

    def peek(self, plan: Plan, *, patience: float = 0.0) -> RoleSession | None:
        return self.session_held

    async def session(self, plan: Plan, *, requester: str, wait: float | None = None) -> RoleSession:
        return self.session_held

    def used(self, plan: Plan) -> None:
        self.used_count += 1


@dataclass
class OnePlan:
    """A catalog of one profile."""

    made: Plan
    number: int = 1
    names_held: tuple[str, ...] = field(default=("web-admin",))

    def names(self) -> tuple[str, ...]:
        return self.names_held

    def slug(self, profile: str) -> str:
        return profile

    def plan(self, profile: str, overrides: Overrides = Overrides()) -> Plan:  # noqa: B008 (frozen)
        return self.made


def _no_catalog() -> Catalog:
    raise AssertionError("nobody asks which profiles are in use")


def sdk_side(folder: Path, session: RoleSession, *, slug: str) -> tuple[SdkSide, str, Audit]:
    """An SdkSide that serves `session`, the token that it takes, and its audit, whose task the caller runs."""
    files, clock = Files(), SystemClock()
    folder.chmod(0o700)
    (folder / "grants").mkdir(mode=0o700)
    grants = Grants(
        files=files,
        path=folder / "grants.json",
        tokens=folder / "grants",
        clock=clock,
        max_age=timedelta(days=1),
        idle_timeout=timedelta(days=1),
        boot_id="boot",
        alive=lambda bound: True,
        on_revoke=lambda grant, reason: None,
    )
    grants.load()
    _, token = grants.create(
        profile=slug,
        slug=slug,
        kind="lease",
        ttl=None,
        overrides=Overrides(),
        role_arn=session.role_arn,
        bound=None,
        peer=None,
    )
    audit = Audit(files=files, path=folder / "audit.jsonl", clock=clock, max_bytes=1 << 20, keep=1, look=None)
    plans = OnePlan(Plan(profile=slug, slug=slug, identity="franklin", steps=(), role_arn=session.role_arn))
    clients = Clients(grants=lambda: grants, catalog=_no_catalog, clock=clock)
    attestation = Attestation(
        programs=clients,
        policies={},
        desk=Desk(clock=clock, timeout=timedelta(seconds=120), cancel_cooldown=timedelta(seconds=120)),
        clock=clock,
        audit=audit,
        met=grants.met,
    )
    side = SdkSide(
        plans=lambda: plans,
        broker=OneSession(session),
        grants=grants,
        audit=audit,
        peers=Peers(),
        clock=clock,
        describe=clients.describe,
        attestation=attestation,
    )
    return side, token.reveal(), audit
