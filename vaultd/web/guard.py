"""What is turned away before anything is looked up: messages that are not plain HTTP/1.1, and callers that are no SDK.

Rules (interface.md §4, in this order)
- 400: not HTTP/1.1, a target that does not start with `/`, not exactly one non-empty Host, a request line or field
  above 4 KiB, more than 64 fields, any body. aiohttp's parser finds most of them and raises; the rest is found here.
- 403: a Host that is not this machine by a name we gave out (a DNS-rebound page has its own), or a header that only
  browsers and proxies send, present even empty. aiohttp's `request.host` is no such check (security.md §0.6).

Nothing of a request is echoed or logged: both answers are constants.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from aiohttp.http import HttpVersion11, RawRequestMessage

from vaultd.errors import BadRequest, ForbiddenOrigin, VaultdError

#: Bytes of the request line without its CRLF, and of one field's name and value together.
LINE_LIMIT: Final = 4096
FIELD_LIMIT: Final = 4096
FIELDS_LIMIT: Final = 64

#: The names of this machine that we give out; a link-local listener has its own address, and only that.
LOOPBACK: Final = ("127.0.0.1", "localhost")

#: Lower case. No SDK sends one of them (sdk-facts §10.6); a page, a forward proxy or a reverse proxy cannot help it.
BROWSER_HEADERS: Final = frozenset({b"origin", b"referer", b"cookie", b"upgrade", b"x-real-ip", b"forwarded", b"via"})
BROWSER_PREFIXES: Final = (b"sec-fetch-", b"x-forwarded-")
#: Beside Content-Length: any of it announces a body.
_TRANSFER: Final = b"transfer-encoding"
_LENGTH: Final = b"content-length"
_HEAD_END: Final = b"\r\n\r\n"
_PLAIN_END: Final = b" HTTP/1.1"
#: Of the request line beside method and target: two blanks and `HTTP/1.1`.
_LINE_REST: Final = 10

MALFORMED: Final = BadRequest(
    "The request is not a plain HTTP/1.1 GET with one Host and no body; "
    "set the tool up with `vault-client use PROFILE`."
)
_CAME: Final = "The request came through a browser, a proxy or another host name"
FOREIGN: Final = ForbiddenOrigin(f"{_CAME}; ask 127.0.0.1 directly, as `vault-client use PROFILE` sets it up.")
FOREIGN_AT_DOOR: Final = ForbiddenOrigin(
    f"{_CAME}; ask 127.0.0.1 directly, as `vault-client use --imds PROFILE` sets it up."
)


class RequestLines:
    """Which protocol the request lines of one connection name: llhttp takes RTSP and ICE too, and reports no more of
    them than their version, which reads as HTTP/1.1. Bodies are not looked for, as no request here may have one.
    """

    __slots__ = ("_in_fields", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._in_fields = False

    def are_http(self, chunk: bytes) -> bool:
        """Whether each line that ends in `chunk` is of HTTP; once it is not, the connection is to end."""
        if not self._rest:  # the hot path: one whole request
            end = chunk.find(b"\r\n")
            if chunk.endswith(_PLAIN_END, 0, end) and chunk.find(_HEAD_END, end) == len(chunk) - 4:
                return True
        return self._looked(self._rest + chunk)

    def _looked(self, text: bytes) -> bool:
        start = 0
        while start < len(text):
            if not self._in_fields:
                end = text.find(b"\r\n", start)
                if end < 0:
                    break
                if end > start and not text[start:end].rpartition(b" ")[2].startswith(b"HTTP/"):
                    return False
                self._in_fields = end > start  # an empty line before a request counts for nothing
                start = end if end > start else end + 2
            else:
                end = text.find(_HEAD_END, start)
                if end < 0:
                    start = max(start, len(text) - 3)  # the end may have begun
                    break
                self._in_fields, start = False, end + 4
        self._rest = text[start:]
        return True


def foreign_at(hosts: Collection[str], usual: ForbiddenOrigin) -> ForbiddenOrigin:
    """The 403 of a listener: `usual` on 127.0.0.1, and one that names its own address on a link-local one."""
    if LOOPBACK[0] in hosts:
        return usual
    return ForbiddenOrigin(
        f"{_CAME}; ask {next(iter(hosts))} directly, and see what is in between: `vault-client doctor`."
    )


class Guard:
    """The check of one listener: its port, the names it may be asked by, and what is said of any other."""

    def __init__(self, *, port: int, hosts: Collection[str] = LOOPBACK, foreign: ForbiddenOrigin = FOREIGN) -> None:
        names = [name.encode() for name in hosts]
        self._foreign = foreign_at(hosts, foreign)
        self._hosts = frozenset([*names, *(b"%s:%d" % (name, port) for name in names)])

    def refusal(self, message: RawRequestMessage) -> VaultdError | None:
        """None: this may be looked at further."""
        hosts, foreign = [], False
        for raw_name, value in message.raw_headers:
            if len(raw_name) + len(value) > FIELD_LIMIT:  # the parser counts the name of the first field only
                return MALFORMED
            name = raw_name.lower()
            if name == b"host":
                hosts.append(value)
            elif name in BROWSER_HEADERS or name.startswith(BROWSER_PREFIXES):
                foreign = True
            elif name == _TRANSFER or (name == _LENGTH and value.strip(b"0")):
                return MALFORMED
        if len(hosts) != 1 or not hosts[0] or not _plain(message):
            return MALFORMED
        return self._foreign if foreign or hosts[0].lower() not in self._hosts else None


def _plain(message: RawRequestMessage) -> bool:
    target = message.path
    if message.version != HttpVersion11 or not target.startswith("/"):
        return False
    if len(target) < LINE_LIMIT // 4 - _LINE_REST:  # UTF-8 has at most four bytes a character
        return True
    return len(message.method) + len(target.encode("utf-8", "surrogateescape")) + _LINE_REST <= LINE_LIMIT


def bare_token(message: RawRequestMessage) -> bytes:
    """The grant token of `Authorization: TOKEN` or `Bearer TOKEN`, any letter case; empty when there is not one."""
    found = [value for name, value in message.raw_headers if name.lower() == b"authorization"]
    if len(found) != 1:
        return b""
    token = found[0]
    return token[7:].strip() if token[:7].lower() == b"bearer " else token
