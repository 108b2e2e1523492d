"""`sessions.sealed`: an append-only log under the data key; the last record per key wins (architecture.md §5).

    file    magic `VAULTDL1` ‖ file id (16 bytes), then records
    record  u32 length ‖ u32 CRC-32 of the length's bytes ‖ nonce (12) ‖ AES-256-GCM of
            (u16 key length ‖ key ‖ u8 kept ‖ value)

Rules
- AAD is file id ‖ seq (u64, from 0): no record moves, repeats or comes from another file. The encryption key is derived
  from data key and file id, so that random nonces never meet under one key for longer than one file lives.
- A record that a kill tore at the end is cut silently. Anything else that does not verify sets the file aside as
  `….damaged` with one warning: sessions can be made again. The length has a checksum of its own, so that a flipped
  bit in it is not taken for a torn end.
- Synchronous: one append is one write and one fsync. What could not be written stays in memory and goes out with the
  next rewrite, so a full disk costs nothing once there is room again.
- A compaction writes a new file with a new id; dropped records then leave the disk.
"""

from __future__ import annotations

import logging
import secrets
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vaultd.errors import Locked, Unwritable
from vaultd.files import Files
from vaultd.model.secret import Secret

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_log = logging.getLogger(__name__)

_MAGIC = b"VAULTDL1"
_ID_SIZE = 16
_HEADER_SIZE = len(_MAGIC) + _ID_SIZE
_FRAME = struct.Struct("<II")
_KEY_LENGTH = struct.Struct("<H")
_NONCE = 12
_TAG = 16
#: Dead records that are carried before an append rewrites the file by itself.
_DEAD_LIMIT = 512


class _Broken(Exception):
    """The file does not verify; inside this module only."""


class SealedLogFile:
    """The `SealedLog` of engine/seams.py over one file."""

    def __init__(self, files: Files, path: Path) -> None:
        self._files = files
        self._path = path
        self._data_key: Secret | None = None
        self._seal: _Seal | None = None
        self._living: dict[str, bytes] = {}
        self._records = 0
        self._behind = False  # memory holds something that the disk does not
        self._damaged = False

    @property
    def damaged(self) -> bool:
        """True when `open` set a damaged log aside."""
        return self._damaged

    def open(self, data_key: Secret) -> dict[str, bytes]:
        """Replay: the living records by key; compacted at once when there is anything to leave out.

        Raises FileRefused. A disk that takes nothing is no reason not to open.
        """
        self.close()
        self._data_key = Secret(data_key.reveal_bytes())
        self._damaged = False
        content = self._files.read(self._path)
        if content is not None:
            try:
                self._replay(content)
            except _Broken as exc:
                self._set_aside(str(exc))
        if self._seal is None or self._records != len(self._living):
            self._compact_if_possible(worth_a_file=content is not None)
        return dict(self._living)

    def append(self, key: str, value: bytes | None) -> None:
        """Write and fsync one record; None drops the key. Raises Unwritable, Locked.

        After Unwritable the record is remembered all the same, and written with the next one that fits.
        """
        self._require_open()
        if value is None and key not in self._living and not self._behind:
            return
        if value is None:
            self._living.pop(key, None)
        else:
            self._living[key] = value
        if self._seal is None or self._records > len(self._living) + _DEAD_LIMIT:
            self.compact()
            return
        seal, self._seal = self._seal, None  # until the write is known to be whole, the file's end is not
        self._behind = True
        self._files.append(self._path, seal.record(self._records, key, value), sync=True)
        self._behind = False
        self._records += 1
        self._seal = seal

    def compact(self) -> None:
        """Rewrite with living records only, so that dropped ones leave the disk. Raises Unwritable, Locked."""
        seal = _Seal(self._require_open(), secrets.token_bytes(_ID_SIZE))
        records = (seal.record(seq, key, value) for seq, (key, value) in enumerate(self._living.items()))
        content = seal.header + b"".join(records)
        self._seal, self._behind = None, True
        self._files.replace(self._path, content)
        self._seal, self._records, self._behind = seal, len(self._living), False

    def close(self) -> None:
        """Forget the data key and every value."""
        if self._data_key is not None:
            self._data_key.wipe()
        self._data_key, self._seal = None, None
        self._living, self._records, self._behind = {}, 0, False

    def _require_open(self) -> Secret:
        if self._data_key is None:
            raise Locked("The session log is shut: run `vault-client unlock`.")
        return self._data_key

    def _replay(self, content: bytes) -> None:
        if not content.startswith(_MAGIC) or len(content) < _HEADER_SIZE:
            raise _Broken("header")
        seal = _Seal(self._require_open(), content[len(_MAGIC) : _HEADER_SIZE])
        whole = _HEADER_SIZE
        for sealed in _frames(content):
            whole += _FRAME.size + len(sealed)
            key, value = seal.opened(self._records, sealed)
            self._records += 1
            if value is None:
                self._living.pop(key, None)
            else:
                self._living[key] = value
        torn = whole != len(content)
        self._seal = None if torn else seal  # None: the next write is a rewrite, which leaves the torn end out

    def _set_aside(self, reason: str) -> None:
        self._living, self._records, self._damaged = {}, 0, True
        aside = self._path.with_name(self._path.name + ".damaged")
        _log.warning("set-aside log path=%s as=%s reason=%s", self._path, aside, reason)
        try:
            self._files.rename(self._path, aside)
        except Unwritable as exc:
            _log.warning("keep damaged-log reason=%s", exc.message)

    def _compact_if_possible(self, *, worth_a_file: bool) -> None:
        if not worth_a_file or self._damaged:
            return  # nothing to rewrite: the first append makes the file
        try:
            self.compact()
        except Unwritable as exc:
            _log.warning("skip compaction reason=%s", exc.message)


class _Seal:
    """The key of one file: derived, never stored."""

    def __init__(self, data_key: Secret, file_id: bytes) -> None:
        self._id = file_id
        self._cipher = _cipher(data_key, file_id)

    @property
    def header(self) -> bytes:
        return _MAGIC + self._id

    def record(self, seq: int, key: str, value: bytes | None) -> bytes:
        name = key.encode()
        plain = b"".join((_KEY_LENGTH.pack(len(name)), name, bytes([value is not None]), value or b""))
        nonce = secrets.token_bytes(_NONCE)
        sealed = nonce + self._cipher.encrypt(nonce, plain, self._bound(seq))
        length = struct.pack("<I", len(sealed))
        return _FRAME.pack(len(sealed), zlib.crc32(length)) + sealed

    def opened(self, seq: int, sealed: bytes) -> tuple[str, bytes | None]:
        from cryptography.exceptions import InvalidTag

        try:
            plain = self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], self._bound(seq))
        except InvalidTag as exc:
            raise _Broken(f"record {seq}") from exc
        end = _KEY_LENGTH.size + _KEY_LENGTH.unpack_from(plain)[0]
        return plain[_KEY_LENGTH.size : end].decode(), plain[end + 1 :] if plain[end] else None

    def _bound(self, seq: int) -> bytes:
        return self._id + seq.to_bytes(8, "little")


def _cipher(data_key: Secret, file_id: bytes) -> AESGCM:
    # cryptography is loaded at the first use: a daemon that starts locked needs none of it (performance.md row 8)
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    derive = HKDF(algorithm=hashes.SHA256(), length=32, salt=file_id, info=b"vaultd sessions.sealed")
    return AESGCM(derive.derive(data_key.reveal_bytes()))


def _frames(content: bytes) -> Iterator[bytes]:
    """The sealed bytes of each whole record; stops at a torn end, raises _Broken at any other damage."""
    start = _HEADER_SIZE
    while len(content) - start >= _FRAME.size:
        length, check = _FRAME.unpack_from(content, start)
        if zlib.crc32(content[start : start + 4]) != check or length < _NONCE + _TAG:
            if any(content[start:]):
                raise _Broken(f"length at byte {start}")
            return  # zeros to the end: a file system that grew the file before the machine went down
        end = start + _FRAME.size + length
        if end > len(content):
            return
        yield content[start + _FRAME.size : end]
        start = end
