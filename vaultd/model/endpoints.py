"""Where the calls of a chain go: region, overrides, FIPS, dual stack and CA, each with its source.

Rules
- AWS's own order of overrides (AWS SDKs and Tools Reference Guide, "Service-specific endpoints"; so does botocore's
  ConfiguredEndpointProvider): AWS_ENDPOINT_URL_STS, AWS_ENDPOINT_URL, the profile's `services` section, its
  `endpoint_url`; none of them where AWS_IGNORE_CONFIGURED_ENDPOINT_URLS is true.
- As the CLI makes every call of a chain with the settings of the profile that was asked for, that one's come first;
  what it leaves open is taken from the next profile towards the identity.
- An override that is not allowed is refused, not ignored: the person meant to talk to something else than AWS.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from vaultd.errors import BadProfile, Misconfigured
from vaultd.model.partitions import Endpoint, endpoint_allowed, sts_region
from vaultd.model.plan import Sourced
from vaultd.model.profiles import Profile, Profiles, Value
from vaultd.model.text import shown

#: What of the daemon's environment shapes an endpoint.
ENDPOINT_VARIABLES = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_STS",
    "AWS_ENDPOINT_URL_IAM",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
)


@dataclass(frozen=True, slots=True)
class _Override:
    url: str
    source: str


def find_endpoint(
    profiles: Profiles,
    chain: Collection[Profile],
    *,
    configured: str | None,
    source: str,
    fallback: str | None,
    partition: str,
    environ: Mapping[str, str],
    allow: Collection[str],
) -> tuple[Endpoint, tuple[Sourced, ...]]:
    """`configured` is the identity's region and `source` its place; raises BadProfile and Misconfigured."""
    region, other = sts_region(configured=configured, fallback=fallback, partition=partition)
    where = source if region == configured else "[aws] sts_region_fallback" if region == fallback else "default"
    sources = [Sourced("region", region, where)]
    urls: dict[str, str | None] = {}
    for service in ("sts", "iam"):
        found = _override(profiles, chain, service, environ, allow)
        urls[service] = found.url if found else None
        if found:
            sources.append(Sourced(f"{service}_url", shown(found.url), found.source))
    ca_bundle = _first(chain, "ca_bundle")
    flags = {key: _flag(profiles, chain, key) for key in ("use_fips_endpoint", "use_dualstack_endpoint")}
    sources += _told(profiles, chain, "ca_bundle", *(key for key, on in flags.items() if on))
    sources += [
        Sourced(each.field, each.value, f"{each.source}, ignored: STS is always called in its region")
        for each in _told(profiles, chain, "sts_regional_endpoints")
    ]
    endpoint = Endpoint(
        region=region,
        sts_url=urls["sts"],
        iam_url=urls["iam"],
        use_fips=flags["use_fips_endpoint"],
        use_dualstack=flags["use_dualstack_endpoint"],
        ca_bundle=ca_bundle[1].text if ca_bundle else None,
        fallback_region=other,
    )
    return endpoint, tuple(sources)


def environment_override(service: str, environ: Mapping[str, str], allow: Collection[str]) -> str | None:
    """The daemon's own override for `sts` or `iam`; raises Misconfigured naming a variable that is not allowed."""
    if environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true":
        return None
    for name in (f"AWS_ENDPOINT_URL_{service.upper()}", "AWS_ENDPOINT_URL"):
        if url := environ.get(name):
            if not endpoint_allowed(url, allow):
                raise Misconfigured(f"{name}={shown(url)}: keys are not sent there; {_REMEDY}, or unset {name}.")
            return url
    return None


_REMEDY = "write its host under [aws] endpoint_allow in config.toml if you trust it"


def _override(
    profiles: Profiles, chain: Collection[Profile], service: str, environ: Mapping[str, str], allow: Collection[str]
) -> _Override | None:
    if url := environment_override(service, environ, allow):
        return _Override(url, "environment of `vaultd start`")
    ignored = _first(chain, "ignore_configured_endpoint_urls")
    if environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true" or (
        ignored and ignored[1].text.lower() == "true"
    ):
        return None
    for profile in chain:
        found = _of_services(profiles, profile, service) or profile.get("endpoint_url")
        if found is None:
            continue
        if not endpoint_allowed(found.text, allow):
            said = profiles.said(profile.name, "endpoint_url", found)
            raise BadProfile(f"{said}: keys are not sent there; {_REMEDY}, or remove the line.")
        return _Override(found.text, profiles.at(found.line))
    return None


def _of_services(profiles: Profiles, profile: Profile, service: str) -> Value | None:
    wanted = profile.get("services")
    if wanted is None:
        return None
    section = profiles.services.get(wanted.text)
    if section is None:
        close = profiles.near_services(wanted.text)
        raise BadProfile(
            f"{profiles.said(profile.name, 'services', wanted)}: there is no such section.{close} Write "
            f"[services {shown(wanted.text)}], or remove the line."
        )
    value = section.values.get(service)
    return value.nested.get("endpoint_url") if value is not None and value.nested else None


def _first(chain: Collection[Profile], key: str) -> tuple[Profile, Value] | None:
    return next(((profile, value) for profile in chain if (value := profile.get(key))), None)


def _flag(profiles: Profiles, chain: Collection[Profile], key: str) -> bool:
    found = _first(chain, key)
    if found is None:
        return False
    profile, value = found
    if value.text.lower() not in {"true", "false"}:
        raise BadProfile(f"{profiles.said(profile.name, key, value)}: write true or false.")
    return value.text.lower() == "true"


def _told(profiles: Profiles, chain: Collection[Profile], *keys: str) -> list[Sourced]:
    found = ((key, _first(chain, key)) for key in keys)
    return [Sourced(key, shown(each[1].text), profiles.at(each[1].line)) for key, each in found if each]
