"""The keeper's seams as bytes: frozen values ↔ JSON frames on a socketpair, for a keeper in a process of its own.

Rules (architecture.md §3)
- A frame is a length (4 bytes, big-endian) and one JSON object. Both ends read what they get by the types that the
  seams declare and take nothing else: the daemon's end may be in the hands of whoever broke its HTTP side.
- Secrets are revealed here to travel, as base64, over a socketpair that no other process has; a frame is never logged.
- Errors travel as the name of their class, their sentence and their details, and arrive as the same class.
- What a call takes and gives is read off the Protocols themselves, so that a seam has one declaration.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime, timedelta
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal

from vaultd import errors
from vaultd.engine.seams import Console, Custody, Importer, Keeper, Outlook
from vaultd.errors import VaultdError
from vaultd.model.credentials import Identity
from vaultd.model.secret import Secret

#: Of one frame. A thousand sealed sessions are 3 MB.
MOST_BYTES = 64 * 1024 * 1024
_LENGTH = struct.Struct(">I")
_KIND = "!"  # names the class of a value, so that unions can be told apart

Message = dict[str, Any]
#: What travels as it is; an int where a float is declared is one, too.
_PLAIN: Mapping[Any, tuple[type, ...]] = {str: (str,), bool: (bool,), int: (int,), float: (float, int)}

#: The calls of each seam. `Custody.list` is not among them: it is answered without I/O, from `State`.
CALLS: Mapping[str, type] = {
    **dict.fromkeys(("open", "mint", "note", "close"), Keeper),
    **dict.fromkeys(("add", "remove", "probe", "detect", "rotate", "date"), Custody),
    **dict.fromkeys(("offers", "adopt", "discard", "holds", "kin"), Importer),
    **dict.fromkeys(("warm", "keyring"), Outlook),
    "url": Console,
}


class Malformed(Exception):
    """The other end sent what no declaration of ours allows. Never quotes what it was."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a keeper process is told before all else, as its first frame: nothing of it is on argv or in environ.

    `https_proxy` may carry a password. `directories` are those of `layout.Layout`, in its order.
    """

    version: str
    directories: tuple[str, str, str, str]
    backend: Literal["auto", "keyring", "file"]
    persist: bool
    log_level: int
    https_proxy: str | None = field(default=None, repr=False)
    no_proxy: str | None = None
    ca_bundle: str | None = None
    endpoint_allow: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hello:
    """A keeper process is hardened and takes calls. `refused`: why it does not, and ends."""

    pid: int
    dumpable: bool
    warnings: tuple[str, ...] = ()
    refused: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """What is asked of the keeper without waiting: sent whenever it changed, before the reply that changed it."""

    identities: tuple[Identity, ...] = ()
    expects: Literal["keyring", "file"] = "keyring"
    skew: float | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """A log record of the keeper process, which has no file of its own: one writer of one log. Redacted already."""

    level: int
    name: str
    text: str
    trace: str


# ---- frames ----


def framed(message: Message) -> bytes:
    """The frame of a message."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Bytes as they come → messages. Raises Malformed for what is no frame."""

    def __init__(self) -> None:
        self._got = bytearray()

    def feed(self, part: bytes) -> Iterator[Message]:
        """The messages that are whole now."""
        self._got += part
        while len(self._got) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._got)
            if size > MOST_BYTES:
                raise Malformed
            if len(self._got) < _LENGTH.size + size:
                return
            body = bytes(self._got[_LENGTH.size : _LENGTH.size + size])
            del self._got[: _LENGTH.size + size]
            yield _message(body)


def _message(body: bytes) -> Message:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Malformed
    return found


# ---- values ----


def packed(value: object) -> Any:
    """A frozen value as JSON."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, tuple | list):
        return [packed(each) for each in value]
    return _packed_whole(value)


def _packed_whole(value: object) -> Any:
    if isinstance(value, Secret):
        return base64.b64encode(value.reveal_bytes() if value else b"").decode()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return [value.days, value.seconds, value.microseconds]
    if is_dataclass(value) and not isinstance(value, type):
        named = {each.name: packed(getattr(value, each.name)) for each in fields(value)}
        return {_KIND: type(value).__name__, **named}
    raise TypeError(f"a {type(value).__name__} does not cross the wire")


def unpacked(kind: Any, value: Any) -> Any:
    """`value` as the declared `kind`; raises Malformed for everything else."""
    if kind in _PLAIN:
        return _plain(kind, value)
    if kind is None or kind is NoneType:
        return _checked(None, ok=value is None)
    if (special := _SPECIAL.get(kind)) is not None:
        return special(value)
    if is_dataclass(kind) and isinstance(kind, type):
        return _whole(kind, value)
    return _generic(kind, value)


def _plain(kind: Any, value: Any) -> Any:
    return _checked(value, ok=type(value) in _PLAIN[kind])  # never isinstance: a bool is no int here


def _checked(value: Any, *, ok: bool) -> Any:
    if not ok:
        raise Malformed
    return value


def _generic(kind: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return _checked(value, ok=isinstance(value, str) and value in arguments)
    if origin in {typing.Union, UnionType}:
        return _one_of(arguments, value)
    if origin in {tuple, Sequence}:
        return _several(arguments, value, fixed=origin is tuple and arguments[-1] is not Ellipsis)
    raise TypeError(f"{kind} does not cross the wire")


def _several(arguments: tuple[Any, ...], value: Any, *, fixed: bool) -> tuple[Any, ...]:
    _checked(value, ok=isinstance(value, list) and (not fixed or len(value) == len(arguments)))
    kinds = arguments if fixed else arguments[:1] * len(value)
    return tuple(unpacked(kind, each) for kind, each in zip(kinds, value, strict=True))


def _one_of(kinds: tuple[Any, ...], value: Any) -> Any:
    """None, the class that the value names, or the one kind that is no class of ours."""
    if value is None:
        return _checked(None, ok=NoneType in kinds)
    named = value.get(_KIND) if isinstance(value, dict) else None
    fitting = [each for each in kinds if each is not NoneType and (named is None or each.__name__ == named)]
    _checked(None, ok=len(fitting) == 1)
    return unpacked(fitting[0], value)


def _whole(kind: type, value: Any) -> Any:
    hints = _hints(kind)
    _checked(None, ok=isinstance(value, dict) and set(value) == {_KIND, *hints} and value[_KIND] == kind.__name__)
    return kind(**{name: unpacked(hint, value[name]) for name, hint in hints.items()})


def _secret(value: Any) -> Secret:
    try:
        return Secret(base64.b64decode(_plain(str, value), validate=True))
    except (binascii.Error, ValueError) as exc:
        raise Malformed from exc


def _moment(value: Any) -> datetime:
    try:
        found = datetime.fromisoformat(_plain(str, value))
    except ValueError as exc:
        raise Malformed from exc
    return typing.cast("datetime", _checked(found, ok=found.tzinfo is not None))


def _span(value: Any) -> timedelta:
    try:
        return timedelta(*_several((int, int, int), value, fixed=True))
    except OverflowError as exc:
        raise Malformed from exc


_SPECIAL: Mapping[Any, Callable[[Any], object]] = {Secret: _secret, datetime: _moment, timedelta: _span}


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


# ---- calls ----


@cache
def _declared(name: str) -> tuple[dict[str, Any], Any]:
    """({argument: type}, type of the result) of a call."""
    found = typing.get_type_hints(getattr(CALLS[name], name))
    result = found.pop("return")
    return found, result


def call(number: int, name: str, arguments: Mapping[str, object]) -> Message:
    """A call, as it is sent down."""
    return {"call": name, "id": number, "with": {key: packed(value) for key, value in arguments.items()}}


def called(message: Message) -> tuple[int, str, dict[str, Any]]:
    """(number, name, arguments) of a call that came down; raises Malformed."""
    name, number, given = message.get("call"), message.get("id"), message.get("with")
    if not isinstance(name, str) or name not in CALLS or type(number) is not int or not isinstance(given, dict):
        raise Malformed
    takes, _ = _declared(name)
    if set(given) != set(takes):
        raise Malformed
    return number, name, {key: unpacked(kind, given[key]) for key, kind in takes.items()}


def result_of(name: str, message: Message) -> Any:
    """What a call gave; raises its error, or Malformed."""
    if "error" in message:
        raise error_of(message["error"])
    return unpacked(_declared(name)[1], message.get("result"))


# ---- errors ----


@cache
def _tree() -> dict[str, type[VaultdError]]:
    classes = (each for each in vars(errors).values() if isinstance(each, type))
    return {each.__name__: each for each in classes if issubclass(each, VaultdError)}


def packed_error(exc: VaultdError) -> Message:
    """By the nearest class of errors.py: a kind of its own below would not be known above."""
    kind = next(each.__name__ for each in type(exc).__mro__ if each.__name__ in _tree())
    details = json.loads(json.dumps(exc.details, default=str))
    return {"kind": kind, "message": exc.message, "details": details}


def error_of(value: Any) -> VaultdError:
    """As it was raised below; raises Malformed."""
    kind, message, details = (value.get(each) if isinstance(value, dict) else None for each in _ERROR)
    known = _tree().get(kind) if isinstance(kind, str) else None
    if known is None or not isinstance(message, str) or not isinstance(details, dict):
        raise Malformed
    try:
        return known(message, **details)
    except TypeError as exc:  # a detail that is called as a parameter is
        raise Malformed from exc


_ERROR = ("kind", "message", "details")
