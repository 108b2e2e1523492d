"""Profile → Plan: the ordered STS calls that end in the session a profile serves.

Rules
- The default path is GetSessionToken with the code, then AssumeRole without one: it works under both readings of a
  ForceMFA policy, and one code serves many roles (aws-facts §1.2, §1.3). A direct AssumeRole with the code is planned
  only when more than 3,600 s are asked for, which a chained call cannot give (row 17).
- GetSessionToken without MFA is never the source of a role: it turns an absent MFA key into false.
- A step's fingerprint is everything that shapes its session: the user's ARN, serial, endpoint region, role, duration,
  tags, policy, external id, source identity, session name, and its parent's fingerprint; never the access key id,
  because rotation would orphan every session.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, Protocol

from vaultd.model.partitions import Endpoint

#: mfa_session: GetSessionToken with a code. session_token: without (profile without role, identity without MFA).
#: assume_role: from the previous step, or from the identity key where it is the first.
#: assume_role_with_code: from the identity key, with SerialNumber and TokenCode.
StepKind = Literal["mfa_session", "session_token", "assume_role", "assume_role_with_code"]


#: The source of a value that a grant brought with it; what is made of it is said behind.
ASKED_FOR = "asked for"


@dataclass(frozen=True, slots=True)
class RoleParameters:
    """AssumeRole's parameters but for the code; names are AWS's own. `tags` are (key, value) in config order."""

    role_arn: str
    role_session_name: str
    external_id: str | None = None
    source_identity: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    transitive_tag_keys: tuple[str, ...] = ()
    policy: str | None = None
    policy_arns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sourced:
    """One line of `explain`: a step's field, its value as text, and where it came from (`config:12`, `default`)."""

    field: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class Step:
    """One STS call. `fingerprint` (64 hex digits) is the key of its cell; `duration` is what is asked of AWS."""

    kind: StepKind
    fingerprint: str
    profile: str
    identity: str
    mfa_serial: str | None
    endpoint: Endpoint
    duration: timedelta
    role: RoleParameters | None = None
    mfa_max_age: timedelta | None = None
    sources: tuple[Sourced, ...] = ()

    @property
    def needs_code(self) -> bool:
        """True when the call itself carries a token code."""
        return self.kind in {"mfa_session", "assume_role_with_code"}

    @property
    def length_asked(self) -> bool:
        """True when the duration is the caller's (`--duration`): then no line of the config file is to be changed."""
        return any(each.field == "duration" and each.source.startswith(ASKED_FOR) for each in self.sources)


@dataclass(frozen=True, slots=True)
class Callers:
    """Which programs a profile is given to, as its `[profiles.NAME]` says; without one: any of this user but relays."""

    protected: bool = False
    allow_executables: tuple[str, ...] | None = None
    relays: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What it takes to serve one profile. `account_id` and `role_arn` are those of the last step, where known;
    `user_arn` is the identity's own.

    `problems` would make it fail or surprise (sentences ending in what to type); they are shown by `explain`.
    """

    profile: str
    slug: str
    identity: str
    steps: tuple[Step, ...]
    region: str | None = None
    account_id: str | None = None
    role_arn: str | None = None
    mfa_serial: str | None = None
    problems: tuple[str, ...] = ()
    user_arn: str | None = None
    callers: Callers = Callers()

    @property
    def last(self) -> Step:
        """The step whose session is served."""
        return self.steps[-1]


@dataclass(frozen=True, slots=True)
class Overrides:
    """What a grant asks for beyond its profile; part of every fingerprint it shapes."""

    duration: timedelta | None = None
    region: str | None = None
    policy: str | None = None
    policy_arns: tuple[str, ...] = ()


class Plans(Protocol):
    """What engine and web need of the catalog: one frozen, numbered snapshot. `number` grows with every change."""

    @property
    def number(self) -> int:
        """The snapshot's number; a plan is good for as long as it stands."""

    def names(self) -> tuple[str, ...]:
        """Every profile, in file order."""

    def slug(self, profile: str) -> str:
        """The profile's path segment under /v1/credentials/."""

    def plan(self, profile: str, overrides: Overrides = Overrides()) -> Plan:
        """Raises UnknownProfile with the nearest names, UnknownIdentity, BadProfile naming file:line."""
