"""Metadata tokens of IMDSv2: a MAC of their own end under a key of the grant, and nothing kept for any of them.

Rules
- Stateless: Rust, Kotlin and opendal never ask for another one (sdk-facts §10.2), so a token has to verify after a
  restart, while locked, and for its whole TTL; ten thousand of them cost no memory.
- Bound to the grant by its key alone: a token from another door is as wrong as any other bytes.
- 56 characters, as EC2's own: the CRT fails on one of more than 64, without a word of why (measured, 0.38.1).
- One spelling each: what is compared, in constant time, is the whole token made anew from what it says of itself.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import struct
from datetime import datetime
from typing import Final

NONCE_SIZE: Final = 9
#: 192 bits of SHA-256, for the length's sake.
_MAC_SIZE: Final = 24
#: What EC2 gives at most: 6 hours.
LONGEST_TTL: Final = 21_600
_VERSION: Final = 1
#: Version, expiry as seconds since 1970 (UTC), nonce.
_CLAIM: Final = struct.Struct(f"!BQ{NONCE_SIZE}s")
#: With the MAC 42 bytes: a multiple of three, so that base64 has no padding and no spare bits.
_LENGTH: Final = (_CLAIM.size + _MAC_SIZE) * 4 // 3


def make(key: bytes, *, expiry: datetime, nonce: bytes) -> bytes:
    """A token that is good before `expiry` (whole seconds count); `nonce` is NONCE_SIZE random bytes."""
    return _token(key, _CLAIM.pack(_VERSION, int(expiry.timestamp()), nonce))


def check(key: bytes, token: bytes, now: datetime) -> bool:
    """Whether `token`, any bytes at all, was made under `key` and has not ended."""
    if len(token) != _LENGTH:
        return False
    try:
        claim = base64.urlsafe_b64decode(token)[: _CLAIM.size]
        version, expiry, _ = _CLAIM.unpack(claim)
    except (binascii.Error, struct.error):
        return False
    genuine = hmac.compare_digest(_token(key, claim), token)
    return genuine and version == _VERSION and now.timestamp() < expiry


def _token(key: bytes, claim: bytes) -> bytes:
    return base64.urlsafe_b64encode(claim + hmac.digest(key, claim, "sha256")[:_MAC_SIZE])
