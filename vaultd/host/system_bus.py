"""A connection to D-Bus on the event loop: calls, signals, and the descriptor that a reply may bring.

Rules
- Nothing here blocks: handshake, reads and writes are the loop's. jeepney brings the wire format and no loop that could
  take a descriptor; it is imported at the first connection, so that only those who use one pay for it.
- Each call has its end. An answer that comes after it is dropped, and its descriptor closed.
- Any user may send us a message, of up to 32 MiB. What is not of somebody whom we listen to is not read beyond its
  header, its descriptors are closed, and nothing above a megabyte is kept, whoever sent it.
- What they send and cannot be read as D-Bus, and a bus that takes no more bytes, ends the connection: `lost` says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

#: Of a connection's handshake, and of one call: a service that hangs is told from one that thinks.
SECONDS: Final = 5.0
DEFAULT_ADDRESS: Final = "unix:path=/var/run/dbus/system_bus_socket"
#: Not to be inherited by a child that another thread starts meanwhile; macOS knows no such flag.
_CLOSE_ON_EXEC: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
#: Read at once, and room for the 16 descriptors that a message of the reference bus may bring.
PIECE: Final = 65_536
_ROOM: Final = socket.CMSG_SPACE(16 * 4)
#: Of a message that is kept: the sessions of some thousand people.
LARGEST: Final = 1 << 20
#: The part of a message that tells how long it is.
_PROLOGUE: Final = 16

log = logging.getLogger(__name__)

Value = TypeVar("Value")
Sleep = Callable[[float], Awaitable[None]]
#: Whether a sender is listened to, by the unique name that the bus wrote.
Hears = Callable[[str], bool]


class BusError(Exception):
    """A connection that is lost or cannot be made, or a call that failed. `name`: the error that the other end named.

    Nothing of what was sent is in it; the text is of ours or a system error.
    """

    def __init__(self, why: str, *, name: str = "") -> None:
        super().__init__(why)
        self.name = name


@dataclass(frozen=True, slots=True)
class Signal:
    """`sender` is the unique name that the bus itself wrote there: nobody forges another's."""

    sender: str
    path: str
    interface: str
    member: str
    body: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """An object of a service, under one of its interfaces."""

    name: str
    path: str
    interface: str


THE_BUS: Final = Target("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")


class Bus:
    """One connection; `connect` makes it, and `close` or the other end ends it."""

    def __init__(self, sock: socket.socket, *, on_signal: Callable[[Signal], None], hears: Hears, sleep: Sleep) -> None:
        import jeepney  # type: ignore[import-untyped]

        self._jeepney = jeepney
        self._sock = sock
        self._on_signal = on_signal
        self._hears = hears
        self._sleep = sleep
        self._pieces = Pieces()
        self._serials = itertools.count(1)
        loop = asyncio.get_running_loop()
        self._waiting: dict[int, asyncio.Future[tuple[Any, ...]]] = {}
        #: The unique name that the bus gave us.
        self.name = ""
        #: Done, with the reason, once nothing more comes.
        self.lost: asyncio.Future[str] = loop.create_future()
        loop.add_reader(sock.fileno(), self._read)

    @classmethod
    async def connect(cls, address: str, *, on_signal: Callable[[Signal], None], hears: Hears, sleep: Sleep) -> Bus:
        """On the bus at `address` (`unix:path=…`), greeted. `hears`: whom to listen to beside the bus itself. Raises
        BusError.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            await ended(_handshake(sock, _place_of(address)), sleep=sleep)
        except BaseException as exc:
            sock.close()
            if isinstance(exc, OSError):  # a TimeoutError among them
                raise BusError(exc.strerror or "it does not answer") from exc
            raise
        bus = cls(sock, on_signal=on_signal, hears=hears, sleep=sleep)
        try:
            (bus.name,) = await bus.call(THE_BUS, "Hello")
        except BaseException:
            bus.close()
            raise
        return bus

    async def call(self, target: Target, method: str, signature: str = "", *body: object) -> tuple[Any, ...]:
        """The body of the reply. Raises BusError for an error, for silence and for a lost connection."""
        address = self._jeepney.DBusAddress(target.path, bus_name=target.name, interface=target.interface)
        message = self._jeepney.new_method_call(address, method, signature or None, body)
        if self.lost.done():
            raise BusError(self.lost.result())
        serial = next(self._serials)
        self._waiting[serial] = answer = asyncio.get_running_loop().create_future()
        try:
            self._send(message.serialise(serial))
            return await ended(answer, sleep=self._sleep)
        except TimeoutError as exc:
            raise BusError("it does not answer") from exc
        finally:
            self._waiting.pop(serial, None)

    async def subscribe(self, **rule: str) -> None:
        """Have signals sent that match: `sender`, `path`, `path_namespace`, `interface`, `member`, `arg0`."""
        first = rule.pop("arg0", None)
        match = self._jeepney.MatchRule(type="signal", **rule)
        if first is not None:
            match.add_arg_condition(0, first)
        await self.call(THE_BUS, "AddMatch", "s", match.serialise())

    def close(self) -> None:
        """End it; may be called twice."""
        self._end("closed")

    # ---- the loop's side ----

    def _send(self, content: bytes) -> None:
        try:
            sent = self._sock.send(content)
        except OSError as exc:
            sent = 0
            self._end(exc.strerror or "it takes nothing")
        if sent != len(content):  # a few hundred bytes: a bus that has no room for them reads nothing
            self._end("it takes nothing")
            raise BusError("it takes nothing")

    def _read(self) -> None:
        try:
            whole = self._pieces.add(*self._received())
            if whole is not None:
                self._take(*whole)
        except BlockingIOError:
            return
        except OSError as exc:
            self._end(exc.strerror or "it was lost")
        except Exception as exc:  # noqa: BLE001 - jeepney asserts, unpacks and decodes: each raises its own
            log.warning("refuse bus-message error=%s", type(exc).__name__)
            self._end("it sent what cannot be read")

    def _received(self) -> tuple[bytes, list[Any]]:
        """Bytes of one message at most, so that its descriptors are its own."""
        content, ancillary, flags, _ = self._sock.recvmsg(self._pieces.wanted, _ROOM, _CLOSE_ON_EXEC)
        descriptors: list[Any] = self._jeepney.FileDescriptor.from_ancdata(ancillary)
        if not content or flags & socket.MSG_CTRUNC:
            close_all(descriptors)
            raise ConnectionResetError(0, "it closed the connection")
        return content, descriptors

    def _take(self, content: bytes, descriptors: list[Any]) -> None:
        """A whole message. Its descriptors are closed, but for those of an answer that is waited for."""
        kept: tuple[Any, ...] = ()
        try:
            header, _ = self._jeepney.low_level.Header.from_buffer(content)
            fields = {field.name: value for field, value in header.fields.items()}
            sender = fields.get("sender", "")
            if sender == THE_BUS.name or self._hears(sender):
                kept = self._understand(content, descriptors, header.message_type, fields)
        finally:
            close_all([each for each in descriptors if not any(each is one for one in kept)])

    def _understand(self, content: bytes, descriptors: list[Any], kind: Any, fields: dict[str, Any]) -> tuple[Any, ...]:
        """What is handed on of it."""
        kinds = self._jeepney.MessageType
        body = tuple(self._jeepney.low_level.Message.from_buffer(content, fds=descriptors).body)
        if kind is kinds.signal:
            self._on_signal(
                Signal(fields.get("sender", ""), fields["path"], fields["interface"], fields["member"], body)
            )
            return ()
        waiting = self._waiting.get(fields.get("reply_serial", -1))
        if waiting is None or waiting.done():
            return ()
        if kind is kinds.error:
            waiting.set_exception(BusError("it refused", name=fields.get("error_name", "")))
            return ()
        waiting.set_result(body)
        return body

    def _end(self, why: str) -> None:
        if self.lost.done():
            return
        self.lost.set_result(why)
        asyncio.get_running_loop().remove_reader(self._sock.fileno())
        self._sock.close()
        self._pieces.drop()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(BusError(why))


class Pieces:
    """Cuts the stream into messages; one that is too large is let pass by."""

    def __init__(self) -> None:
        self._content = bytearray()
        self._descriptors: list[Any] = []
        self._size = 0
        self._passing = 0

    @property
    def wanted(self) -> int:
        """How many bytes to read, none of them of the next message."""
        return min(self._passing or (self._size or _PROLOGUE) - len(self._content), PIECE)

    def add(self, content: bytes, descriptors: list[Any]) -> tuple[bytes, list[Any]] | None:
        """A message with its descriptors, once it is whole. Raises what jeepney does for one that has no size."""
        from jeepney.low_level import calc_msg_size  # type: ignore[import-untyped]

        if self._passing:
            self._passing -= len(content)
            close_all(descriptors)
            return None
        self._content += content
        self._descriptors += descriptors
        if not self._size and len(self._content) == _PROLOGUE:
            self._size = calc_msg_size(bytes(self._content))
            if self._size > LARGEST:
                self._passing = self._size - _PROLOGUE
                log.warning("skip bus-message bytes=%d", self._size, extra={"rarely": True})
                self.drop()
        return self._whole() if len(self._content) == self._size else None

    def _whole(self) -> tuple[bytes, list[Any]] | None:
        if not self._size:
            return None
        content, descriptors = bytes(self._content), self._descriptors
        self._content.clear()
        self._descriptors, self._size = [], 0
        return content, descriptors

    def drop(self) -> None:
        """Let go of what is there."""
        close_all(self._descriptors)
        self._content.clear()
        self._descriptors, self._size = [], 0


async def ended(work: Awaitable[Value], *, sleep: Sleep, seconds: float = SECONDS) -> Value:
    """What `work` comes to within `seconds` of the clock behind `sleep`; else it is cancelled, and TimeoutError."""
    task = asyncio.ensure_future(work)
    timer = asyncio.ensure_future(sleep(seconds))
    try:
        await asyncio.wait({task, timer}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise TimeoutError
        return task.result()
    finally:
        timer.cancel()
        task.cancel()


def close_all(values: object) -> None:
    """Close every descriptor of jeepney's in a message that nobody takes."""
    for each in values if isinstance(values, list | tuple) else ():
        if hasattr(each, "to_raw_fd"):
            with contextlib.suppress(OSError):
                each.close()


async def _handshake(sock: socket.socket, place: str) -> None:
    from jeepney.auth import BEGIN, Authenticator  # type: ignore[import-untyped]

    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, place)
    dialogue = Authenticator(enable_fds=True)
    for line in dialogue:
        await loop.sock_sendall(sock, line)
        answer = await loop.sock_recv(sock, 1024)
        if not answer:
            raise BusError("it closed the connection")
        try:
            dialogue.feed(answer)
        except ValueError as exc:  # its text quotes what was sent
            raise BusError("it refused us") from exc
    await loop.sock_sendall(sock, BEGIN)


def _place_of(address: str) -> str:
    """The path of a unix socket, or its abstract name after a NUL."""
    from jeepney.bus import get_connectable_addresses  # type: ignore[import-untyped]

    try:
        return str(next(get_connectable_addresses(address)))
    except (ValueError, RuntimeError, StopIteration) as exc:
        raise BusError("its address is not that of a unix socket") from exc
