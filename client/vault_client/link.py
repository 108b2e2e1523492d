"""HTTP/1.1 over the daemon's unix socket, by hand, because http.client costs 10 ms at every start (performance.md).

Rules
- Nothing is sent before the kernel said that the other end is ours (SO_PEERCRED): a socket planted by another user gets
  no passphrase, no key and no code.
- One connection a call. Small and strict: what is not exactly an answer of the control API is no answer.
- A daemon that is away is exit 69, naming its log and the command that starts it (interface.md §3).
"""

# pathlib may not load at start-up (architecture.md §2), so os.path it is.
# ruff: noqa: PTH123
from __future__ import annotations

import json
import os
import socket
import sys

from vault_client.errors import TEMPORARY, UNREACHABLE, Refusal, Stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vault_client.places import Places

PROTOCOL = "1"

#: Longer than anything the daemon does before it answers: two STS calls and a keyring's 30 s.
PATIENCE = 120.0
#: For what the daemon says out of its own memory, without AWS, keyring or keeper: more only one that hangs would take.
LOOK = 20.0
_HEAD_LIMIT = 64 * 1024
_BODY_LIMIT = 64 * 1024 * 1024
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class Link:
    """The control API. `call` for one answer, `open` for one that is long in coming or never ends."""

    def __init__(self, places: Places) -> None:
        self.places = places

    def call(self, method: str, path: str, body: dict[str, Any] | None = None, *, seconds: float = PATIENCE) -> Any:
        """The answer's JSON. Raises Refusal for an error body, Stop 69 for a daemon that is away."""
        connection = self.open(method, path, body, seconds=seconds)
        try:
            return connection.reply()
        finally:
            connection.close()

    def open(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, seconds: float | None = None
    ) -> Connection:
        """The request is sent; the caller reads. `seconds` bounds each wait for bytes, None not at all."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(PATIENCE)
            sock.connect(self.places.socket)
            _check_owner(sock, self.places.socket)
            sock.sendall(_request(method, path, body))
            sock.settimeout(seconds)
        except OSError as exc:
            sock.close()
            raise self._away(exc) from exc
        except BaseException:
            sock.close()
            raise
        return Connection(sock, self.places)

    def _away(self, exc: OSError) -> Stop:
        if isinstance(exc, BlockingIOError):  # its backlog is full: somebody listens (unix(7), EAGAIN)
            return Stop("vaultd is busy, more commands wait than it lets in: type it again in a moment", TEMPORARY)
        if isinstance(exc, PermissionError):
            return Stop(
                f"{self.places.socket} may not be opened ({exc.strerror}): it belongs to another user or another "
                f"VAULTD_HOME; as yourself, type `vaultd start`",
                UNREACHABLE,
            )
        if "AF_UNIX path too long" in str(exc):
            return Stop(
                f"the path {self.places.socket} is too long for a socket: set VAULTD_HOME or XDG_RUNTIME_DIR to a "
                f"shorter directory and type `vaultd start`",
                UNREACHABLE,
            )
        return away(self.places, "vaultd is not running")


def away(places: Places, what: str) -> Stop:
    """The one sentence about a daemon that is away (exit 69)."""
    return Stop(f"{what} (its log is {places.log}): type `vaultd start`", UNREACHABLE)


class Connection:
    """One request's answer, read as it comes."""

    def __init__(self, sock: socket.socket, places: Places) -> None:
        self._sock = sock
        self._places = places
        self._buffer = bytearray()
        self._chunked = False
        self._length: int | None = None
        self._line = bytearray()

    def fileno(self) -> int:
        """For select; see also `pending`."""
        return self._sock.fileno()

    @property
    def pending(self) -> bool:
        """Bytes were read that nobody took yet: select does not know of them."""
        return bool(self._buffer)

    def close(self) -> None:
        """Leave: for a question that means this asker, not the question."""
        self._sock.close()

    def reply(self) -> Any:
        """The whole answer as JSON; raises Refusal for an error status."""
        status = self.head()
        raw = self._whole()
        try:
            body = json.loads(raw) if raw else {}
        except ValueError:
            raise self._broken() from None
        if status >= 400:
            raise Refusal(status=status, body=body if isinstance(body, dict) else {})
        return body

    def events(self) -> None:
        """Read the head of an NDJSON stream; then `event` gives line by line."""
        status = self.head()
        if status >= 400:
            raise Refusal(status=status, body=json.loads(self._whole() or b"{}"))

    def event(self) -> dict[str, Any] | None:
        """The stream's next object, or None at its end."""
        while b"\n" not in self._line:
            piece = self._chunk()
            if not piece:
                return None
            self._line += piece
        line, _, self._line = self._line.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def head(self) -> int:
        """Status line and headers; returns the status."""
        words = self._text_line().split(" ", 2)
        if len(words) < 2 or words[0] not in {"HTTP/1.1", "HTTP/1.0"} or not words[1].isdigit():
            raise self._broken()
        while line := self._text_line():
            name, _, value = line.partition(":")
            if name.lower() == "content-length" and value.strip().isdigit():
                self._length = int(value)
            elif name.lower() == "transfer-encoding":
                self._chunked = value.strip().lower() == "chunked"
        return int(words[1])

    def _whole(self) -> bytes:
        if self._chunked:
            parts = bytearray()
            while piece := self._chunk():
                parts += piece
                if len(parts) > _BODY_LIMIT:
                    raise self._broken()
            return bytes(parts)
        if self._length is None or self._length > _BODY_LIMIT:
            raise self._broken()
        return self._exactly(self._length)

    def _chunk(self) -> bytes:
        if not self._chunked:
            raise self._broken()
        try:
            size = int(self._text_line().partition(";")[0], 16)
        except ValueError:
            raise self._broken() from None
        if not 0 <= size <= _BODY_LIMIT:
            raise self._broken()
        piece = self._exactly(size)
        self._text_line()
        return piece

    def _text_line(self) -> str:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > _HEAD_LIMIT:
                raise self._broken()
            self._fill()
        line = self._buffer[:end].decode("latin-1")
        del self._buffer[: end + 2]
        return line

    def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._fill()
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _fill(self) -> None:
        try:
            piece = self._sock.recv(65536)
        except TimeoutError:
            # It runs: a start would find it there. A stop that is not answered names what ends it.
            said = f"vaultd does not answer (its log is {self._places.log}): type `vaultd stop`, then `vaultd start`"
            raise Stop(said, UNREACHABLE) from None
        except OSError:
            piece = b""
        if not piece:
            raise away(self._places, "vaultd went away in the middle of an answer")
        self._buffer += piece

    def _broken(self) -> Stop:
        return Stop(
            f"{self._places.socket} answered something that is not the control API: "
            f"is it another program? Type `vaultd restart`",
            1,
        )


def quoted(text: str) -> str:
    """`text` as one path segment or query value."""
    raw = text.encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in raw)


def _request(method: str, path: str, body: dict[str, Any] | None) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    kind = "Content-Type: application/json\r\n" if content else ""
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: vaultd\r\nVaultd-Protocol: {PROTOCOL}\r\nConnection: close\r\n"
        f"{kind}Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode("ascii") + content


def _check_owner(sock: socket.socket, path: str) -> None:
    uid = peer_uid(sock)
    if uid != os.getuid():
        owner = "an unknown user" if uid is None else f"the user with id {uid}"
        raise Stop(f"{path} is served by {owner}, not by you, so nothing was sent to it: {_way_out(path, uid)}")


def _way_out(path: str, uid: int | None) -> str:
    """His own live daemon in a home of his (root under sudo), which nobody is to break; or one planted in ours."""
    if uid is None or os.stat(os.path.dirname(path)).st_uid == os.getuid():  # noqa: PTH116, PTH120
        return "remove it and type `vaultd start`"
    return (
        f"it belongs to that user, so type `sudo -u '#{uid}'` before the same, or set HOME or VAULTD_HOME to your own"
    )


def peer_uid(sock: socket.socket) -> int | None:
    """Who listens at the other end of a unix socket, from the kernel; None where it does not say."""
    try:
        if sys.platform == "darwin":
            # struct xucred {u_int cr_version; uid_t cr_uid; …} by LOCAL_PEERCRED (security.md §2.1 item 3)
            return int.from_bytes(sock.getsockopt(0, 1, 76)[4:8], sys.byteorder)
        return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[4:8], sys.byteorder)
    except OSError:
        return None


def check_listener(port: int, *, again: str = "", table: str = "/proc/net/tcp") -> None:
    """Raises Stop unless 127.0.0.1:port is listened on by this user (security.md §1 T3: a squatter would be handed the
    token, and could feed its own keys to every SDK). `again`: what to type for a port that is a grant's own, which no
    setting chooses.
    """
    owners = listeners(port, table=table)
    if owners is None or os.getuid() in owners:
        return
    if not owners:
        raise Stop(f"nobody listens on 127.0.0.1:{port}, where vaultd says that it serves: type `vaultd restart`")
    held = f"port {port} of this machine is held by the user with id {owners[-1]}, not by your vaultd"
    if again:
        raise Stop(f"{held}: {again}")
    raise Stop(
        f"{held}, so no token was handed out: end that program or choose another [listen] port, then type "
        f"`vaultd restart`"
    )


def listeners(port: int, *, table: str = "/proc/net/tcp") -> list[int] | None:
    """The users who listen on 127.0.0.1:port; None where the kernel does not say. Every row counts: another user may
    listen on the same address of another device (SO_BINDTODEVICE), which takes nothing from ours and must not keep its
    owner from it. The kernel lists listeners first, so this reads a few lines, up to the first of ours.
    """
    if not sys.platform.startswith("linux"):
        return None
    wanted = f"0100007F:{port:04X}" if sys.byteorder == "little" else f"7F000001:{port:04X}"
    found: list[int] = []
    try:
        with open(table, encoding="ascii") as lines:
            for line in lines:
                fields = line.split()
                if len(fields) > 7 and fields[1] == wanted and fields[3] == "0A":
                    found.append(int(fields[7]))
                    if found[-1] == os.getuid():
                        break
    except OSError as exc:
        raise Stop(f"{table} cannot be read ({exc.strerror}), so nobody can say who owns port {port}: "
                   f"mount /proc, then type it again") from exc  # fmt: skip
    return found
