"""A credential server as others have built it: no uid check, no Host check, no token, CORS for everybody.

The positive control of every case on the network: what the attacks get where nothing is checked.
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket
from pathlib import Path

KEYS = 'leaked = {"AccessKeyId":"ASIANAIVECANARY","SecretAccessKey":"naive-canary-secret"}'
CANARY = b"naive-canary-secret"
_IMAGE = b'<svg xmlns="http://www.w3.org/2000/svg" width="7" height="7"/>'
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3


def listen(address: str, port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, port))
    sock.listen(256)
    return sock


def listen_unix(path: Path) -> socket.socket:
    """Anybody may connect."""
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    path.chmod(0o666)
    sock.listen(64)
    return sock


def serve(sock: socket.socket, seen: Path | None = None) -> None:
    """For ever; each request's first line is written down in `seen`."""
    while True:
        connection, _ = sock.accept()
        if os.fork() == 0:
            try:
                connection.settimeout(10)
                _answer(connection, seen)
            finally:
                os._exit(0)
        connection.close()
        _reap()


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def _answer(connection: socket.socket, seen: Path | None) -> None:
    asked = b""
    while b"\r\n\r\n" not in asked:
        part = connection.recv(65536)
        if not part:
            break
        asked += part
    if seen is not None:
        with seen.open("ab") as file:
            file.write(asked.partition(b"\r\n")[0] + b"\n")
    connection.sendall(_reply(asked))


def _reply(asked: bytes) -> bytes:
    head, low = asked.decode("latin-1"), asked.lower()
    if b"upgrade: websocket" in low:
        [key] = [
            each.partition(":")[2].strip()
            for each in head.split("\r\n")
            if each.lower().startswith("sec-websocket-key:")
        ]
        accept = base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()
        frame = bytes([0x81, len(CANARY)]) + CANARY
        return (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n\r\n"
        ).encode() + frame
    if b"text/event-stream" in low:
        return _message("text/event-stream", f"data: {KEYS}\n\n".encode())
    if b"sec-fetch-dest: image" in low:
        return _message("image/svg+xml", _IMAGE)
    if b"sec-fetch-dest: iframe" in low or b"sec-fetch-dest: document" in low:
        return _message("text/html", f"<script>parent.postMessage({KEYS!r}, '*')</script>".encode())
    return _message("text/javascript", KEYS.encode() + _echo(asked))


def _echo(asked: bytes) -> bytes:
    """Request bytes in the answer, as parse errors of many servers have them."""
    return b"\n/* " + asked.replace(b"*/", b"") + b" */" if b"echo-canary" in asked else b""


def _message(kind: str, text: bytes) -> bytes:
    return (
        f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(text)}\r\n"
        "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Headers: *\r\nAccess-Control-Allow-Methods: *\r\n"
        "Access-Control-Allow-Private-Network: true\r\nConnection: close\r\n\r\n"
    ).encode() + text
