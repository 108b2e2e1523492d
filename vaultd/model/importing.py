"""Names in aws-vault's stores: which are keys, how a file spells one, and what a key will be called here.

Rule: a name from a file or from D-Bus is hostile. It is compared, never used as a path (security.md §3.2).
"""

from __future__ import annotations

import base64
import binascii
import re

from vaultd.model import limits

#: Sessions of today, `TYPE,b64url(profile),b64url(serial),unix`, and the three forms of earlier versions; tokens of
#: Identity Center. They end by themselves, and aws-vault makes them anew.
_SESSION = re.compile(r"[^,]+,([^,]+),([^,]*),[0-9]+")
_OLD_SESSIONS = re.compile(
    r"session,[^,]+,[^,]*,[0-9]{2,}|session:[^ ]+:[^ ]*:[^:]+|.+? session \([0-9]+\)", flags=re.DOTALL
)
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")


def is_key(name: str) -> bool:
    """A long-term key's name, not that of a session or a token."""
    return not (name.startswith("oidc:") or _OLD_SESSIONS.fullmatch(name) or _is_session(name))


def _is_session(name: str) -> bool:
    found = _SESSION.fullmatch(name)
    return found is not None and all(_is_base64url(part) for part in found.groups())


def _is_base64url(text: str) -> bool:
    try:
        base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def of_file(name: bytes) -> str | None:
    """The key's name of a file's: `team%2Fprod` → `team/prod`. None for one that is not UTF-8 text."""
    try:
        return _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), name).decode()
    except UnicodeDecodeError:
        return None


def of_bus(path: str) -> str:
    """The last part of a D-Bus path, as the Secret Service spells a collection: `my_2dvault` → `my-vault`."""
    last = path.rpartition("/")[2].encode()
    return re.sub(rb"_([0-9A-Fa-f]{2})", lambda found: bytes([int(found[1], 16)]), last).decode("utf-8", "replace")


def called(name: str) -> str | None:
    """The identity's name: the same, or with `-` for what may not be in one. None: none can be made of it."""
    made = re.sub(r"[/\\]", "-", name).lstrip("-.") if limits.identity_name(name) else name
    return made if limits.identity_name(made) is None else None
