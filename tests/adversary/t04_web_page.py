"""T4: a malicious web page: what browsers put on the wire, with a stolen token besides; and one real Chromium."""

from __future__ import annotations

from functools import partial

from tests.adversary import browser, wire
from tests.adversary.case import Attack, Case
from tests.adversary.ground import KEYS_PATH, TOKEN_PATH, TTL, Ground
from tests.adversary.people import OWNER, as_user


def sends(raw: bytes, *, door: bool = False) -> Attack:
    """By the owner's uid, as his browser; {port}, {token} and {metadata} are filled in. A gain is a 200 alone."""

    def act(ground: Ground) -> bytes:
        port = ground.door if door else ground.home.port
        filled = (
            raw.replace(b"{port}", b"%d" % port)
            .replace(b"{token}", ground.token.encode())
            .replace(b"{metadata}", ground.metadata_token.encode())
        )
        reply = as_user(OWNER, lambda: wire.talk(("127.0.0.1", port), filled))
        assert b"access-control" not in reply.lower(), reply
        return wire.granted(reply)

    return act


def get(*fields: str, line: str = f"GET {KEYS_PATH} HTTP/1.1", host: str | None = "127.0.0.1:{port}") -> bytes:
    hosts = [] if host is None else [f"Host: {host}"]
    return "\r\n".join([line, *hosts, "Authorization: {token}", *fields, "Connection: close", "", ""]).encode("latin-1")


def put(*fields: str, host: str = "127.0.0.1:{port}") -> bytes:
    lines = [f"PUT {TOKEN_PATH} HTTP/1.1", f"Host: {host}", TTL, *fields, "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1")


PROMISE = "No request of a page is answered with keys, even when it has the token"
PLAIN = "the same request without that is answered with keys"
_PLAIN_GET = sends(get())
_PLAIN_PUT = sends(put(), door=True)

_GETS: tuple[tuple[str, bytes], ...] = (
    ("origin", get("Origin: http://evil.example")),
    ("origin-null", get("Origin: null")),
    ("origin-own", get("Origin: http://127.0.0.1:{port}")),
    ("origin-empty", get("Origin:")),
    ("referer", get("Referer: http://evil.example/")),
    ("sec-fetch", get("Sec-Fetch-Site: cross-site")),
    ("sec-fetch-none", get("Sec-Fetch-Site: none")),
    ("cookie", get("Cookie: a=b")),
    ("upgrade", get("Upgrade: websocket", "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13")),
    ("rebound-host", get(host="rebind.evil.example:{port}")),
    ("rebound-host-without-port", get(host="evil.example")),
    ("any-address-host", get(host="0.0.0.0:{port}")),
    ("trailing-dot-host", get(host="localhost.:{port}")),
    ("ipv6-host", get(host="[::1]:{port}")),
    ("decimal-host", get(host="2130706433:{port}")),
    ("short-host", get(host="127.1:{port}")),
    ("userinfo-host", get(host="evil@127.0.0.1:{port}")),
    ("prefixed-host", get(host="127.0.0.1.evil.example:{port}")),
    ("other-port-host", get(host="127.0.0.1:1")),
    ("no-host", get(host=None)),
    ("empty-host", get(host="")),
    ("two-hosts", get("Host: evil.example")),
    ("absolute-form", get(line=f"GET http://127.0.0.1{KEYS_PATH} HTTP/1.1", host="evil.example")),
    ("http-1.0", get(line=f"GET {KEYS_PATH} HTTP/1.0")),
    ("http-1.0-no-host", get(line=f"GET {KEYS_PATH} HTTP/1.0", host=None)),
    ("http-0.9", b"GET /v1/credentials/web-admin\r\n\r\n"),
    ("post-form", get("Content-Length: 0", line=f"POST {KEYS_PATH} HTTP/1.1")),
    (
        "preflight",
        get(
            "Access-Control-Request-Method: GET", "Access-Control-Request-Headers: authorization",
            "Access-Control-Request-Private-Network: true", line=f"OPTIONS {KEYS_PATH} HTTP/1.1",
        ),
    ),
    ("head", get(line=f"HEAD {KEYS_PATH} HTTP/1.1")),
    ("token-in-the-query", get(line=f"GET {KEYS_PATH}?token={{token}} HTTP/1.1")),
    ("folded-host", get("Host : evil.example")),
)  # fmt: skip

_PUTS: tuple[tuple[str, bytes], ...] = (
    ("door-origin", put("Origin: http://evil.example")),
    ("door-rebound-host", put(host="rebind.evil.example:{port}")),
    ("door-cookie", put("Cookie: a=b")),
    ("door-sec-fetch", put("Sec-Fetch-Mode: cors")),
)


def page(name: str, target: str) -> Attack:
    return partial(browser.gained, name=name, target=target)


BROWSER = "In a real Chromium a page of a foreign origin reads and changes nothing by"
NAIVE = "the same page reads the naive server"

CASES = (
    *(Case(f"T4-{name}", "T4", PROMISE, sends(raw), PLAIN, _PLAIN_GET) for name, raw in _GETS),
    *(
        Case(f"T4-{name}", "T4", "No page gets a metadata token", sends(raw, door=True), PLAIN, _PLAIN_PUT)
        for name, raw in _PUTS
    ),
    *(
        Case(f"T4-chromium-{name}", "T4", f"{BROWSER} {name}", page(name, "vaultd"), NAIVE, page(name, "naive"))
        for name in browser.PROBES
    ),
    Case(
        "T4-chromium-changes-nothing", "T4", f"{BROWSER} all of them together: no grant, no question, nothing served",
        browser.changed, "the naive server saw every request", browser.seen_by_naive,
    ),
    Case(
        "T4-chromium-dns-rebinding", "T4", "A page whose own name comes to mean 127.0.0.1 reads nothing",
        partial(browser.rebound, to="vaultd"), "the same page reads the naive server behind its own name",
        partial(browser.rebound, to="naive"),
    ),
)  # fmt: skip
