"""Compact JWE as aws-vault's file backend writes it: PBES2-HS256+A128KW around A256GCM, and nothing else of RFC 7516.

Rules (security.md §3.2)
- `hashlib` and `cryptography` alone, one call for each of the three primitives. A JOSE library (joserfc, jwcrypto) was
  weighed: it would bring into the process that holds the keys what this reader has to refuse, other algorithms, header
  fields and compression, and its count of iterations is where joserfc had CVE-2026-27932.
- Every bound is checked before a key is derived. `p2c` is up to jose2go's own cap.
- A passphrase that does not fit (WrongKey) is told from what was changed under a key that fits (Changed). Salt, count
  and wrapped key are proven by the unwrapping alone, so one damaged there looks like a wrong passphrase.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from typing import Any

ALGORITHM, ENCRYPTION = "PBES2-HS256+A128KW", "A256GCM"
#: jose2go writes 8,192 and reads up to this; 0.2 s.
MOST_ITERATIONS = 1_300_000
#: A key is 600 bytes.
MOST_BYTES = 64 * 1024
_KEK, _WRAPPED, _NONCE, _TAG = 16, 40, 12, 16
_SALTS = range(8, 257)


class NotReadable(Exception):
    """No JWE of that kind; says in what, in words of ours."""


class WrongKey(Exception):
    """The passphrase does not unwrap its key."""


class Changed(Exception):
    """The key was unwrapped, and what it seals is not what was written."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """One message, in its parts."""

    iterations: int
    salt: bytes
    wrapped: bytes
    nonce: bytes
    sealed: bytes
    header: bytes


def parsed(content: bytes) -> Sealed:
    """The parts of a message; no key is derived. Raises NotReadable."""
    if len(content) > MOST_BYTES:
        raise NotReadable(f"it has more than {MOST_BYTES // 1024} KiB")
    segments = content.split(b".")
    if len(segments) != 5:
        raise NotReadable("it is cut or not a file of aws-vault's")
    header, wrapped, nonce, text, tag = map(_decoded, segments)
    if (len(wrapped), len(nonce), len(tag)) != (_WRAPPED, _NONCE, _TAG):
        raise NotReadable("it is cut or not a file of aws-vault's")
    fields = _fields(header)
    return Sealed(_iterations(fields), _salt(fields), wrapped, nonce, text + tag, segments[0])


def opened(message: Sealed, passphrase: bytes) -> bytes:
    """What is sealed. Raises WrongKey, Changed."""
    # not at start: a daemon whose keeper is a process of its own never needs it, and this module is loaded there
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap

    try:
        key = aes_key_unwrap(wrapping_key(message, passphrase), message.wrapped)
    except InvalidUnwrap as exc:
        raise WrongKey from exc
    try:
        return AESGCM(key).decrypt(message.nonce, message.sealed, message.header)
    except InvalidTag as exc:
        raise Changed from exc


def wrapping_key(message: Sealed, passphrase: bytes) -> bytes:
    """What the message's own key is wrapped with (RFC 7518 §4.8.1.1)."""
    salt = ALGORITHM.encode() + b"\0" + message.salt
    return hashlib.pbkdf2_hmac("sha256", passphrase, salt, message.iterations, _KEK)


def _decoded(segment: bytes) -> bytes:
    try:
        return base64.b64decode(segment + b"=" * (-len(segment) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as exc:
        raise NotReadable("it is cut or not a file of aws-vault's") from exc


def _fields(header: bytes) -> dict[str, Any]:
    """The header's, when they are jose2go's: anything beyond them may change what the message means (`zip`, `crit`)."""
    try:
        found = json.loads(header)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise NotReadable("its header is damaged")
    if (found.get("alg"), found.get("enc")) != (ALGORITHM, ENCRYPTION):
        raise NotReadable(f"it is not sealed by {ALGORITHM} and {ENCRYPTION}, which is all that aws-vault writes")
    if set(found) - {"alg", "enc", "p2c", "p2s", "created"}:
        raise NotReadable("its header has fields that aws-vault does not write")
    return found


def _iterations(fields: dict[str, Any]) -> int:
    count = fields.get("p2c")
    if type(count) is not int or count < 1:
        raise NotReadable("its header is damaged (p2c)")
    if count > MOST_ITERATIONS:
        raise NotReadable(f"it wants more than {MOST_ITERATIONS} rounds of PBKDF2 (p2c), which no aws-vault writes")
    return count


def _salt(fields: dict[str, Any]) -> bytes:
    salt = fields.get("p2s")
    if not isinstance(salt, str):
        raise NotReadable("its header is damaged (p2s)")
    found = _decoded(salt.encode("ascii", "replace"))
    if len(found) not in _SALTS:
        raise NotReadable("its header is damaged (p2s)")
    return found
