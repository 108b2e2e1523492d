"""Profile → path segment; grant → the variables a shell or child gets and loses (interface.md §3).

Rule: exactly the contract's sets. Both ways of serving unset each other's variables, because a leftover of one makes
SDKs skip the other; `AWS_EC2_METADATA_DISABLED` is unset for IMDS, since any value of it disables some SDKs.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from vaultd.model.secret import Secret

#: Added to the caller's NO_PROXY and no_proxy by the client, which alone knows their values: a proxy that sees the
#: endpoint would see the token.
NO_PROXY_HOSTS = ("127.0.0.1", "localhost")

#: The client leaves these alone where the user set them.
REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")

#: Would be preferred by an SDK to either endpoint.
SHADOWING = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_CREDENTIAL_EXPIRATION",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
)
ECS_VARIABLES = (
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_EC2_METADATA_DISABLED",
)
IMDS_VARIABLES = (
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_METADATA_ENDPOINT",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
    "AWS_EC2_METADATA_V1_DISABLED",
)

CREDENTIALS_PATH = "/v1/credentials/"
_PLAIN = re.compile(r"[A-Za-z0-9._-]+")
_ESCAPE = "~"
_LONGEST_SLUG = 200


@dataclass(frozen=True, slots=True)
class Change:
    """`set` and `unset` of interface.md §6; no variable is in both, and no value depends on the caller's own."""

    set: Mapping[str, str]
    unset: tuple[str, ...]


def slug(profile: str) -> str:
    """The profile's path segment: itself where `[A-Za-z0-9._-]+`, else every other UTF-8 byte as `~XX`.

    Injective: `~` is in no plain name and escapes itself; it is unreserved in a URI, so that no client rewrites it.
    `.` and `..` would be dot segments. A rewriting too long for a request line of 4 KiB becomes `~~` and its SHA-256.
    """
    if _PLAIN.fullmatch(profile) and profile not in {".", ".."}:
        return profile
    octets = profile.encode("utf-8", "surrogatepass")
    dots = profile in {".", ".."}
    text = "".join(_segment(octet, escape_dots=dots) for octet in octets) or _ESCAPE
    return text if len(text) <= _LONGEST_SLUG else _ESCAPE * 2 + hashlib.sha256(octets).hexdigest()


def _segment(octet: int, *, escape_dots: bool) -> str:
    char = chr(octet)
    if _PLAIN.fullmatch(char) and not (escape_dots and char == "."):
        return char
    return f"{_ESCAPE}{octet:02X}"


def ecs_change(*, port: int, profile: str, grant_id: str, token: Secret, token_path: str, region: str | None) -> Change:
    """The container variables. `token` also goes out as a file: some SDKs know only one of the two (sdk-facts §1)."""
    return Change(
        set={
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{port}{CREDENTIALS_PATH}{slug(profile)}",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": token.reveal(),
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": token_path,
            "AWS_EC2_METADATA_DISABLED": "true",
            **_common(profile=profile, grant_id=grant_id, region=region),
        },
        unset=(*SHADOWING, *IMDS_VARIABLES),
    )


def imds_change(*, port: int, profile: str, grant_id: str, region: str | None) -> Change:
    """The metadata variables for a grant with a door of its own at `port`.

    The closing slash is needed by AWS CLI 2, the second spelling by older SDKs (interface.md §3).
    """
    endpoint = f"http://127.0.0.1:{port}/"
    return Change(
        set={
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": endpoint,
            "AWS_METADATA_ENDPOINT": endpoint,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE": "IPv4",
            "AWS_EC2_METADATA_V1_DISABLED": "true",
            **_common(profile=profile, grant_id=grant_id, region=region),
        },
        unset=(*SHADOWING, *ECS_VARIABLES),
    )


def _common(*, profile: str, grant_id: str, region: str | None) -> dict[str, str]:
    regions = dict.fromkeys(REGION_VARIABLES, region) if region else {}
    return {**regions, "VAULTD_PROFILE": profile, "VAULTD_GRANT": grant_id}
