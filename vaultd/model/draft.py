"""What the parts of a planner share: the rules from the settings, and a plan in the making with its problems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from vaultd.model.credentials import Identity
from vaultd.model.partitions import parse_arn
from vaultd.model.plan import Callers, Overrides
from vaultd.model.profiles import Chain, Profile, Profiles


@dataclass(frozen=True, slots=True)
class Rules:
    """What config.toml and the environment of `vaultd start` say about plans.

    `environ` holds AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_STS, AWS_ENDPOINT_URL_IAM and
    AWS_IGNORE_CONFIGURED_ENDPOINT_URLS, where set. `settings_file` is config.toml's name in messages.
    """

    mfa_duration: timedelta = timedelta(hours=12)
    role_session_name: str = "{iam_user}"
    region_fallback: str | None = None
    endpoint_allow: tuple[str, ...] = ()
    identity_regions: Mapping[str, str] = field(default_factory=dict)
    identity_serials: Mapping[str, str] = field(default_factory=dict)
    mfa_max_age: Mapping[str, timedelta] = field(default_factory=dict)
    callers: Mapping[str, Callers] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    settings_file: str = "config.toml"


@dataclass(slots=True)
class Draft:
    """A plan being built: what is known before its first step, and the problems found on the way."""

    name: str
    profiles: Profiles
    rules: Rules
    chain: Chain
    identity: Identity
    overrides: Overrides
    problems: list[str] = field(default_factory=list)

    @property
    def leaf(self) -> Profile:
        """The profile that was asked for."""
        return self.chain.profiles[0]

    @property
    def roles(self) -> list[Profile]:
        """The profiles with a role, in the order of their calls: the identity's side first.

        None for a profile without `role_arn`: it serves the user's own session, whatever its source is (interface.md).
        """
        if self.leaf.get("role_arn") is None:
            return []
        return [each for each in reversed(self.chain.profiles) if each.get("role_arn")]

    @property
    def partition(self) -> str:
        """The identity's: keys do not cross partitions."""
        arn = parse_arn(self.identity.user_arn)
        return arn.partition if arn else "aws"

    @property
    def identity_profile(self) -> Profile | None:
        """The section of the identity's own name, where the chain ends in one."""
        return self.chain.profiles[-1] if self.chain.named_by is None else None

    def problem(self, text: str) -> None:
        """Note a sentence that ends in what to type, once."""
        if text not in self.problems:
            self.problems.append(text)


@dataclass(frozen=True, slots=True)
class Found:
    """A value and where it came from."""

    text: str | None
    source: str
