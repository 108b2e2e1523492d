"""The reader of another program's store: files of aws-vault's, their names, and what is sealed in them.

Rule: a message is read, or its line says why; no line holds a secret; what comes out is a key as AWS makes them, under
a name that an identity may have or under none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Final, cast

from tests.fuzz.files import CANARY, FileTarget
from tests.fuzz.target import SPLIT, Finding, InMemory
from tests.store.aws_vault.craft import assembled, item, message, segment
from tests.store.aws_vault.make import FIXTURES, PASSPHRASE
from vaultd.engine.seams import ForeignKey
from vaultd.files import Files
from vaultd.model import limits
from vaultd.model.importing import called
from vaultd.model.secret import Secret
from vaultd.store import aws_vault, jwe

DIRECTORY: Final = Path("/home/somebody/.awsvault/keys")
_KEK: Final = sha256(b"instead of PBKDF2").digest()[:16]
_Read = Callable[[Files, Path, Secret | None, tuple[str, ...]], tuple[ForeignKey, ...]]


class _Directory(InMemory):
    """A directory in memory."""

    def names(self, directory: Path, *, most: int) -> tuple[bytes, ...] | None:
        return tuple(path.name.encode("utf-8", "surrogateescape") for path in self.held)[:most]


class AwsVaultFiles(FileTarget):
    """The first byte: 0 the file · 1 its header, sealed by us · 2 what is sealed · 3 the names of files, line by line.

    PBKDF2 stands still for a fast one: its count is judged before, by the product's own code.
    """

    canaries = (CANARY.encode(), PASSPHRASE.encode())

    def __init__(self) -> None:
        super().__init__()
        self._derive = vars(jwe)["wrapping_key"]
        vars(jwe)["wrapping_key"] = lambda *_: _KEK
        self._read = cast("_Read", vars(aws_vault)["_in_directory"])

    def seeds(self) -> Iterable[bytes]:
        fixture: dict[str, str] = json.loads((FIXTURES / "file.json").read_text())
        header = {"alg": "PBES2-HS256+A128KW", "enc": "A256GCM", "p2c": 8192, "p2s": "dHdlbHZlIGJ5dGVz"}
        yield b"\x00" + fixture["identity"].encode()
        yield b"\x00" + message(item("mine", SecretAccessKey=CANARY))
        yield b"\x01" + json.dumps(header).encode()
        yield b"\x01" + json.dumps({**header, "p2c": jwe.MOST_ITERATIONS, "created": "now"}).encode()
        yield b"\x02" + item("mine", SecretAccessKey=CANARY)
        yield b"\x02" + item("mine", SessionToken=CANARY)
        yield b"\x03" + b"\n".join(name.encode() for name in fixture)
        yield b"\x03a\n%61\n%2e%2e%2f\nsession:a:b:c\noidc:x"

    def read(self, data: bytes) -> None:
        mode, body = (data[0] if data else 0) % 4, data[1:]
        files = _Directory()
        names = [b"mine"] if mode != 3 else [each for each in body.split(b"\n") if each and b"/" not in each][:600]
        for raw in names:
            path = DIRECTORY / raw.replace(b"\0", b"").decode("utf-8", "surrogateescape")
            files.held[path] = self._content(mode, body)
        for found in self._read(files, DIRECTORY, Secret(PASSPHRASE), ()):
            self._check(found)

    def _content(self, mode: int, body: bytes) -> bytes:
        if mode == 0:
            return body
        if mode == 1:
            header, _, rest = body.partition(SPLIT)
            return assembled(segment(header), rest or item("mine", SecretAccessKey=CANARY), _KEK)
        return assembled(
            segment(b'{"alg":"PBES2-HS256+A128KW","enc":"A256GCM","p2c":1,"p2s":"dHdlbHZlIGJ5dGVz"}'),
            body if mode == 2 else item("mine", SecretAccessKey=CANARY),
            _KEK,
        )

    def _check(self, found: ForeignKey) -> None:
        if any(each in found.wrong.encode("utf-8", "surrogateescape") for each in self.canaries):
            raise Finding("a secret is in what was said of a file")
        if (found.key is None) == (not found.wrong):
            raise Finding("a key that is wrong, or neither")
        if found.key is not None and not re.fullmatch(r"[A-Z0-9]{16,128}", found.key.access_key_id, re.ASCII):
            raise Finding("that is no access key id")
        identity = called(found.name)
        if identity is not None and limits.identity_name(identity) is not None:
            raise Finding("an identity of an impossible name")

    def close(self) -> None:
        vars(jwe)["wrapping_key"] = self._derive
        super().close()
