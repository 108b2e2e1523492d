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


@dataclass(frozen=True, slots=True)
class Bound:
    """The process that a grant lives with: a pid alone is reused, a start time alone is of one boot only."""

    boot_id: str
    pid: int
    started: int


@dataclass(frozen=True, slots=True)
class Grant:
    """One line of `grants.json`. `digest` is the SHA-256 of the token, `role_arn` what the profile meant then.

    A profile without a role meant an identity: `identity` and `user_arn` pin it, and are None with a role. A file from
    before they were kept loads; its grants without a role name nobody then, and are refused until `use` is typed again.
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


def peer_wire(peer: Peer) -> dict[str, Any]:
    """`peer{pid,uid,exe,argv0,started}` of interface.md §6 and §8."""
    return {
        "pid": peer.pid,
        "uid": peer.uid,
        "exe": None if peer.exe is None else shown(peer.exe),
        "argv0": None if peer.argv0 is None else shown(peer.argv0),
        "started": peer.started,
    }


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
        # Of the doors (IMDS): the file has their place from the first version on.
        "metadata_key": None,
        "door": None,
    }


def grant_of(stored: dict[str, Any]) -> Grant:
    """Raises ValueError, KeyError or TypeError for what `stored_of` never wrote."""
    digest = bytes.fromhex(stored["digest"])
    if len(digest) != sha256().digest_size:
        raise ValueError("digest")
    bound, peer = stored["bound"], stored["peer"]
    grant = Grant(
        id=_text(stored["id"]),
        profile=_text(stored["profile"]),
        slug=_text(stored["slug"]),
        kind=_kind(stored["kind"]),
        imds=stored["imds"] is True,
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
    )
    if not grant.id.isalnum():  # it names a file
        raise ValueError("id")
    return grant


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


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError("not a number")
    return value
