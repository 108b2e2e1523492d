"""Builds the `Plan` of plan.py's rules from profiles, settings and the identity index.

Rule: what AWS would refuse is refused here with file:line before anything is sent; what would surprise is a problem
line of the plan. Every value of a step says where it came from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from vaultd.errors import BadProfile, BadRequest, Misconfigured, UnknownIdentity
from vaultd.model import limits
from vaultd.model.credentials import Identity
from vaultd.model.endpoints import find_endpoint
from vaultd.model.environment import slug
from vaultd.model.partitions import Endpoint, parse_arn, partition_of, valid_region
from vaultd.model.plan import Overrides, Plan, RoleParameters, Sourced, Step, StepKind
from vaultd.model.profiles import STATIC_KEYS, Chain, Profile, Profiles
from vaultd.model.text import nearest, shown

#: Sources of credentials that the AWS CLI knows and vaultd does not serve: key → what it is.
_NOT_SERVED = {
    "credential_source": "credentials of the machine",
    "web_identity_token_file": "web identity",
    "sso_session": "IAM Identity Center",
    "sso_start_url": "IAM Identity Center",
    "sso_account_id": "IAM Identity Center",
    "login_session": "`aws login`",
    "credential_process": "credential_process",
}
_WITH_ROLE = ("credential_source", "web_identity_token_file")


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
    environ: Mapping[str, str] = field(default_factory=dict)
    settings_file: str = "config.toml"


@dataclass(slots=True)
class _Draft:
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
        return self.chain.profiles[0]

    @property
    def roles(self) -> list[Profile]:
        """The profiles with a role, in the order of their calls: the identity's side first."""
        return [each for each in reversed(self.chain.profiles) if each.get("role_arn")]

    def problem(self, text: str) -> None:
        if text not in self.problems:
            self.problems.append(text)


@dataclass(frozen=True, slots=True)
class _Found:
    """A value and where it came from."""

    text: str | None
    source: str


def make_plan(
    profiles: Profiles, rules: Rules, identities: Mapping[str, Identity], name: str, overrides: Overrides
) -> Plan:
    """Raises UnknownProfile, UnknownIdentity, BadProfile naming file:line, BadRequest naming an override's field."""
    chain = profiles.chain(name)
    _refuse_unserved(profiles, chain)
    identity = identities.get(chain.identity)
    if identity is None:
        raise UnknownIdentity(_never_added(profiles, chain, identities))
    draft = _Draft(name, profiles, rules, chain, identity, overrides)
    _check_overrides(draft)
    _note_ignored(draft)
    device = _mfa_device(draft)
    endpoint, endpoint_sources = _endpoint(draft)
    steps = _steps(draft, device, endpoint, endpoint_sources)
    last = steps[-1].role
    return Plan(
        profile=name,
        slug=slug(name),
        identity=identity.name,
        steps=steps,
        region=_served_region(draft),
        account_id=account_of(last.role_arn) if last else identity.account_id,
        role_arn=last.role_arn if last else None,
        mfa_serial=device.text,
        problems=tuple(draft.problems),
    )


def account_of(role_arn: str) -> str | None:
    """The 12 digits of a role's ARN, in every partition."""
    arn = parse_arn(role_arn)
    return arn.account_id if arn else None


# ---- what cannot be planned ----


def _refuse_unserved(profiles: Profiles, chain: Chain) -> None:
    """Kinds of source of later issues: parsed, and refused in words rather than served as something else.

    With role_arn and source_profile the CLI looks at no other source but the two of `_WITH_ROLE`.
    """
    for profile in chain.profiles:
        whole = not (profile.get("role_arn") and profile.get("source_profile"))
        for key in _NOT_SERVED if whole else _WITH_ROLE:
            if value := profile.get(key):
                raise BadProfile(
                    f"{profiles.said(profile.name, key, value)}: vaultd does not serve {_NOT_SERVED[key]} yet; leave "
                    f"this profile to the AWS CLI, or remove the line and run `vault-client add {shown(profile.name)}`."
                )


def _never_added(profiles: Profiles, chain: Chain, identities: Mapping[str, Identity]) -> str:
    name = shown(chain.identity)
    if chain.named_by is None:
        return f"No key is stored for the identity {name}: run `vault-client add {name}`"
    where = profiles.said(chain.profiles[-1].name, "source_profile", chain.named_by)
    close = nearest(chain.identity, [*identities, *profiles.names()])
    meant = f" ({close.strip()})" if close else ""
    return f"{where}: no section and no stored key has that name{meant}: run `vault-client add {name}`"


def _check_overrides(draft: _Draft) -> None:
    """A caller's own values: BadRequest naming the field. A policy that could not be applied is never dropped."""
    asked = draft.overrides
    if asked.duration is not None and (wrong := limits.duration(asked.duration)):
        raise BadRequest(f"duration_seconds: {wrong}")
    if asked.region is not None and not valid_region(asked.region):
        raise BadRequest("region: this is no region, pass one such as eu-west-1")
    if wrong := limits.policy(asked.policy, asked.policy_arns):
        raise BadRequest(f"{'policy_arns' if asked.policy_arns else 'policy'}: {wrong}")
    if draft.roles:
        return
    if asked.policy is not None or asked.policy_arns:
        raise BadRequest(
            f"policy: the profile {shown(draft.name)} has no role_arn, and the session of an IAM user takes no policy; "
            "ask for a profile with a role, or without a policy"
        )
    if asked.duration is not None:
        draft.problem(
            "The asked duration shapes roles only, and this profile has none: "
            f"write mfa_duration under [sessions] in {draft.rules.settings_file}."
        )


def _note_ignored(draft: _Draft) -> None:
    """What the file says and vaultd does not do."""
    for profile in draft.chain.profiles:
        if value := next((profile.values[key] for key in sorted(STATIC_KEYS) if key in profile.values), None):
            draft.problem(
                f"{draft.profiles.at(value.line)} [profile {shown(profile.name)}] holds an access key in clear that "
                f"vaultd does not use; remove it, and run `vault-client add {shown(profile.name)}` to store it."
            )
        if value := profile.get("mfa_process"):
            draft.problem(
                f"{draft.profiles.at(value.line)} [profile {shown(profile.name)}] mfa_process is not run; type the "
                "code when `vault-client use` asks for it."
            )
    if draft.leaf.get("role_arn") is None and draft.roles:
        draft.problem(
            f"[profile {shown(draft.name)}] has no role_arn, so the role of its source_profile is served; write a "
            f"role_arn under it, or use `vault-client use {shown(draft.roles[-1].name)}`."
        )


# ---- the parts of a step ----


def _mfa_device(draft: _Draft) -> _Found:
    """The profile's serial, searched towards the identity; config.toml's; the one detected at `add`."""
    found = _configured_device(draft)
    if found.text is None:
        return found
    if wrong := limits.mfa_serial(found.text):
        kind = BadProfile if found.source.startswith(draft.profiles.file + ":") else Misconfigured
        raise kind(f"{found.source} mfa_serial={shown(found.text)}: this is no MFA device; {wrong}.")
    if ":u2f/" in found.text or ":user/" in found.text:
        draft.problem(
            f"{found.source} mfa_serial={shown(found.text)} shows no codes (a FIDO key or a user, which STS refuses); "
            "write the ARN of an authenticator app's device, `:mfa/NAME`."
        )
    arn = parse_arn(found.text)
    if arn is not None and arn.account_id != draft.identity.account_id:
        draft.problem(
            f"{found.source} mfa_serial={shown(found.text)} is of account {arn.account_id}, and the identity "
            f"{shown(draft.identity.name)} of {draft.identity.account_id}; write the device of the identity's user."
        )
    return found


def _configured_device(draft: _Draft) -> _Found:
    for profile in draft.chain.profiles:
        if value := profile.get("mfa_serial"):
            return _Found(value.text, draft.profiles.at(value.line))
    if serial := draft.rules.identity_serials.get(draft.identity.name):
        return _Found(serial, f"{draft.rules.settings_file} [identities.{shown(draft.identity.name)}]")
    if draft.identity.mfa_serial:
        return _Found(draft.identity.mfa_serial, "detected by `vault-client add`")
    return _Found(None, "no device")


def _endpoint(draft: _Draft) -> tuple[Endpoint, tuple[Sourced, ...]]:
    own = draft.chain.profiles[-1].get("region") if draft.chain.named_by is None else None
    listed = draft.rules.identity_regions.get(draft.identity.name)
    region, source = own.text if own else None, draft.profiles.at(own.line) if own else "default"
    if listed:
        region, source = listed, f"{draft.rules.settings_file} [identities.{shown(draft.identity.name)}]"
    if region is not None and not valid_region(region):
        raise BadProfile(f"{source} region={shown(region)}: this is no region; write one such as eu-west-1.")
    partition = _partition(draft.identity)
    if region and region != "aws-global" and partition_of(region) != partition:
        draft.problem(
            f"{source} region={region} is of partition {partition_of(region)}, and the identity "
            f"{shown(draft.identity.name)} of {partition}; write a region of {partition}."
        )
    return find_endpoint(
        draft.profiles,
        draft.chain.profiles,
        configured=region,
        source=source,
        fallback=draft.rules.region_fallback,
        partition=partition,
        environ=draft.rules.environ,
        allow=draft.rules.endpoint_allow,
    )


def _partition(identity: Identity) -> str:
    arn = parse_arn(identity.user_arn)
    return arn.partition if arn else "aws"


def _served_region(draft: _Draft) -> str | None:
    """For AWS_REGION: the grant's, the profile's, its identity's, the fallback, else left alone (interface.md §3)."""
    own = draft.leaf.get("region")
    last = draft.chain.profiles[-1].get("region") if draft.chain.named_by is None else None
    identity = draft.rules.identity_regions.get(draft.identity.name) or (last.text if last else None)
    if own is not None and not valid_region(own.text):
        raise BadProfile(
            f"{draft.profiles.said(draft.name, 'region', own)}: this is no region; write one such as eu-west-1."
        )
    return draft.overrides.region or (own.text if own else None) or identity or draft.rules.region_fallback


# ---- steps ----


def _steps(
    draft: _Draft, device: _Found, endpoint: Endpoint, endpoint_sources: tuple[Sourced, ...]
) -> tuple[Step, ...]:
    roles = [_role(draft, profile, last=profile is draft.roles[-1]) for profile in draft.roles]
    durations = [_duration(draft, profile, last=profile is draft.roles[-1]) for profile in draft.roles]
    direct = bool(device.text) and len(roles) == 1 and durations[0][0] > limits.CHAINED_DURATION
    steps: list[Step] = []
    if not roles or (device.text and not direct):
        steps.append(_user_step(draft, device, endpoint, endpoint_sources))
    for position, (role, sources) in enumerate(roles):
        profile = draft.roles[position]
        asked, asked_source = durations[position]
        if steps and asked > limits.CHAINED_DURATION:
            asked, asked_source = _capped(draft, profile, asked, asked_source)
        kind: StepKind = "assume_role_with_code" if direct else "assume_role"
        steps.append(
            Step(
                kind=kind,
                fingerprint=_fingerprint(
                    draft.identity, kind, device.text if direct else None, endpoint, asked, role, _parent(steps)
                ),
                profile=profile.name,
                identity=draft.identity.name,
                mfa_serial=device.text if direct else None,
                endpoint=endpoint,
                duration=asked,
                role=role,
                # a role session carries no MFA age, so the limit is the first role's alone (aws-facts §1.2)
                mfa_max_age=draft.rules.mfa_max_age.get(profile.name) if position == 0 else None,
                sources=(
                    *sources,
                    Sourced("duration", f"{int(asked.total_seconds())}s", asked_source),
                    *([Sourced("mfa_serial", device.text, device.source)] if direct and device.text else []),
                    *endpoint_sources,
                ),
            )
        )
    return tuple(steps)


def _parent(steps: list[Step]) -> str | None:
    return steps[-1].fingerprint if steps else None


def _user_step(draft: _Draft, device: _Found, endpoint: Endpoint, endpoint_sources: tuple[Sourced, ...]) -> Step:
    """GetSessionToken. Its fingerprint knows no profile: one code serves every role of the identity."""
    kind: StepKind = "mfa_session" if device.text else "session_token"
    if kind == "session_token":
        draft.problem(
            f"The identity {shown(draft.identity.name)} has no MFA device, so AWS refuses IAM calls of this session; "
            f"write mfa_serial under [identities.{shown(draft.identity.name)}] in {draft.rules.settings_file}."
        )
    duration = draft.rules.mfa_duration
    named = draft.chain.named_by
    return Step(
        kind=kind,
        fingerprint=_fingerprint(draft.identity, kind, device.text, endpoint, duration, None, None),
        profile=draft.name,
        identity=draft.identity.name,
        mfa_serial=device.text,
        endpoint=endpoint,
        duration=duration,
        mfa_max_age=None if draft.roles else draft.rules.mfa_max_age.get(draft.name),
        sources=(
            Sourced(
                "identity",
                draft.identity.name,
                draft.profiles.at(named.line if named else draft.chain.profiles[-1].line),
            ),
            Sourced("mfa_serial", device.text or "none", device.source),
            Sourced("duration", f"{int(duration.total_seconds())}s", "[sessions] mfa_duration"),
            *endpoint_sources,
        ),
    )


def _duration(draft: _Draft, profile: Profile, *, last: bool) -> tuple[timedelta, str]:
    if last and draft.overrides.duration is not None:
        asked, source = draft.overrides.duration, "asked for"
    elif value := profile.get("duration_seconds"):
        source = draft.profiles.at(value.line)
        asked = timedelta(seconds=int(value.text)) if _number(value.text) else timedelta(0)
        if wrong := limits.duration(asked):
            raise BadProfile(f"{draft.profiles.said(profile.name, 'duration_seconds', value)}: {wrong}.")
    else:
        asked, source = timedelta(seconds=3600), "default"
    if last and asked < limits.COMFORTABLE_DURATION:
        draft.problem(
            f"{int(asked.total_seconds())} s ({source}) is so short that SDKs ask again all the time; write "
            "duration_seconds = 3600."
        )
    return asked, source


def _number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9


def _capped(draft: _Draft, profile: Profile, asked: timedelta, source: str) -> tuple[timedelta, str]:
    """One hour is AWS's limit for role chaining (aws-facts §1.5 row 17); only the served step's cut is a surprise."""
    if profile is draft.roles[-1]:
        draft.problem(
            f"{int(asked.total_seconds())} s ({source}) is cut to 3600 s, AWS's limit for a role assumed from a role; "
            "write duration_seconds = 3600."
        )
    return limits.CHAINED_DURATION, f"{source}, cut to the limit of role chaining"


def _fingerprint(
    identity: Identity,
    kind: StepKind,
    mfa_serial: str | None,
    endpoint: Endpoint,
    duration: timedelta,
    role: RoleParameters | None,
    parent: str | None,
) -> str:
    """Everything that shapes the session (plan.py). The identity's name too, so that `remove` drops its own alone.

    Of the endpoint the region and an override: FIPS, dual stack and CA change the way, not the session.
    """
    shape = [
        [kind, identity.name, identity.user_arn, mfa_serial, endpoint.region, endpoint.sts_url],
        int(duration.total_seconds()),
        None if role is None else [role.role_arn, role.role_session_name, role.external_id, role.source_identity],
        None if role is None else [role.tags, role.transitive_tag_keys, role.policy, role.policy_arns],
        parent,
    ]
    return hashlib.sha256(json.dumps(shape, separators=(",", ":")).encode()).hexdigest()


# ---- AssumeRole's parameters ----


def _role(draft: _Draft, profile: Profile, *, last: bool) -> tuple[RoleParameters, list[Sourced]]:
    sources: list[Sourced] = []

    def checked(key: str, check: object) -> str | None:
        value = profile.get(key)
        if value is None:
            return None
        wrong = check(value.text) if callable(check) else None
        if wrong:
            raise BadProfile(f"{draft.profiles.said(profile.name, key, value)}: {wrong}.")
        sources.append(Sourced(key, shown(value.text), draft.profiles.at(value.line)))
        return value.text

    role_arn = checked("role_arn", limits.role_arn) or ""
    tags, transitive = _tags(draft, profile, sources)
    name, name_source = _session_name(draft, profile)
    sources.append(Sourced("role_session_name", name, name_source))
    role = RoleParameters(
        role_arn=role_arn,
        role_session_name=name,
        external_id=checked("external_id", limits.external_id),
        source_identity=checked("source_identity", limits.source_identity),
        tags=tags,
        transitive_tag_keys=transitive,
        policy=draft.overrides.policy if last else None,
        policy_arns=draft.overrides.policy_arns if last else (),
    )
    if role.policy is not None:
        sources.append(Sourced("policy", shown(role.policy), "asked for"))
    sources.extend(Sourced("policy_arn", arn, "asked for") for arn in role.policy_arns)
    _note_partition(draft, profile, role_arn)
    return role, sources


def _note_partition(draft: _Draft, profile: Profile, role_arn: str) -> None:
    arn, value = parse_arn(role_arn), profile.get("role_arn")
    home = _partition(draft.identity)
    if arn is not None and value is not None and arn.partition != home:
        draft.problem(
            f"{draft.profiles.said(profile.name, 'role_arn', value)} is of partition {arn.partition}, and the identity "
            f"{shown(draft.identity.name)} of {home}: write a source_profile of {arn.partition}."
        )


def _session_name(draft: _Draft, profile: Profile) -> tuple[str, str]:
    """The profile's own, else the template's: the IAM user's name, which `${aws:username}` policies want (§5)."""
    if value := profile.get("role_session_name"):
        name = limits.session_name(value.text)
        if name != value.text:
            draft.problem(
                f"{draft.profiles.said(profile.name, 'role_session_name', value)} is sent as {name}; write 2 to 64 "
                "letters, digits or _+=,.@-."
            )
        return name, draft.profiles.at(value.line)
    text = draft.rules.role_session_name
    for field_name, content in (
        ("{iam_user}", draft.identity.user_name),
        ("{identity}", draft.identity.name),
        ("{profile}", profile.name),
    ):
        text = text.replace(field_name, content)
    return limits.session_name(text), f"[sessions] role_session_name = {shown(draft.rules.role_session_name)}"


def _tags(
    draft: _Draft, profile: Profile, sources: list[Sourced]
) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """`k=v,k2=v2` and `k,k2`, spelled as aws-vault spells them."""
    value, passed_on = profile.get("session_tags"), profile.get("transitive_session_tags")
    pairs: list[tuple[str, str]] = []
    for part in value.text.split(",") if value else []:
        key, equals, content = part.partition("=")
        if value and not equals:
            said = draft.profiles.said(profile.name, "session_tags", value)
            raise BadProfile(f"{said}: {shown(part.strip())!r} has no value; write key=value,key2=value2.")
        pairs.append((key.strip(), content.strip()))
    transitive = tuple(part.strip() for part in passed_on.text.split(",")) if passed_on else ()
    for key_name, found, wrong in (
        ("session_tags", value, limits.tags(pairs, ())),
        ("transitive_session_tags", passed_on, limits.tags((), transitive)),
    ):
        if found is not None:
            if wrong:
                raise BadProfile(f"{draft.profiles.said(profile.name, key_name, found)}: {wrong}.")
            sources.append(Sourced(key_name, shown(found.text), draft.profiles.at(found.line)))
    return tuple(pairs), transitive
