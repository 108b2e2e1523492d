"""Canaries: random values of the seven kinds that must never be seen, and the scanner that looks for them.

Rule: a value counts as leaked in any form that gives it back: as it is, url-encoded, hex, base64 in each of its three
alignments (both alphabets), UTF-16, JSON-escaped; and of a long one its first or last 16 characters are enough. The
last 4 characters of a key are no leak (interface.md §8), and a token code counts only where it stands by itself,
since any six digits turn up inside timestamps and hashes.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote, quote_plus

from vaultd.model import metadata_tokens

NAMES = (
    "secret_key", "session_token", "token_code", "passphrase", "grant_token", "metadata_token", "metadata_key",
)  # fmt: skip
_PART = 16
_BASE64 = string.ascii_letters + string.digits + "+/"


@dataclass(frozen=True, slots=True)
class Hit:
    """A canary that was found: which, in what form, and where. Its value is in no repr."""

    canary: str
    form: str
    where: str


class Canaries:
    """Values by kind; `Canaries.random()` makes them, or they are given where the test's world has its own."""

    def __init__(self, **values: str) -> None:
        unknown = values.keys() - set(NAMES)
        if unknown:
            raise ValueError(f"no such canary: {sorted(unknown)}")
        self.values = values
        self._patterns = [
            (name, form, pattern) for name, value in values.items() for form, pattern in _patterns(name, value)
        ]

    @classmethod
    def random(cls) -> Canaries:
        """New values, as AWS, a person and vaultd make them."""
        return cls(
            secret_key="".join(secrets.choice(_BASE64) for _ in range(37)) + "aA1",
            session_token="IQoJ" + base64.b64encode(secrets.token_bytes(300)).decode(),
            token_code=f"{secrets.randbelow(900_000) + 100_000}",
            passphrase=f"horse {secrets.token_hex(6)} ünder/stapled+",
            grant_token=secrets.token_urlsafe(32),
            metadata_token=metadata_tokens.make(
                secrets.token_bytes(32),
                expiry=datetime.now(UTC) + timedelta(hours=6),
                nonce=secrets.token_bytes(metadata_tokens.NONCE_SIZE),
            ).decode(),
            metadata_key=secrets.token_hex(32),
        )

    def scan(self, content: bytes | str, *, where: str = "") -> list[Hit]:
        """Every canary in `content`, once for each form."""
        data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
        return [Hit(name, form, where) for name, form, pattern in self._patterns if pattern.search(data)]

    def scan_path(self, path: Path, *, besides: Iterable[Path] = ()) -> list[Hit]:
        """A file, or every file below a directory, names included; `besides` are carriers that may hold them."""
        exempt = set(besides)
        hits = []
        for each in [path, *sorted(path.rglob("*"))] if path.is_dir() else [path]:
            hits += self.scan(str(each), where=f"name of {each.name}")
            if each.is_file() and each not in exempt:
                hits += self.scan(each.read_bytes(), where=str(each))
        return hits

    def scan_process(self, pid: int, *, parts: Iterable[str] = ("cmdline", "environ")) -> list[Hit]:
        """What any process may read of a process in /proc; what is closed to us is closed."""
        hits = []
        for part in parts:
            try:
                content = Path(f"/proc/{pid}/{part}").read_bytes()
            except OSError:
                continue
            hits += self.scan(content, where=f"{part} of {pid}")
        return hits

    def __repr__(self) -> str:
        return f"<Canaries {', '.join(self.values)}>"


def _patterns(name: str, value: str) -> Iterator[tuple[str, re.Pattern[bytes]]]:
    if name == "token_code":
        alone = re.escape(value.encode())
        yield "itself", re.compile(rb"(?<![0-9A-Za-z.+/_-])" + alone + rb"(?![0-9A-Za-z+/_-]|\.[0-9])")
        seen = {value.encode(), value.encode().hex().encode()}  # 12 digits: an account id may be its hex
    else:
        seen = set()
    for form, content in (*_forms(value), *(_raw_forms(value) if name == "metadata_key" else ())):
        if content not in seen:
            seen.add(content)
            yield form, re.compile(re.escape(content))


def _forms(value: str) -> Iterator[tuple[str, bytes]]:
    raw = value.encode()
    yield "itself", raw
    for form, text in (
        ("url", quote(value, safe="")),
        ("url path", quote(value)),
        ("url form", quote_plus(value)),
        ("json", json.dumps(value)[1:-1]),
        ("json slashes", json.dumps(value)[1:-1].replace("/", "\\/")),
        ("repr", ascii(value)[1:-1]),
        ("bytes repr", repr(raw)[2:-1]),
    ):
        yield form, text.encode()
        yield form, re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), text).encode()
    yield "hex", binascii.hexlify(raw)
    yield "hex", binascii.hexlify(raw).upper()
    yield "utf-16", value.encode("utf-16-le")
    for shift in range(3):
        yield from _aligned(raw, shift)
    if len(value) >= 2 * _PART:
        yield "beginning", value[:_PART].encode()
        yield "end", value[-_PART:].encode()


def _raw_forms(value: str) -> Iterator[tuple[str, bytes]]:
    """Of a key that is written in hex: the bytes themselves."""
    raw = bytes.fromhex(value)
    yield "raw", raw
    yield "raw repr", repr(raw)[2:-1].encode()
    for shift in range(3):
        yield from _aligned(raw, shift)


def _aligned(raw: bytes, shift: int) -> Iterator[tuple[str, bytes]]:
    """The characters of base64(…raw…) that depend on `raw` alone when it begins `shift` bytes after a group."""
    padded = b"\0" * shift + raw
    first, last = (shift * 8 + 5) // 6, len(padded) * 8 // 6
    whole = padded + b"\0" * (-len(padded) % 3)
    yield "base64", base64.b64encode(whole)[first:last]
    yield "base64 url", base64.urlsafe_b64encode(whole)[first:last]
