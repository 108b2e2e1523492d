"""The bytes of `secrets.sealed`: interface.md §1 for the first 40, security.md §3.3 for the rest. Pure, no I/O.

    magic `VAULTDS1` ‖ u16 version ‖ u8 suite ‖ u8 KDF ‖ u32 m (KiB) ‖ u32 t ‖ u32 p ‖ salt (16)        the prefix
    ‖ file uuid (16) ‖ u64 generation ‖ i64 created (epoch s) ‖ wrapped DEK (nonce 12 ‖ 32 ‖ tag 16)
    ‖ passphrase tag (32) ‖ header tag (32)                                                             the header
    ‖ SHA-256 of the header ‖ records
    record   uuid (16) ‖ u8 type ‖ u32 length of the plain text ‖ nonce (12) ‖ cipher text ‖ tag (16)

Integers are little-endian. Suite 1: AES-256-GCM, HMAC-SHA-256, HKDF-SHA-256. KDF 1: Argon2id; 2: scrypt with r = 8,
N = m (then 128 r N bytes are m KiB) and t = 1.

Rules
- Bounds are checked before anything is derived: cryptography runs m = 16 GiB when asked.
- Both tags are HMACs under a key from the passphrase (key commitment). The passphrase tag covers the prefix, the header
  tag the whole header: only the first failing means a wrong passphrase, only the second a forged header. Neither says
  more about a passphrase than yes or no (no partitioning oracle). The plain SHA-256 tells bit rot without deriving.
- A data key (DEK) lives for one version of the file. AAD of a record is header hash ‖ u32 place in the file ‖ record
  uuid ‖ type ‖ length, and record 0 (type 0) holds the count: nothing is swapped, copied over another, cut or brought
  over from another file. A name that comes twice is damage too.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

# cryptography is imported where it is used: a daemon that starts locked needs none of it (performance.md row 8)

MAGIC = b"VAULTDS1"
VERSION = 1
SUITE = 1
ARGON2ID = 1
SCRYPT = 2
SALT_SIZE = 16
#: Half of what the field holds: whatever an index or a note says was seen, the next generation can still be written.
HIGHEST_GENERATION = (1 << 63) - 1

_PREFIX = struct.Struct("<8sHBBIII16s")
_IDENT = struct.Struct("<16sQq")
_WRAPPED = 12 + 32 + 16
_TAG = 32
_TAGGED = _PREFIX.size + _IDENT.size + _WRAPPED
HEADER_SIZE = _TAGGED + 2 * _TAG
_RECORD = struct.Struct("<16sBI12s")
_NAME = struct.Struct("<H")
_COUNT = struct.Struct("<I")
_COUNT_TYPE, _ITEM_TYPE = 0, 1
_SCRYPT_R = 8


class Malformed(Exception):
    """The bytes are not a whole, genuine store; says what is wrong. Becomes StoreDamaged."""


class NotTheKey(Exception):
    """The passphrase tag does not verify. Becomes WrongPassphrase."""


@dataclass(frozen=True, slots=True)
class Kdf:
    """A key derivation and its cost: memory `m` in KiB, passes `t`, lanes `p`."""

    kind: int
    m: int
    t: int
    p: int

    def check(self) -> None:
        """19 MiB ≤ m ≤ 1 GiB, 1 ≤ t ≤ 10, 1 ≤ p ≤ 8 (security.md §3.3), else Malformed."""
        bounded = 19 * 1024 <= self.m <= 1024 * 1024 and 1 <= self.t <= 10 and 1 <= self.p <= 8
        if self.kind == SCRYPT:
            bounded = bounded and self.t == 1 and self.m & (self.m - 1) == 0
        if self.kind not in {ARGON2ID, SCRYPT} or not bounded:
            raise Malformed("key derivation out of bounds")


#: RFC 9106's second recommended option.
DEFAULT = Kdf(ARGON2ID, m=64 * 1024, t=3, p=4)
#: For builds of cryptography against OpenSSL < 3.2, which have no Argon2id.
FALLBACK = Kdf(SCRYPT, m=1 << 17, t=1, p=1)


@dataclass(frozen=True, slots=True)
class Header:
    """What the file says of itself; to be believed once `open_items` returned."""

    kdf: Kdf
    salt: bytes
    uuid: bytes
    generation: int
    created: int

    def prefix(self) -> bytes:
        """The 40 bytes that the passphrase tag covers."""
        return _PREFIX.pack(MAGIC, VERSION, SUITE, self.kdf.kind, self.kdf.m, self.kdf.t, self.kdf.p, self.salt)


def default_kdf() -> Kdf:
    """Argon2id where this build of cryptography has it, else scrypt."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    try:
        Argon2id(salt=bytes(SALT_SIZE), length=32, iterations=1, lanes=1, memory_cost=8)
    except UnsupportedAlgorithm:
        return FALLBACK
    return DEFAULT


def read_header(content: bytes) -> Header:
    """Parse and bound; nothing is derived. Raises Malformed."""
    if not content.startswith(MAGIC):
        raise Malformed("it does not begin with VAULTDS1")
    if len(content) < HEADER_SIZE + _TAG:
        raise Malformed("it is cut within its header")
    _, version, suite, kind, m, t, p, salt = _PREFIX.unpack_from(content)
    if (version, suite) != (VERSION, SUITE):
        raise Malformed(f"it is of version {version}, suite {suite}, which this vaultd does not know")
    kdf = Kdf(kind, m, t, p)
    kdf.check()
    if not hmac.compare_digest(hashlib.sha256(content[:HEADER_SIZE]).digest(), _header_hash(content)):
        raise Malformed("its header has changed")
    uuid, generation, created = _IDENT.unpack_from(content, _PREFIX.size)
    return Header(kdf, salt, uuid, generation, created)


def derive(kdf: Kdf, salt: bytes, passphrase: str) -> tuple[bytes, bytes]:
    """(wrap key, commit key); takes tens to hundreds of ms. Raises UnsupportedAlgorithm, MemoryError, Malformed."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
    from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    kdf.check()
    phrase = unicodedata.normalize("NFC", passphrase).encode()
    kdf_of: Argon2id | Scrypt = (
        Argon2id(salt=salt, length=32, iterations=kdf.t, lanes=kdf.p, memory_cost=kdf.m)
        if kdf.kind == ARGON2ID
        else Scrypt(salt=salt, length=32, n=kdf.m, r=_SCRYPT_R, p=kdf.p)
    )
    master = kdf_of.derive(phrase)

    def expand(purpose: bytes) -> bytes:
        return HKDFExpand(algorithm=hashes.SHA256(), length=32, info=b"vaultd secrets.sealed " + purpose).derive(master)

    return expand(b"wrap"), expand(b"commit")


def open_items(content: bytes, header: Header, *, wrap: bytes, commit: bytes) -> dict[str, bytes]:
    """Every item by name. Raises NotTheKey, Malformed."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    tags = content[_TAGGED:HEADER_SIZE]
    if not hmac.compare_digest(tags[:_TAG], _tag(commit, b"passphrase", header.prefix())):
        raise NotTheKey
    if not hmac.compare_digest(tags[_TAG:], _tag(commit, b"header", content[: HEADER_SIZE - _TAG])):
        raise Malformed("its header is forged")
    wrapped = content[_TAGGED - _WRAPPED : _TAGGED]
    try:
        cipher = AESGCM(AESGCM(wrap).decrypt(wrapped[:12], wrapped[12:], header.prefix()))
        return _open_records(content, cipher)
    except InvalidTag as exc:
        raise Malformed("a record does not verify") from exc
    except struct.error as exc:
        raise Malformed("it is cut within a record") from exc


def render(header: Header, items: Mapping[str, bytes], *, wrap: bytes, commit: bytes) -> bytes:
    """The whole file under a new data key."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    header.kdf.check()
    data_key, nonce = secrets.token_bytes(32), secrets.token_bytes(12)
    prefix = header.prefix()
    tagged = b"".join(
        (
            prefix,
            _IDENT.pack(header.uuid, header.generation, header.created),
            nonce,
            AESGCM(wrap).encrypt(nonce, data_key, prefix),
        )
    )
    known = tagged + _tag(commit, b"passphrase", prefix)
    whole = known + _tag(commit, b"header", known)
    digest, cipher = hashlib.sha256(whole).digest(), AESGCM(data_key)
    records = [_record(cipher, digest, 0, _COUNT_TYPE, _COUNT.pack(len(items)))]
    for place, (name, value) in enumerate(items.items(), start=1):
        raw = name.encode()
        records.append(_record(cipher, digest, place, _ITEM_TYPE, _NAME.pack(len(raw)) + raw + value))
    return whole + digest + b"".join(records)


def _tag(commit: bytes, purpose: bytes, covered: bytes) -> bytes:
    return hmac.digest(commit, purpose + b"\0" + covered, "sha256")


def _header_hash(content: bytes) -> bytes:
    return content[HEADER_SIZE : HEADER_SIZE + _TAG]


def _bound(digest: bytes, place: int, uuid: bytes, kind: int, length: int) -> bytes:
    """The AAD of the record at `place`: without the place, a copy of one record over another would open."""
    return digest + _COUNT.pack(place) + uuid + bytes([kind]) + _COUNT.pack(length)


def _record(cipher: AESGCM, digest: bytes, place: int, kind: int, plain: bytes) -> bytes:
    uuid, nonce = secrets.token_bytes(16), secrets.token_bytes(12)
    sealed = cipher.encrypt(nonce, plain, _bound(digest, place, uuid, kind, len(plain)))
    return _RECORD.pack(uuid, kind, len(plain), nonce) + sealed


def _open_records(content: bytes, cipher: AESGCM) -> dict[str, bytes]:
    start = HEADER_SIZE + _TAG
    plain, kind, start = _open_record(content, start, 0, cipher)
    if kind != _COUNT_TYPE:
        raise Malformed("its record count is missing")
    items: dict[str, bytes] = {}
    for place in range(1, _COUNT.unpack(plain)[0] + 1):
        plain, kind, start = _open_record(content, start, place, cipher)
        if kind != _ITEM_TYPE:
            raise Malformed("a record is of an unknown type")
        _add(items, plain)
    if start != len(content):
        raise Malformed("something follows its last record")
    return items


def _add(items: dict[str, bytes], plain: bytes) -> None:
    end = _NAME.size + _NAME.unpack_from(plain)[0]
    name = plain[_NAME.size : end].decode()
    if name in items:
        raise Malformed("a record is there twice")
    items[name] = plain[end:]


def _open_record(content: bytes, start: int, place: int, cipher: AESGCM) -> tuple[bytes, int, int]:
    uuid, kind, length, nonce = _RECORD.unpack_from(content, start)
    start += _RECORD.size
    end = start + length + 16
    bound = _bound(_header_hash(content), place, uuid, kind, length)
    return cipher.decrypt(nonce, content[start:end], bound), kind, end
