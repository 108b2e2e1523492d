"""The credential endpoint over a socket of our own: what goes out and what comes back, byte for byte."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass

SECONDS = 30.0


@dataclass
class Reply:
    """One answer of the credential endpoint. Status 0: closed unanswered."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["code"])

    @property
    def message(self) -> str:
        return str(json.loads(self.body)["message"])


def talk(port: int, line: str, *headers: str, seconds: float = SECONDS) -> Reply:
    """One request on its own connection. A Host is added unless `headers` have one; `line` may be a whole request."""
    if "\r\n" not in line:
        hosts = () if any(each.lower().startswith("host:") for each in headers) else (f"Host: 127.0.0.1:{port}",)
        line = "\r\n".join([f"{line} HTTP/1.1", *hosts, *headers, "Connection: close", "", ""])
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as sock:
        sock.sendall(line.encode("latin-1"))
        sock.shutdown(socket.SHUT_WR)
        return _parsed(b"".join(iter(lambda: _received(sock), b"")))


def _received(sock: socket.socket) -> bytes:
    try:
        return sock.recv(65536)
    except ConnectionResetError:
        return b""


def _parsed(raw: bytes) -> Reply:
    head, _, body = raw.partition(b"\r\n\r\n")
    if not head:
        return Reply(0, "", {}, b"")
    first, *rest = head.decode("latin-1").split("\r\n")
    _, status, reason = first.split(" ", 2)
    fields = (each.partition(":") for each in rest)
    return Reply(int(status), reason, {name.lower(): value.strip() for name, _, value in fields}, body)
