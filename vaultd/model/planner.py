"""Builds the `Plan` of plan.py's rules from profiles, settings and the identity index.

Rule: what AWS would refuse is refused here with file:line before anything is sent; what would surprise is a problem
line of the plan. Every value of a step says where it came from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import timedelta

from vaultd.errors import BadProfile, BadRequest, UnknownIdentity, UnknownProfile
from vaultd.model import limits
from vaultd.model.credentials import Identity
from vaultd.model.draft import Draft, Rules
from vaultd.model.environment import slug
from vaultd.model.ground import Ground, find_ground, served_region
from vaultd.model.partitions import Endpoint, account_of, valid_region
from vaultd.model.plan import ASKED_FOR, Callers, Overrides, Plan, RoleParameters, Sourced, Step, StepKind
from vaultd.model.profiles import STATIC_KEYS, Chain, Profile, Profiles, Value, by_client
from vaultd.model.roles import role_parameters
from vaultd.model.text import LIMIT, shown, typed

#: Sources of credentials that the AWS CLI knows and vaultd does not serve: key → what it is.
_NOT_SERVED = {
    "credential_source": "machine credentials",
    "web_identity_token_file": "web identity",
    "sso_session": "IAM Identity Center",
    "sso_start_url": "IAM Identity Center",
    "sso_account_id": "IAM Identity Center",
    "login_session": "`aws login`",
    "credential_process": "it",
}
#: Characters of names that a message has room for at the least.
_QUOTED = 24
_WITH_ROLE = ("credential_source", "web_identity_token_file")


def make_plan(
    profiles: Profiles, rules: Rules, identities: Mapping[str, Identity], name: str, overrides: Overrides
) -> Plan:
    """Raises UnknownProfile, UnknownIdentity, BadProfile naming file:line, BadRequest naming an override's field."""
    chain = _chain(profiles, identities, name)
    _refuse_unserved(profiles, chain)
    identity = identities.get(chain.identity)
    if identity is None:
        raise UnknownIdentity(_never_added(profiles, chain, identities))
    draft = Draft(name, profiles, rules, chain, identity, overrides)
    _check_overrides(draft)
    _note_ignored(draft)
    ground = find_ground(draft)
    steps = _steps(draft, ground)
    last = steps[-1].role
    return Plan(
        profile=name,
        slug=slug(name),
        identity=identity.name,
        steps=steps,
        region=served_region(draft),
        account_id=account_of(last.role_arn) if last else identity.account_id,
        role_arn=last.role_arn if last else None,
        mfa_serial=ground.device.serial,
        problems=tuple(draft.problems),
        user_arn=identity.user_arn,
        callers=rules.callers.get(name, Callers()),
    )


# ---- what cannot be planned ----


def _chain(profiles: Profiles, identities: Mapping[str, Identity], name: str) -> Chain:
    """The name of a key is what people remember; it takes a profile to use it (interface.md, head)."""
    try:
        return profiles.chain(name)
    except UnknownProfile as exc:
        if name not in identities:
            raise
        raise UnknownProfile(
            f"{shown(name)} is a stored identity, and there is no profile of that name: write `[profile NAME]` with "
            f"`source_profile = {shown(name)}` into {profiles.file}, then type `vault-client use NAME`."
        ) from exc


def _refuse_unserved(profiles: Profiles, chain: Chain) -> None:
    """Kinds of source of later issues: parsed, and refused in words rather than served as something else.

    With role_arn and source_profile the CLI looks at no other source but the two of `_WITH_ROLE`.
    """
    for profile in chain.profiles:
        whole = not (profile.get("role_arn") and profile.get("source_profile"))
        for key in _NOT_SERVED if whole else _WITH_ROLE:
            if value := profile.get(key):
                ours = key == "credential_process" and by_client(value.text)
                said = _through(profiles, chain, profile.name, value, ours) if ours else None
                raise BadProfile(said or _unserved(profiles, profile.name, key, value))


def _unserved(profiles: Profiles, name: str, key: str, value: Value) -> str:
    """With the name of the key to add where that fits on the wire (interface.md §6)."""
    start = f": vaultd does not serve {_NOT_SERVED[key]} yet; leave it to the AWS CLI, or remove the line and"
    whole = profiles.said(name, key, value, f"{start} {_adding(name)}.")
    return whole if len(whole) <= LIMIT else profiles.said(name, key, value, f"{start} {_adding('IDENTITY')}.")


def _through(profiles: Profiles, chain: Chain, name: str, value: Value, target: str) -> str:
    """Our own client in the line: its tools have their keys from vaultd, and nothing is to be removed."""
    section = profiles.profiles.get(target)
    if section is None:
        then = short = ": there is no such profile; write the name of one there."
    elif "credential_process" in section.values:
        then = short = ": that profile has such a line itself; write the name of the one that has the role there."
    elif name != chain.profiles[0].name:
        then = f": a source has to be the profile itself; write `source_profile = {shown(target)}`."
        short = ": a source has to be the profile itself; write the one of that line as source_profile."
    else:
        then = f": vaultd serves it through {shown(target)}, so type `vault-client use {typed(target)}`."
        short = ": vaultd serves it through the profile that it names, so type `vault-client use PROFILE`."
    room = LIMIT - _QUOTED - len(f"{profiles.at(value.line)} [profile ] credential_process=")
    return profiles.said(name, "credential_process", value, then if len(then) <= room else short)


def _adding(name: str) -> str:
    storable = limits.identity_name(name) is None
    return f"run `vault-client add {typed(name)}`" if storable else "run `vault-client add IDENTITY`"


def _never_added(profiles: Profiles, chain: Chain, identities: Mapping[str, Identity]) -> str:
    if chain.named_by is None:
        said = f"No key is stored for the identity {shown(chain.identity)}"
        if limits.identity_name(chain.identity) is not None:
            return f"{said}, and none can be under that name: write a source_profile of another name into the section"
        return f"{said}: {_adding(chain.identity)}"
    close = profiles.near(chain.identity, identities)
    meant = f" ({close.strip()})" if close else ""
    then = f": no section and no stored key has that name{meant}"
    if limits.identity_name(chain.identity) is not None:
        then += ", and no key can be stored under it: write another source_profile there"
    else:
        then += f": {_adding(chain.identity)}"
    return profiles.said(chain.profiles[-1].name, "source_profile", chain.named_by, then)


def _check_overrides(draft: Draft) -> None:
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


def _note_ignored(draft: Draft) -> None:
    """What the file says and vaultd does not do."""
    for profile in draft.chain.profiles:
        if value := next((profile.values[key] for key in sorted(STATIC_KEYS) if key in profile.values), None):
            draft.problem(
                f"{draft.profiles.at(value.line)} [profile {shown(profile.name)}] holds an access key in clear that "
                f"vaultd does not use; remove it, and {_adding(profile.name)} to store it."
            )
        if value := profile.get("mfa_process"):
            draft.problem(
                f"{draft.profiles.at(value.line)} [profile {shown(profile.name)}] mfa_process is not run; type the "
                "code when `vault-client use` asks for it."
            )
    source = next((each for each in draft.chain.profiles if each.get("role_arn")), None)
    if draft.leaf.get("role_arn") is None and source is not None:
        draft.problem(
            f"[profile {shown(draft.name)}] has no role_arn, so it serves the identity's own session and not the role "
            f"of its source_profile; write a role_arn under it, or use `vault-client use {typed(source.name)}`."
        )


# ---- steps ----


def _steps(draft: Draft, ground: Ground) -> tuple[Step, ...]:
    """The user's own session first, but for the two cases of plan.py's rules; then the roles, each from the last."""
    durations = [_duration(draft, each) for each in draft.roles]
    device = ground.device.serial
    direct = device is not None and len(durations) == 1 and durations[0][0] > limits.CHAINED_DURATION
    steps: list[Step] = []
    if not draft.roles or (device is not None and not direct):
        steps.append(_user_step(draft, ground))
    for profile, duration in zip(draft.roles, durations, strict=True):
        asked = _capped(draft, profile, *duration) if steps else duration
        parent = steps[-1].fingerprint if steps else None
        steps.append(_role_step(draft, ground, profile, asked, parent=parent, with_code=direct))
    return tuple(steps)


def _user_step(draft: Draft, ground: Ground) -> Step:
    """GetSessionToken. Its fingerprint knows no profile: one code serves every role of the identity."""
    name, device = draft.identity.name, ground.device
    kind: StepKind = "mfa_session" if device.serial else "session_token"
    if kind == "session_token":
        draft.problem(
            f"The identity {shown(name)} has no MFA device, so AWS refuses IAM calls of this session; write mfa_serial "
            f"under [identities.{shown(name)}] in {draft.rules.settings_file}."
        )
    duration = draft.rules.mfa_duration
    named_on = draft.chain.named_by or draft.chain.profiles[-1]
    return Step(
        kind=kind,
        fingerprint=_fingerprint(draft.identity, kind, device.serial, ground.endpoint, duration, None, None),
        profile=draft.name,
        identity=name,
        mfa_serial=device.serial,
        endpoint=ground.endpoint,
        duration=duration,
        mfa_max_age=None if draft.roles else draft.rules.mfa_max_age.get(draft.name),
        sources=(
            Sourced("identity", shown(name), draft.profiles.at(named_on.line)),
            Sourced("mfa_serial", device.serial or "none", device.source),
            Sourced("duration", _seconds(duration), "[sessions] mfa_duration"),
            *ground.sources,
        ),
    )


def _role_step(
    draft: Draft,
    ground: Ground,
    profile: Profile,
    duration: tuple[timedelta, str],
    *,
    parent: str | None,
    with_code: bool,
) -> Step:
    role, sources = role_parameters(draft, profile)
    kind: StepKind = "assume_role_with_code" if with_code else "assume_role"
    serial = ground.device.serial if with_code else None
    # a role session carries no MFA age, so a limit on it is the first role's alone (aws-facts §1.2)
    max_age = draft.rules.mfa_max_age.get(profile.name) if profile is draft.roles[0] else None
    told = [*sources, Sourced("duration", _seconds(duration[0]), duration[1])]
    if serial:
        told.append(Sourced("mfa_serial", serial, ground.device.source))
    if max_age:
        told.append(Sourced("mfa_max_age", _seconds(max_age), f"[profiles.{shown(profile.name)}] mfa_max_age"))
    return Step(
        kind=kind,
        fingerprint=_fingerprint(draft.identity, kind, serial, ground.endpoint, duration[0], role, parent),
        profile=profile.name,
        identity=draft.identity.name,
        mfa_serial=serial,
        endpoint=ground.endpoint,
        duration=duration[0],
        role=role,
        mfa_max_age=max_age,
        sources=(*told, *ground.sources),
    )


def _seconds(duration: timedelta) -> str:
    return f"{int(duration.total_seconds())}s"


def _duration(draft: Draft, profile: Profile) -> tuple[timedelta, str]:
    last = profile is draft.roles[-1]
    if last and draft.overrides.duration is not None:
        asked, source = draft.overrides.duration, ASKED_FOR
    elif value := profile.get("duration_seconds"):
        source = draft.profiles.at(value.line)
        asked = timedelta(seconds=int(value.text)) if _number(value.text) else timedelta(0)
        if wrong := limits.duration(asked):
            raise BadProfile(f"{draft.profiles.said(profile.name, 'duration_seconds', value)}: {wrong}.")
    else:
        asked, source = timedelta(seconds=3600), "default"
    if last and asked < limits.COMFORTABLE_DURATION:
        draft.problem(
            f"{int(asked.total_seconds())} s ({source}) is so short that SDKs ask again all the time; "
            f"{_an_hour(source)}."
        )
    return asked, source


def _an_hour(source: str) -> str:
    return "remove --duration" if source == ASKED_FOR else "write duration_seconds = 3600"


def _number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9


def _capped(draft: Draft, profile: Profile, asked: timedelta, source: str) -> tuple[timedelta, str]:
    """One hour is AWS's limit for role chaining (aws-facts §1.5 row 17); only the served step's cut is a surprise."""
    if asked <= limits.CHAINED_DURATION:
        return asked, source
    if profile is draft.roles[-1]:
        draft.problem(
            f"{int(asked.total_seconds())} s ({source}) is cut to 3600 s, AWS's limit for a role assumed from a role; "
            f"{_an_hour(source)}."
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
