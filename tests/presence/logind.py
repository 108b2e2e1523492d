"""A D-Bus of the test's own, and a systemd-logind on it that does what a test tells it.

Rule: the fake speaks jeepney's blocking side from a thread, the product its own reader on the loop: neither is tested
against itself. What was handed out is a real pipe: a reader at end of file says that the inhibitor was let go.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jeepney import DBusAddress, HeaderFields, MessageType, new_error, new_method_return, new_signal  # type: ignore[import-untyped]
from jeepney.bus_messages import message_bus  # type: ignore[import-untyped]
from jeepney.io.blocking import DBusConnection, open_dbus_connection  # type: ignore[import-untyped]
from jeepney.wrappers import unwrap_msg  # type: ignore[import-untyped]

NAME = "org.freedesktop.login1"
MANAGER = DBusAddress("/org/freedesktop/login1", interface="org.freedesktop.login1.Manager")
SESSION = "org.freedesktop.login1.Session"
UNKNOWN = "org.freedesktop.login1.NoSessionForPID"

CONFIG = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>custom</type>
  <listen>unix:path={path}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/><allow user="*"/>
  </policy>
</busconfig>
"""


@dataclass
class PrivateBus:
    """dbus-daemon on a socket below `folder`; may be killed and started again."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"unix:path={self.folder / 'system_bus'}"

    def start(self) -> None:
        config = self.folder / "bus.conf"
        config.write_text(CONFIG.format(path=self.folder / "system_bus"))
        command = ["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile", "--print-address=1"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline(), "dbus-daemon has started"

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None
        (self.folder / "system_bus").unlink(missing_ok=True)


@contextmanager
def private_bus(folder: Path) -> Iterator[PrivateBus]:
    bus = PrivateBus(folder)
    bus.start()
    try:
        yield bus
    finally:
        bus.kill()


@dataclass
class Session:
    """As logind keeps it. `uid` None: of the user who asks."""

    uid: int = field(default_factory=os.getuid)
    hint: bool = False

    def path(self, name: str) -> str:
        return f"/org/freedesktop/login1/session/{name}"


@dataclass
class Logind:
    """`sessions` by id; `own`: the one that every process is in. `deaf`: takes calls and never answers. `refuses`: the
    methods that it answers with an error. `inhibitors`: the reader of each that was handed out.
    """

    address: str
    sessions: dict[str, Session] = field(default_factory=lambda: {"1": Session()})
    own: str | None = None
    deaf: bool = False
    refuses: set[str] = field(default_factory=set)
    asked: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    inhibitors: list[int] = field(default_factory=list)
    unanswered: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._connection: DBusConnection | None = None
        self._thread: threading.Thread | None = None
        self._over = threading.Event()

    # ---- its life ----

    def start(self, *, name: str = NAME) -> None:
        self._over.clear()
        self._connection = open_dbus_connection(self.address, enable_fds=True)
        unwrap_msg(self._connection.send_and_get_reply(message_bus.RequestName(name)))
        self._thread = threading.Thread(target=self._serve, args=(self._connection,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        for reader in self.inhibitors:
            os.close(reader)
        self.inhibitors.clear()

    def _serve(self, connection: DBusConnection) -> None:
        with contextlib.suppress(OSError, ConnectionError):
            while not self._over.is_set():
                try:
                    message = connection.receive(timeout=0.02)
                except TimeoutError:
                    continue
                if message.header.message_type is MessageType.method_call:
                    self._answer(connection, message)

    # ---- what it is asked ----

    def _answer(self, connection: DBusConnection, message: Any) -> None:
        method = message.header.fields[HeaderFields.member]
        self.asked.append((method, tuple(message.body)))
        if self.deaf:
            self.unanswered.append(message)
            return
        if method in self.refuses:
            connection.send(new_error(message, "org.freedesktop.DBus.Error.AccessDenied"))
            return
        getattr(self, f"_{method.lower()}")(connection, message)

    def _inhibit(self, connection: DBusConnection, message: Any) -> None:
        reader, writer = os.pipe()
        self.inhibitors.append(reader)
        connection.send(new_method_return(message, "h", (writer,)))
        os.close(writer)

    def _getsessionbypid(self, connection: DBusConnection, message: Any) -> None:
        if self.own is None:
            connection.send(new_error(message, UNKNOWN))
        else:
            connection.send(new_method_return(message, "o", (self.sessions[self.own].path(self.own),)))

    def _listsessions(self, connection: DBusConnection, message: Any) -> None:
        rows = [(name, each.uid, "someone", "seat0", each.path(name)) for name, each in self.sessions.items()]
        connection.send(new_method_return(message, "a(susso)", (rows,)))

    def _get(self, connection: DBusConnection, message: Any) -> None:
        path = message.header.fields[HeaderFields.path]
        found = self.sessions.get(path.rpartition("/")[2])
        if found is None:
            connection.send(new_error(message, "org.freedesktop.DBus.Error.UnknownObject"))
        elif message.body[1] == "User":
            connection.send(new_method_return(message, "v", (("(uo)", (found.uid, path)),)))
        else:
            connection.send(new_method_return(message, "v", (("b", found.hint),)))

    def catches_up(self) -> None:
        """It answers what it was asked while it was deaf, all too late."""
        assert self._connection is not None
        self.deaf = False
        while self.unanswered:
            self._answer(self._connection, self.unanswered.pop(0))

    # ---- what it says ----

    def sleeps(self, *, begins: bool) -> None:
        """PrepareForSleep, before and after."""
        self._say(MANAGER, "PrepareForSleep", "b", (begins,))

    def locks(self, session: str = "1", *, signal: str = "Lock") -> None:
        self._say(DBusAddress(Session().path(session), interface=SESSION), signal)

    def hints(self, session: str = "1", *, locked: bool = True) -> None:
        self.sessions[session].hint = locked
        place = DBusAddress(Session().path(session), interface="org.freedesktop.DBus.Properties")
        self._say(place, "PropertiesChanged", "sa{sv}as", (SESSION, {"LockedHint": ("b", locked)}, []))

    def changes(self) -> None:
        """A session was opened or closed."""
        self._say(MANAGER, "SessionNew", "so", ("x", Session().path("x")))

    def _say(self, place: DBusAddress, member: str, signature: str | None = None, body: tuple[Any, ...] = ()) -> None:
        assert self._connection is not None
        self._connection.send(new_signal(place, member, signature, body))

    def shouts(self, message: bytes) -> None:
        """Bytes as they are."""
        assert self._connection is not None
        self._connection.sock.sendall(message)

    def released(self, number: int = -1) -> bool:
        """The last inhibitor (or that one) was let go."""
        readable, _, _ = select.select([self.inhibitors[number]], [], [], 0)
        return bool(readable)


def raw_signal(to: str, signature: str, body: bytes) -> bytes:
    """A message whose body is as given, whatever its signature says."""
    header = new_signal(MANAGER, "PrepareForSleep").header
    header.fields[HeaderFields.destination] = to
    header.fields[HeaderFields.signature] = signature
    header.body_length = len(body)
    content: bytes = header.serialise(serial=9_999)
    return content + bytes(-len(content) % 8) + body


def shout(address: str, message: bytes) -> None:
    """The same as `lie`, with bytes as they are."""
    with open_dbus_connection(address) as connection:
        connection.sock.sendall(message)
        unwrap_msg(connection.send_and_get_reply(message_bus.GetId()))


def lie(address: str, to: str, place: DBusAddress, member: str, signature: str, body: tuple[Any, ...]) -> None:
    """A signal that somebody else sends to one connection, as any process may."""
    with open_dbus_connection(address, enable_fds="h" in signature) as connection:
        message = new_signal(place, member, signature, body)
        message.header.fields[HeaderFields.destination] = to
        connection.send(message)
        unwrap_msg(connection.send_and_get_reply(message_bus.GetId()))
