"""T7: a dev server of the owner's that fetches what strangers tell it to (SSRF): a URL, no method, no header."""

from __future__ import annotations

import base64

from tests.adversary import wire
from tests.adversary.case import Attack, Case
from tests.adversary.ground import KEYS_PATH, ROLE_PATH, TOKEN_PATH, TTL, Ground
from tests.adversary.people import OWNER, as_user

_LISTING = "/latest/meta-data/iam/security-credentials/"


def fetches(line: str, *fields: str, where: str = "door") -> Attack:
    """By the owner's uid; {token}, {basic} and {metadata} are filled in. A gain is a 200 alone."""

    def act(ground: Ground) -> bytes:
        address, host = {
            "door": (("127.0.0.1", ground.door), f"127.0.0.1:{ground.door}"),
            "link-local": (("169.254.169.254", 80), "169.254.169.254"),
            "keys": (ground.daemon, f"127.0.0.1:{ground.home.port}"),
            "container": (("169.254.170.2", 80), "169.254.170.2"),
        }[where]
        basic = base64.b64encode(f"{ground.token}:".encode()).decode()
        told = {"token": ground.token, "metadata": ground.metadata_token, "basic": basic}
        sent = wire.request(line.format(**told), *(each.format(**told) for each in fields), host=host)
        return wire.granted(as_user(OWNER, lambda: wire.talk(address, sent)))

    return act


_TOKEN = "X-aws-ec2-metadata-token: {metadata}"
FULL = "a client that chooses method and headers is answered"
_FULL_GET = fetches(f"GET {ROLE_PATH}", _TOKEN)
_FULL_PUT = fetches(f"PUT {TOKEN_PATH}", TTL)
_FULL_KEYS = fetches(f"GET {KEYS_PATH}", "Authorization: {token}", where="keys")
_FULL_LINK_LOCAL = fetches(f"PUT {TOKEN_PATH}", TTL, where="link-local")
_FULL_CONTAINER = fetches(f"GET {KEYS_PATH}", "Authorization: {token}", where="container")
V2 = "IMDSv2 alone: no GET is answered without a metadata token"
FORWARDED = "What came through a proxy is refused, on every method"


def _forwarded(mark: str) -> tuple[Case, ...]:
    name = mark.partition(":")[0].lower()
    return (
        Case(f"T7-put-{name}", "T7", FORWARDED, fetches(f"PUT {TOKEN_PATH}", TTL, mark), FULL, _FULL_PUT),
        Case(f"T7-get-{name}", "T7", FORWARDED, fetches(f"GET {ROLE_PATH}", _TOKEN, mark), FULL, _FULL_GET),
    )


def _ttl(value: str) -> Case:
    name = "X-aws-ec2-metadata-token-ttl-seconds"
    attack = fetches(f"PUT {TOKEN_PATH}", f"{name}: {value}")
    return Case(
        f"T7-ttl-{value or 'empty'}", "T7", "No metadata token without a TTL of 1 to 21600", attack, FULL, _FULL_PUT
    )


CASES = (
    Case("T7-imdsv1-keys", "T7", V2, fetches(f"GET {ROLE_PATH}"), FULL, _FULL_GET),
    Case("T7-imdsv1-list", "T7", V2, fetches(f"GET {_LISTING}"), FULL, fetches(f"GET {_LISTING}", _TOKEN)),
    Case("T7-imdsv1-link-local", "T7", V2, fetches(f"GET {ROLE_PATH}", where="link-local"), FULL, _FULL_LINK_LOCAL),
    Case("T7-get-on-the-token-path", "T7", V2, fetches(f"GET {TOKEN_PATH}", TTL), FULL, _FULL_PUT),
    Case("T7-post-on-the-token-path", "T7", V2, fetches(f"POST {TOKEN_PATH}", TTL), FULL, _FULL_PUT),
    Case("T7-put-without-ttl", "T7", V2, fetches(f"PUT {TOKEN_PATH}"), FULL, _FULL_PUT),
    *(_ttl(value) for value in ("0", "21601", "-1", "abc", "")),
    Case("T7-metadata-token-in-the-url", "T7", V2, fetches(f"GET {ROLE_PATH}?token={{metadata}}"), FULL, _FULL_GET),
    *(
        case
        for mark in ("X-Forwarded-For: 1.2.3.4", "Forwarded: for=1.2.3.4", "Via: 1.1 a", "X-Real-IP: 1.2.3.4")
        for case in _forwarded(mark)
    ),
    Case(
        "T7-keys-without-token", "T7", "Keys need Authorization",
        fetches(f"GET {KEYS_PATH}", where="keys"), FULL, _FULL_KEYS,
    ),
    Case(
        "T7-keys-token-as-user", "T7", "A token in the URL's user part is none",
        fetches(f"GET {KEYS_PATH}", "Authorization: Basic {basic}", where="keys"), FULL, _FULL_KEYS,
    ),
    Case(
        "T7-keys-token-in-the-query", "T7", "A token in the URL's query is none",
        fetches(f"GET {KEYS_PATH}?Authorization={{token}}", where="keys"), FULL, _FULL_KEYS,
    ),
    Case(
        "T7-container-address-without-token", "T7", "Keys need Authorization on 169.254.170.2, too",
        fetches(f"GET {KEYS_PATH}", where="container"), FULL, _FULL_CONTAINER,
    ),
    Case(
        "T7-method-and-headers", "T7",
        "Not prevented: an SSRF that chooses method and headers gets a metadata token, and with it keys",
        _FULL_PUT, "one that chooses the URL alone gets none", fetches(f"GET {TOKEN_PATH}"), residual=True,
    ),
)  # fmt: skip
