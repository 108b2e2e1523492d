"""Mutations that know what the bytes mean: JSON values, pieces of HTTP, lines, nesting, numbers at the edges.

Rule: one seed, one outcome. libFuzzer's own flips of bits and Hypothesis's choices come beside these, in run.py and
test_bounded.py.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any, Final

from tests.fuzz.target import MARK, PORT, SPLIT, TOKEN

#: JSON values of which one or another is too large, too deep, of another type, or no time.
_ODD: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 1.5, 2**31, 2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**400, 10**4299, 1e308, "", " ",
    "0", "\0", "a" * 300, "\ud800", "\u202e\x1b[2J", "../../x", "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00", "0" * 64, "2026-11-22T12:00:00", "1" * 5000, [], {}, [[]], {"": None}, [None] * 100,
    MARK.decode(),
)  # fmt: skip
_TOKENS: Final = (
    b"\r\n", b"\n", b"\r", b"\0", b"\x0b", b"\x0c", b"\x85", b" ", b"\t", b":", b"=", b"%", b"[", b"]", b"{", b"}",
    b'"', b"'", b"\\", b"#", b";", b"\xef\xbb\xbf", b"\xff", b"\xed\xa0\x80", b"\xe2\x80\xae", b"%00", b"%2f", b"//",
    b"/../", b"?", b"0", b"-1", b"99999999999999999999", b"1e999", b"inf", b"nan", b"HTTP/1.1", b"HTTP/1.0",
    b"HTTP/2.0", b"RTSP/1.0", b"GET ", b"PUT ", b"HEAD ", b"OPTIONS ", b"CONNECT ",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"Host: localhost\r\n", b"Content-Length: 5\r\n", b"Content-Length: -1\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n",
    b"Connection: upgrade\r\nUpgrade: websocket\r\n", b"Origin: null\r\n", b"Content-Encoding: gzip\r\n",
    b"Content-Encoding: br\r\n", b"Content-Type: multipart/form-data; boundary=x\r\n", b'Cookie: a="\r\n',
    b"Vaultd-Protocol: \xff\r\n", b"Authorization: Bearer ", b"5\r\nhello\r\n", b"0\r\n\r\n", b"ffffffffffffffff\r\n",
    b"[DEFAULT]\n", b"[profile default]\n", b"[default]\n", b"source_profile = a\n", b"include_profile = a\n",
    b"role_arn = arn:aws:iam::123456789012:role/x\n", b"duration_seconds = ", b"  x = y\n", b"region = ",
    b"endpoint_url = http://", b"[[", b"0x", b"1979-05-27", b"00:32:00.999999", b"'''", b'"""', MARK, TOKEN, PORT,
    SPLIT,
)  # fmt: skip
_DEPTHS: Final = (2, 50, 1100, 3000)


def mutated(data: bytes, *, seed: int, longest: int) -> bytes:
    """`data` with one to four changes."""
    choice = random.Random(seed)
    for _ in range(choice.choice((1, 1, 2, 4))):
        data = choice.choice(_CHANGES)(data, choice)[:longest]
    return data


def _span(data: bytes, choice: random.Random) -> tuple[int, int]:
    start = choice.randrange(len(data) + 1)
    return start, min(len(data), start + choice.choice((0, 1, 1, 2, 4, 8, 30, 200)))


def _insert(data: bytes, choice: random.Random) -> bytes:
    start, end = _span(data, choice)
    return data[:start] + choice.choice(_TOKENS) + data[choice.choice((start, end)) :]


def _drop(data: bytes, choice: random.Random) -> bytes:
    start, end = _span(data, choice)
    return data[:start] + data[end:]


def _flip(data: bytes, choice: random.Random) -> bytes:
    start, _ = _span(data, choice)
    return data[:start] + bytes([choice.randrange(256)]) + data[start + 1 :]


def _repeat(data: bytes, choice: random.Random) -> bytes:
    start, end = _span(data, choice)
    return data[:end] + data[start:end] * choice.choice((1, 2, 70, 500)) + data[end:]


def _nest(data: bytes, choice: random.Random) -> bytes:
    start, end = _span(data, choice)
    opening, closing = choice.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"[" * 2, b""), (b"{a=", b"}"), (b"a.", b"")))
    depth = choice.choice(_DEPTHS)
    return data[:start] + opening * depth + data[start:end] + closing * depth + data[end:]


def _line(data: bytes, choice: random.Random) -> bytes:
    """A line moved, doubled or gone."""
    lines = data.splitlines(keepends=True)
    if not lines:
        return data
    taken = lines.pop(choice.randrange(len(lines)))
    for _ in range(choice.choice((0, 1, 2))):
        lines.insert(choice.randrange(len(lines) + 1), taken)
    return b"".join(lines)


def _json(data: bytes, choice: random.Random) -> bytes:
    """One value of a JSON text, or of one of its lines, or of a body behind a head, made odd."""
    head, end, body = data.rpartition(b"\r\n\r\n")
    lines = body.split(b"\n")
    place = choice.randrange(len(lines))
    for each in dict.fromkeys((body, lines[place], body[1:])):
        try:
            found = json.loads(each)
        except (ValueError, RecursionError):
            continue
        changed = _dumped(_odd_in(found, choice))
        new = body.replace(each, changed, 1) if each else changed
        return _with_length(head, len(new)) + end + new if end else new
    return _insert(data, choice)


def _odd_in(value: Any, choice: random.Random) -> Any:
    if isinstance(value, dict) and value and choice.random() < 0.9:
        key = choice.choice(list(value))
        left = {name: each for name, each in value.items() if name != key}
        how = choice.random()
        if how < 0.1:
            return left
        if how < 0.2:
            return {**value, choice.choice((MARK.decode(), "", "v", "seq")): choice.choice(_ODD)}
        return {**value, key: _odd_in(value[key], choice)}
    if isinstance(value, list) and value and choice.random() < 0.9:
        place = choice.randrange(len(value))
        return [*value[:place], _odd_in(value[place], choice), *value[place + (choice.random() < 0.8) :]]
    return choice.choice(_ODD)


def _dumped(value: Any) -> bytes:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True)
    return text.encode()


def _with_length(head: bytes, length: int) -> bytes:
    """A body that is changed keeps a length that is right, or it would never be read as a whole."""
    lines = head.split(b"\r\n")
    return b"\r\n".join(
        b"Content-Length: %d" % length if line.startswith(b"Content-Length:") else line for line in lines
    )


_CHANGES: Final[tuple[Callable[[bytes, random.Random], bytes], ...]] = (
    _insert, _insert, _drop, _flip, _repeat, _nest, _line, _json, _json, _json,
)  # fmt: skip
