"""AssumeRole's parameters of one profile: checked, defaulted, each with its source.

Rule: tags and SourceIdentity only where the profile says so, since they need permissions that roles seldom grant
(aws-facts §0); the session name is the IAM user's, the only readable link in the role's account (aws-facts §5).
"""

from __future__ import annotations

from collections.abc import Callable

from vaultd.errors import BadProfile
from vaultd.model import limits
from vaultd.model.draft import Draft
from vaultd.model.partitions import parse_arn
from vaultd.model.plan import RoleParameters, Sourced
from vaultd.model.profiles import Profile
from vaultd.model.text import shown


def role_parameters(draft: Draft, profile: Profile) -> tuple[RoleParameters, list[Sourced]]:
    """Raises BadProfile naming file:line; policies of the grant shape the last role only."""
    last = profile is draft.roles[-1]
    sources: list[Sourced] = []

    def checked(key: str, check: Callable[[str], str | None]) -> str | None:
        value = profile.get(key)
        if value is None:
            return None
        if wrong := check(value.text):
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


def _note_partition(draft: Draft, profile: Profile, role_arn: str) -> None:
    arn, value = parse_arn(role_arn), profile.get("role_arn")
    home = draft.partition
    if arn is not None and value is not None and arn.partition != home:
        draft.problem(
            f"{draft.profiles.said(profile.name, 'role_arn', value)} is of partition {arn.partition}, and the identity "
            f"{shown(draft.identity.name)} of {home}: write a source_profile of {arn.partition}."
        )


def _session_name(draft: Draft, profile: Profile) -> tuple[str, str]:
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
    draft: Draft, profile: Profile, sources: list[Sourced]
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
