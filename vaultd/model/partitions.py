"""Region → partition, hosts and fallback; which endpoint a key may be sent to.

Rule: STS is called in the identity profile's region, with one configured fallback, never at the global endpoint
(aws-facts §1.4). An endpoint override is honoured only on loopback or on an allowed host (security.md T11).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where STS and IAM calls of a step go. `url` None: AWS's own regional host for `region`.

    `sts_url` and `iam_url` are overrides (tests, proxies) that passed the rule above; `ca_bundle` is the profile's.
    `signin_url`: the federation endpoint, for a sign-in alone (model/console.py).
    """

    region: str
    sts_url: str | None = None
    iam_url: str | None = None
    use_fips: bool = False
    use_dualstack: bool = False
    ca_bundle: str | None = None
    fallback_region: str | None = None
    signin_url: str | None = None


#: Region prefix → partition; everything else is `aws`.
_PARTITIONS = {
    "cn-": "aws-cn",
    "us-gov-": "aws-us-gov",
    "eusc-": "aws-eusc",
    "us-iso-": "aws-iso",
    "us-isob-": "aws-iso-b",
    "eu-isoe-": "aws-iso-e",
    "us-isof-": "aws-iso-f",
}

#: Where STS is called when no file names a region: the partition's oldest region.
DEFAULT_REGIONS = {
    "aws": "us-east-1",
    "aws-cn": "cn-north-1",
    "aws-us-gov": "us-gov-west-1",
    "aws-eusc": "eusc-de-east-1",
    "aws-iso": "us-iso-east-1",
    "aws-iso-b": "us-isob-east-1",
    "aws-iso-e": "eu-isoe-west-1",
    "aws-iso-f": "us-isof-south-1",
}

# botocore builds hosts from the region, so a region is one host label and nothing else.
_REGION = re.compile(r"[a-z]{2,}(-[a-z0-9]+)+")

# AWS's own STS and IAM hosts: global, regional, FIPS, dual stack and PrivateLink. Not all of amazonaws.com, where
# anybody may own a bucket's or a load balancer's name.
_AWS_HOST = re.compile(
    r"(vpce-[a-z0-9-]+\.)?(sts|iam)(-fips)?"
    r"(\.[a-z]{2,4}(-[a-z]+)+(-[0-9]+)?)?(\.vpce)?(\.api)?"
    r"\.(amazonaws\.com(\.cn)?|amazonaws\.eu|aws)"
)
_ARN = re.compile(r"arn:(aws[a-z-]*):([a-z0-9-]+):[a-z0-9-]*:([0-9]{12}):(.+)", re.ASCII)


def partition_of(region: str) -> str:
    """`cn-north-1` → `aws-cn`; unknown prefixes are `aws`."""
    return next((name for prefix, name in _PARTITIONS.items() if region.startswith(prefix)), "aws")


def valid_region(text: str) -> bool:
    """True for what may become a host label."""
    return len(text) <= 63 and _REGION.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Arn:
    """The parts of an IAM ARN that rules look at: `resource` is `role/path/Name`."""

    partition: str
    service: str
    account_id: str
    resource: str


def parse_arn(text: str) -> Arn | None:
    """None when it is not an ARN of an account."""
    match = _ARN.fullmatch(text)
    return Arn(match[1], match[2], match[3], match[4]) if match else None


def account_of(role_arn: str) -> str | None:
    """The 12 digits of a role's ARN, in every partition."""
    arn = parse_arn(role_arn)
    return arn.account_id if arn else None


def sts_region(*, configured: str | None, fallback: str | None, partition: str) -> tuple[str, str | None]:
    """(region to call STS in, the one other to try when STS is switched off there).

    `aws-global` is no place to call: tokens of the global endpoint are invalid in opt-in regions (aws-facts §1.4).
    A fallback of another partition is none: keys do not cross partitions.
    """
    usable = fallback if fallback and partition_of(fallback) == partition else None
    region = configured if configured and configured != "aws-global" else usable or default_region(partition)
    return region, usable if usable != region else None


def default_region(partition: str) -> str:
    """Where STS is called when nothing is configured."""
    return DEFAULT_REGIONS.get(partition, "us-east-1")


def endpoint_allowed(url: str, allow: Collection[str]) -> bool:
    """May a key or a code be sent to `url`? Loopback and `allow` also over http; AWS's own hosts over https only.

    `allow` holds hosts, `host` or `host:port`, without scheme. User names in a URL hide the host from its reader.
    """
    parts = _split(url)
    if parts is None or parts.username is not None or parts.password is not None:
        return False
    host = (parts.hostname or "").lower()
    if parts.scheme not in {"http", "https"} or not host:
        return False
    if _loopback(host) or _listed(host, _tcp_port(parts), allow):
        return True
    return parts.scheme == "https" and _AWS_HOST.fullmatch(host) is not None


def _split(url: str) -> SplitResult | None:
    if any(char <= " " or char == "\\" or char > "~" for char in url):
        return None
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises on a port that is no number
    except ValueError:
        return None
    return parts


def _tcp_port(parts: SplitResult) -> int:
    return parts.port if parts.port is not None else {"http": 80, "https": 443}[parts.scheme]


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listed(host: str, port: int, allow: Collection[str]) -> bool:
    name = f"[{host}]" if ":" in host else host
    listed = {entry.lower() for entry in allow}
    return name in listed or f"{name}:{port}" in listed
