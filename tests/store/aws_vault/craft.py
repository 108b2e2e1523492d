"""Messages of aws-vault's file backend as a hostile hand would write them: any header, any content.

Its honest output is compared with what the Go writer made: the reader takes both.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from tests.store.aws_vault.make import PASSPHRASE

_SALT, _KEY, _NONCE = b"twelve bytes", bytes(range(32)), b"nonce of 12!"


def segment(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def message(
    content: bytes, *, rounds: int = 1, passphrase: str = PASSPHRASE, header: Mapping[str, object] | None = None
) -> bytes:
    """One message; the fields of `header` replace its own, None leaves one out."""
    named = {
        "alg": "PBES2-HS256+A128KW", "enc": "A256GCM", "p2c": rounds, "p2s": segment(_SALT).decode(), "created": "now",
    }  # fmt: skip
    fields = {name: value for name, value in {**named, **(header or {})}.items() if value is not None}
    first = segment(json.dumps(fields).encode())
    salt = b"PBES2-HS256+A128KW\0" + _SALT
    return assembled(first, content, hashlib.pbkdf2_hmac("sha256", passphrase.encode(), salt, rounds, 16))


def assembled(first: bytes, content: bytes, wrapping: bytes) -> bytes:
    """A message of any first segment, its key wrapped with `wrapping`."""
    sealed = AESGCM(_KEY).encrypt(_NONCE, content, first)
    parts = (aes_key_wrap(wrapping, _KEY), _NONCE, sealed[:-16], sealed[-16:])
    return b".".join((first, *map(segment, parts)))


def item(name: str, **fields: object) -> bytes:
    """What a message holds for a key of that name; `fields` replace those of its credentials."""
    made = {"AccessKeyID": "AKIACRAFTED000000001", "SecretAccessKey": "canary/crafted", "SessionToken": ""} | fields
    data = base64.b64encode(json.dumps(made).encode()).decode()
    return json.dumps({"Key": name, "Data": data, "Label": f"aws-vault ({name})"}).encode()


def key(name: str) -> str:
    """A sound file for a key of that name."""
    return message(item(name)).decode()
