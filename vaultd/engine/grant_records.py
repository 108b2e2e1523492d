"""Grant as a value, and as the line of `grants.json` and the object of the wire.

Rule: what is read back from the file is checked field by field, since it decides who is served; anything else in it
is an error of the whole file (interface.md §1: "unreadable: start refuses, naming it").
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Literal

from vaultd.model.peer import Peer
from vaultd.model.plan import Overrides
from vaultd.model.text import shown

Kind = Literal["exec", "shell", "lease"]

METADATA_KEY_SIZE = 32
#: The loopback address, for a TCP port of the grant's own, and the link-local one.
LOOPBACK, LINK_LOCAL = "127.0.0.1", "169.254.169.254"
DOOR_ADDRESSES = frozenset({LOOPBACK, LINK_LOCAL})


@dataclass(frozen=True, slots=True)
class Bound:
    """The process that a grant lives with: a pid alone is reused, a start time alone is of one boot only."""

    boot_id: str
    pid: int
    started: int


@dataclass(frozen=True, slots=True)
class Door:
    """Where a grant's IMDS listener is: on 127.0.0.1 with a TCP port of its own, or at the link-local address."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Grant:
    """One line of `grants.json`. `digest` is the SHA-256 of the token, `role_arn` what the profile meant then.

    A profile without a role meant an identity: `identity` and `user_arn` pin it, and are None with a role. A file from
    before they were kept loads; its grants without a role name nobody then, and are refused until `use` is typed again.

    With `imds` it has a `door` and a `metadata_key`, and nobody knows its token: those are what it is reached by.
    """

    id: str
    profile: str
    slug: str
    kind: Kind
    imds: bool
    digest: bytes = field(repr=False)
    role_arn: str | None
    overrides: Overrides
    created: datetime
    expires: datetime
    bound: Bound | None
    peer: Peer | None
    identity: str | None = None
    user_arn: str | None = None
    metadata_key: bytes | None = field(default=None, repr=False)
    door: Door | None = None


def peer_wire(peer: Peer) -> dict[str, Any]:
    """`peer{pid,uid,exe,argv0,started}` of interface.md §6 and §8."""
    return {
        "pid": peer.pid,
        "uid": peer.uid,
        "exe": None if peer.exe is None else shown(peer.exe),
        "argv0": None if peer.argv0 is None else shown(peer.argv0),
        "started": peer.started,
    }


def door_wire(door: Door) -> dict[str, Any]:
    """`door{address,port}`, in `grants.json` and on the wire."""
    return {"address": door.address, "port": door.port}


def stored_of(grant: Grant, last_used: datetime | None) -> dict[str, Any]:
    """What `grants.json` keeps of a grant."""
    overrides, bound = grant.overrides, grant.bound
    return {
        "id": grant.id,
        "profile": grant.profile,
        "slug": grant.slug,
        "kind": grant.kind,
        "imds": grant.imds,
        "digest": grant.digest.hex(),
        "role_arn": grant.role_arn,
        "identity": grant.identity,
        "user_arn": grant.user_arn,
        "overrides": {
            "duration": None if overrides.duration is None else overrides.duration.total_seconds(),
            "region": overrides.region,
            "policy": overrides.policy,
            "policy_arns": list(overrides.policy_arns),
        },
        "created": grant.created.isoformat(),
        "expires": grant.expires.isoformat(),
        "last_used": None if last_used is None else last_used.isoformat(),
        "bound": None if bound is None else {"boot_id": bound.boot_id, "pid": bound.pid, "started": bound.started},
        "peer": None if grant.peer is None else peer_wire(grant.peer),
        "metadata_key": None if grant.metadata_key is None else grant.metadata_key.hex(),
        "door": None if grant.door is None else door_wire(grant.door),
    }


def grant_of(stored: dict[str, Any]) -> Grant:
    """Raises ValueError, KeyError or TypeError for what `stored_of` never wrote."""
    digest = bytes.fromhex(stored["digest"])
    if len(digest) != sha256().digest_size:
        raise ValueError("digest")
    bound, peer = stored["bound"], stored["peer"]
    key, door = stored["metadata_key"], stored["door"]
    grant = Grant(
        id=_text(stored["id"]),
        profile=_text(stored["profile"]),
        slug=_text(stored["slug"]),
        kind=_kind(stored["kind"]),
        imds=_flag(stored["imds"]),
        digest=digest,
        role_arn=_optional(stored["role_arn"]),
        overrides=_overrides(stored["overrides"]),
        created=moment_of(stored["created"]),
        expires=moment_of(stored["expires"]),
        bound=None
        if bound is None
        else Bound(_text(bound["boot_id"]), _number(bound["pid"]), _number(bound["started"])),
        peer=None if peer is None else _peer(peer),
        identity=_optional(stored.get("identity")),
        user_arn=_optional(stored.get("user_arn")),
        metadata_key=None if key is None else _key(key),
        door=None if door is None else _door(door),
    )
    if not grant.id.isalnum():  # it names a file
        raise ValueError("id")
    if not grant.imds == (grant.metadata_key is not None) == (grant.door is not None):
        raise ValueError("imds without its key or door, or one of them without imds")
    return grant


def _key(value: object) -> bytes:
    key = bytes.fromhex(_text(value))
    if len(key) != METADATA_KEY_SIZE:
        raise ValueError("metadata_key")
    return key


def _door(stored: dict[str, Any]) -> Door:
    address, port = _text(stored["address"]), _number(stored["port"])
    if address not in DOOR_ADDRESSES or not 0 < port < 1 << 16:
        raise ValueError("door")
    return Door(address, port)


def _overrides(stored: dict[str, Any]) -> Overrides:
    seconds = stored["duration"]
    return Overrides(
        duration=None if seconds is None else timedelta(seconds=seconds),
        region=_optional(stored["region"]),
        policy=_optional(stored["policy"]),
        policy_arns=tuple(_text(each) for each in stored["policy_arns"]),
    )


def _peer(stored: dict[str, Any]) -> Peer:
    pid, started = stored["pid"], stored["started"]
    return Peer(
        uid=_number(stored["uid"]),
        pid=None if pid is None else _number(pid),
        exe=_optional(stored["exe"]),
        argv0=_optional(stored["argv0"]),
        started=None if started is None else _number(started),
    )


def _kind(value: object) -> Kind:
    for kind in ("exec", "shell", "lease"):
        if value == kind:
            return kind
    raise ValueError("kind")


def moment_of(value: object) -> datetime:
    """A time of the file; raises ValueError or TypeError."""
    moment = datetime.fromisoformat(_text(value))
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return moment


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not text")
    return value


def _optional(value: object) -> str | None:
    return None if value is None else _text(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError("not true or false")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError("not a number")
    return value
