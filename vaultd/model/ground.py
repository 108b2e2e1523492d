"""What every step of a plan stands on: the MFA device, the endpoint, and the region that the caller will see."""

from __future__ import annotations

from dataclasses import dataclass

from vaultd.errors import BadProfile, Misconfigured
from vaultd.model import limits
from vaultd.model.draft import Draft
from vaultd.model.endpoints import find_endpoint
from vaultd.model.partitions import Endpoint, parse_arn, partition_of, valid_region
from vaultd.model.plan import Sourced
from vaultd.model.text import shown


@dataclass(frozen=True, slots=True)
class Device:
    """An MFA serial and where it came from; None: the identity has no device."""

    serial: str | None
    source: str


@dataclass(frozen=True, slots=True)
class Ground:
    """Device and endpoint of a plan, with the lines that `explain` prints about the endpoint."""

    device: Device
    endpoint: Endpoint
    sources: tuple[Sourced, ...]


def find_ground(draft: Draft) -> Ground:
    """Raises BadProfile and Misconfigured; what AWS would merely refuse later is a problem of the draft."""
    device = _device(draft)
    endpoint, sources = _endpoint(draft)
    return Ground(device, endpoint, sources)


def served_region(draft: Draft) -> str | None:
    """For AWS_REGION: the grant's, the profile's, its identity's, the fallback, else left alone (interface.md §3)."""
    own = draft.leaf.get("region")
    if own is not None and not valid_region(own.text):
        said = draft.profiles.said(draft.name, "region", own)
        raise BadProfile(f"{said}: this is no region; write one such as eu-west-1.")
    return (
        draft.overrides.region
        or (own.text if own else None)
        or _identity_region(draft)[0]
        or draft.rules.region_fallback
    )


def _device(draft: Draft) -> Device:
    """The profile's serial, searched towards the identity; config.toml's; the one detected at `add`."""
    found = _configured_device(draft)
    if found.serial is None:
        return found
    if wrong := limits.mfa_serial(found.serial):
        kind = BadProfile if found.source.startswith(draft.profiles.file + ":") else Misconfigured
        raise kind(f"{found.source} mfa_serial={shown(found.serial)}: this is no MFA device; {wrong}.")
    if ":u2f/" in found.serial or ":user/" in found.serial:
        draft.problem(
            f"{found.source} mfa_serial={shown(found.serial)} shows no codes: STS refuses FIDO keys and users; "
            "write the ARN of an authenticator app's device, `:mfa/NAME`."
        )
    arn = parse_arn(found.serial)
    if arn is not None and arn.account_id != draft.identity.account_id:
        draft.problem(
            f"{found.source} mfa_serial={shown(found.serial)} is of account {arn.account_id}, and the identity "
            f"{shown(draft.identity.name)} of {draft.identity.account_id}; write the device of the identity's user."
        )
    return found


def _configured_device(draft: Draft) -> Device:
    for profile in draft.chain.profiles:
        if value := profile.get("mfa_serial"):
            return Device(value.text, draft.profiles.at(value.line))
    if serial := draft.rules.identity_serials.get(draft.identity.name):
        return Device(serial, f"{draft.rules.settings_file} [identities.{shown(draft.identity.name)}]")
    if draft.identity.mfa_serial:
        return Device(draft.identity.mfa_serial, "detected by `vault-client add`")
    return Device(None, "no device")


def _endpoint(draft: Draft) -> tuple[Endpoint, tuple[Sourced, ...]]:
    region, source = _identity_region(draft)
    if region is not None and not valid_region(region):
        kind = BadProfile if source.startswith(draft.profiles.file + ":") else Misconfigured
        raise kind(f"{source} region={shown(region)}: this is no region; write one such as eu-west-1.")
    if region and region != "aws-global" and partition_of(region) != draft.partition:
        draft.problem(
            f"{source} region={region} is of partition {partition_of(region)}, and the identity "
            f"{shown(draft.identity.name)} of {draft.partition}; write a region of {draft.partition}."
        )
    return find_endpoint(
        draft.profiles,
        draft.chain.profiles,
        configured=region,
        source=source,
        fallback=draft.rules.region_fallback,
        partition=draft.partition,
        environ=draft.rules.environ,
        allow=draft.rules.endpoint_allow,
    )


def _identity_region(draft: Draft) -> tuple[str | None, str]:
    """config.toml's word on the identity, else its section's: never a role profile's, or each would need a code."""
    name = draft.identity.name
    if listed := draft.rules.identity_regions.get(name):
        return listed, f"{draft.rules.settings_file} [identities.{shown(name)}]"
    section = draft.identity_profile
    value = section.get("region") if section else None
    return (value.text, draft.profiles.at(value.line)) if value else (None, "default")
