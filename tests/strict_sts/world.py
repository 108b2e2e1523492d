"""The accounts: users, groups, policies, roles, keys and devices, read from templates.

`load` always reads the files anew, so reset is a reload and a tampered copy needs only another path.
"""

import secrets
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.strict_sts import templates
from tests.strict_sts.policy import Policy, parse
from tests.strict_sts.totp import Device

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
ID_LETTERS = string.ascii_uppercase + "234567"


def new_id(prefix: str) -> str:
    return prefix + "".join(secrets.choice(ID_LETTERS) for _ in range(16))


@dataclass
class AccessKey:
    """A long-term key; inactive ones count against the quota of two (aws-facts §2.1)."""

    id: str
    secret: str = field(repr=False)
    user: str
    created: datetime = LONG_AGO
    status: str = "Active"
    last_used: tuple[datetime, str, str] | None = None


@dataclass
class Principal:
    """A user or a role: what can hold identity policies."""

    arn: str
    id: str
    inline: dict[str, Policy] = field(default_factory=dict)
    managed: set[str] = field(default_factory=set)

    @property
    def account(self) -> str:
        return self.arn.split(":")[4]

    @property
    def name(self) -> str:
        return self.arn.rsplit("/", 1)[1]

    @property
    def path(self) -> str:
        tail = self.arn.split(":", 5)[5]
        return tail[tail.index("/") : tail.rindex("/") + 1]


@dataclass
class User(Principal):
    groups: set[str] = field(default_factory=set)
    created: datetime = LONG_AGO


@dataclass
class Role(Principal):
    trust: Policy = field(default_factory=lambda: Policy("trust", ()))
    max_session_duration: int = 3600


@dataclass
class World:
    """Everything that AWS would know of these accounts."""

    users: dict[str, User] = field(default_factory=dict)
    groups: dict[str, Principal] = field(default_factory=dict)
    roles: dict[str, Role] = field(default_factory=dict)
    managed: dict[str, Policy] = field(default_factory=dict)
    keys: dict[str, AccessKey] = field(default_factory=dict)
    devices: dict[str, Device] = field(default_factory=dict)
    sts_off: set[tuple[str, str]] = field(default_factory=set)  # (account, region)
    applications: dict[str, list[str]] = field(default_factory=dict)
    knobs: dict[str, object] = field(default_factory=dict)

    def policies(self, principal: Principal) -> Iterator[Policy]:
        """The identity policies of a user or role: inline, attached, and those of a user's groups."""
        holders = [principal]
        if isinstance(principal, User):
            holders += [self.groups[arn] for arn in sorted(principal.groups)]
        for holder in holders:
            yield from holder.inline.values()
            yield from (self.managed[arn] for arn in sorted(holder.managed))

    def principal(self, arn: str) -> Principal:
        """The user or role of that ARN. Raises ValueError."""
        found = self.users.get(arn) or self.roles.get(arn)
        if found is None:
            raise ValueError(f"this world has no user or role {arn}")
        return found

    def user_named(self, name: str) -> User:
        """By name or ARN. Raises ValueError, too when two accounts have such a user."""
        hits = [user for user in self.users.values() if name in {user.name, user.arn}]
        if len(hits) != 1:
            raise ValueError(f"this world has {len(hits)} users named {name}")
        return hits[0]

    def keys_of(self, user: str) -> list[AccessKey]:
        return [key for key in self.keys.values() if key.user == user]

    def devices_of(self, user: str) -> list[Device]:
        return [device for device in self.devices.values() if device.user == user]


def load(path: Path, replaced: Mapping[str, Path] | None = None) -> World:
    """The world of a world file; `replaced` maps a template's file name to the copy to read in its place."""
    raw = templates.read_yaml(path)
    replaced = dict(replaced or {})
    world = World(knobs=raw.get("knobs", {}), applications=raw.get("applications", {}))
    for name, document in raw.get("managed_policies", {}).items():
        arn = f"arn:aws:iam::aws:policy/{name}"
        world.managed[arn] = parse(arn, document)
    for stack in raw["stacks"]:
        relative = Path(stack["template"])
        template = replaced.pop(relative.name, path.parent / relative)
        _deploy(world, templates.resources(template, account=stack["account"], parameters=stack.get("parameters", {})))
    if replaced:
        raise ValueError(f"{path.name} names no template {', '.join(sorted(replaced))}")
    _check_attachments(world)
    for key in raw.get("keys", ()):
        world.keys[key["id"]] = AccessKey(key["id"], key["secret"], world.principal(key["user"]).arn)
    for device in raw.get("devices", ()):
        add_device(world, device)
    return world


def add_device(world: World, raw: Mapping[str, str]) -> None:
    user = world.user_named(raw["user"]).arn
    seed = raw.get("seed", "") or "".join(secrets.choice(ID_LETTERS) for _ in range(32))
    world.devices[raw["serial"]] = Device(raw["serial"], user, raw.get("kind", "totp"), seed, LONG_AGO)


def add_user(world: World, arn: str) -> User:
    world.users[arn] = User(arn, new_id("AIDA"))
    return world.users[arn]


def _check_attachments(world: World) -> None:
    """A policy ARN that names nothing must not read as "no policy": moto drops it in silence (aws-facts §3)."""
    for holder in (*world.users.values(), *world.groups.values(), *world.roles.values()):
        if missing := holder.managed - set(world.managed):
            raise ValueError(f"{holder.arn}: no managed policy {', '.join(sorted(missing))}")


# --- deploying a stack ------------------------------------------------------------------------------------------------


def _deploy(world: World, found: list[templates.Resource]) -> None:
    """In the order in which one resource may name another."""
    for resource in found:
        _create(world, resource)
    for resource in found:
        _attach(world, resource)


def _create(world: World, resource: templates.Resource) -> None:
    arn, properties = resource.arn, resource.properties
    if resource.kind == "AWS::IAM::User":
        _permit(add_user(world, arn), properties)
    elif resource.kind == "AWS::IAM::Group":
        world.groups[arn] = Principal(arn, new_id("AGPA"))
        _permit(world.groups[arn], properties)
    elif resource.kind == "AWS::IAM::Role":
        trust = parse(f"{arn} trust", properties["AssumeRolePolicyDocument"])
        world.roles[arn] = Role(
            arn, new_id("AROA"), trust=trust, max_session_duration=int(properties.get("MaxSessionDuration", 3600))
        )
        _permit(world.roles[arn], properties)
    elif resource.kind == "AWS::IAM::ManagedPolicy":
        world.managed[arn] = parse(arn, properties["PolicyDocument"])


def _permit(holder: Principal, properties: Mapping[str, Any]) -> None:
    holder.managed |= set(properties.get("ManagedPolicyArns", ()))
    for inline in properties.get("Policies", ()):
        holder.inline[inline["PolicyName"]] = parse(inline["PolicyName"], inline["PolicyDocument"])


def _attach(world: World, resource: templates.Resource) -> None:
    properties = resource.properties
    if resource.kind == "AWS::IAM::UserToGroupAddition":
        group = _by_name(world.groups, properties["GroupName"])
        for name in properties["Users"]:
            world.user_named(name).groups.add(group.arn)
    elif resource.kind == "AWS::IAM::User":
        for name in properties.get("Groups", ()):
            world.users[resource.arn].groups.add(_by_name(world.groups, name).arn)
    elif resource.kind in {"AWS::IAM::ManagedPolicy", "AWS::IAM::Policy"}:
        for holder in _holders(world, properties):
            if resource.kind == "AWS::IAM::Policy":
                holder.inline[resource.name] = parse(resource.name, properties["PolicyDocument"])
            else:
                holder.managed.add(resource.arn)


def _holders(world: World, properties: Mapping[str, Any]) -> Iterator[Principal]:
    yield from (world.user_named(name) for name in properties.get("Users", ()))
    yield from (_by_name(world.groups, name) for name in properties.get("Groups", ()))
    yield from (_by_name(world.roles, name) for name in properties.get("Roles", ()))


def _by_name(among: Mapping[str, Any], name: str) -> Any:
    hits = [each for each in among.values() if each.name == name]
    if len(hits) != 1:
        raise ValueError(f"{len(hits)} groups or roles named {name}")
    return hits[0]
