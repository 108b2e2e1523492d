"""Grants: a token ↔ one profile, its overrides and the role or user it meant; who owns one and when it ends.

Rules
- Only the SHA-256 of a token is kept; the token itself goes out once, and as `grants/ID.token` (0600, no newline:
  botocore refuses one) in the run directory, which goes with the grant.
- A grant with a door (IMDS) has no token that anybody knows: no file of one, and none opens the container endpoint.
- `grants.json` is written at once on create and revoke, `last_used` each minute (architecture.md §7). What cannot be
  written is tried again at each sweep: a revoke holds in memory from the first moment, whatever the disk does.
- A grant ends by revoke, by `expires`, after `idle_timeout` without use, or within 5 s of the end of the process it is
  bound to, however that ended; across a restart by the same rules, so a dead pid or another boot ends it at load.
- Expiry and idleness are measured on boottime, which counts suspend and which nobody sets (architecture.md §8 item 9);
  the wall clock only dates them, for the file and for people.
"""

from __future__ import annotations

import hmac
import json
import logging
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from vaultd.engine.grant_records import (
    METADATA_KEY_SIZE,
    Bound,
    Door,
    Grant,
    Kind,
    door_wire,
    grant_of,
    moment_of,
    peer_wire,
    stored_of,
)
from vaultd.engine.seams import Clock
from vaultd.errors import BadRequest, Misconfigured, UnknownGrant, Unwritable
from vaultd.files import Files
from vaultd.model.dialects import stamp
from vaultd.model.peer import Peer
from vaultd.model.plan import Overrides
from vaultd.model.secret import Secret
from vaultd.model.text import shown

__all__ = ["Bound", "Door", "Grant", "Grants", "Kind", "peer_wire"]

VERSION = 1
#: Two sweeps and the reading of /proc fit into the contract's 5 s.
SWEEP_SECONDS = 2.0
FLUSH_SECONDS = 60.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Living:
    """A grant and its moving parts. `deadline` and `used` are boottime; `last_used` is the wall time for the file."""

    grant: Grant
    deadline: float
    used: float
    last_used: datetime | None
    #: The last program that was let to it; memory only.
    met: Peer | None = None


class Grants:
    """Every grant that lives. `alive` tells whether a bound process of this boot still runs.

    `on_revoke(grant, reason)` is called after a grant ended, by command or by itself: for the audit line and the door;
    `on_use()` at each request with a good token, before it is answered.
    """

    def __init__(
        self,
        *,
        files: Files,
        path: Path,
        tokens: Path,
        clock: Clock,
        max_age: timedelta,
        idle_timeout: timedelta,
        boot_id: str,
        alive: Callable[[Bound], bool],
        on_revoke: Callable[[Grant, str], None],
        on_use: Callable[[], None] | None = None,
    ) -> None:
        self._files = files
        self._path = path
        self._tokens = tokens
        self._clock = clock
        self._max_age = max_age
        self._idle = idle_timeout.total_seconds()
        self._boot_id = boot_id
        self._alive = alive
        self._on_revoke = on_revoke
        self._on_use = on_use
        self._by_digest: dict[bytes, _Living] = {}
        self._by_id: dict[str, _Living] = {}
        #: Revoked, but still in the file: a second `revoke` of one tries the disk again instead of not knowing it.
        self._unwritten: dict[str, Grant] = {}
        self._changed = False
        self._flushed = clock.boottime()

    # ---- start ----

    def load(self) -> None:
        """Read `grants.json`, and end what did not live through the restart.

        Raises Misconfigured or FileRefused naming the file: an empty list in its place would orphan every shell.
        """
        for living in self._read():
            self._by_id[living.grant.id] = living
            self._admit(living)
        self.sweep()
        self._remove_litter()

    def _read(self) -> list[_Living]:
        content = self._files.read(self._path)
        if content is None:
            return []
        try:
            return [self._revive(each) for each in _entries(json.loads(content))]
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
            raise Misconfigured(
                f"{self._path} cannot be understood ({_where(exc)}), so no token could be honoured: restore it, "
                f"or give every grant up with `rm {self._path}`, then type `vaultd start`.",
                path=str(self._path),
            ) from exc

    def _revive(self, stored: dict[str, Any]) -> _Living:
        grant = grant_of(stored)
        now, boot = self._clock.now(), self._clock.boottime()
        last_used = None if stored["last_used"] is None else moment_of(stored["last_used"])
        quiet = max(timedelta(), now - (last_used or grant.created))
        return _Living(
            grant=grant,
            deadline=boot + (grant.expires - now).total_seconds(),
            used=boot - quiet.total_seconds(),
            last_used=last_used,
        )

    def _remove_litter(self) -> None:
        # A kill between the token file and grants.json leaves a token that opens nothing.
        for path in self._tokens.glob("*.token"):
            if path.stem not in self._by_id:
                self._remove_token(path)

    # ---- the life of one ----

    def create(
        self,
        *,
        profile: str,
        slug: str,
        kind: Kind,
        ttl: timedelta | None,
        overrides: Overrides,
        role_arn: str | None,
        bound: Bound | None,
        peer: Peer | None,
        identity: str | None = None,
        user_arn: str | None = None,
        door: Door | None = None,
        metadata_key: bytes | None = None,
    ) -> tuple[Grant, Secret]:
        """A new grant and its token. A `ttl` above max_age is cut to it. `identity` and `user_arn` pin a profile
        without a role; with one they are not kept.

        With a `door` it is one of IMDS: the token opens nothing, and `metadata_key` is a new one unless it is given.

        Raises BadRequest (ttl not positive) and Unwritable, after which nothing of it exists.
        """
        if ttl is not None and ttl <= timedelta():
            raise BadRequest(
                "ttl_seconds must be above 0: leave it out, or send a positive number.", field="ttl_seconds"
            )
        token, now = secrets.token_urlsafe(32), self._clock.now()
        grant = Grant(
            id=self._new_id(),
            profile=profile,
            slug=slug,
            kind=kind,
            imds=door is not None,
            digest=sha256(token.encode()).digest(),
            role_arn=role_arn,
            overrides=overrides,
            created=now,
            expires=now + min(ttl or self._max_age, self._max_age),
            bound=bound,
            peer=peer,
            identity=identity if role_arn is None else None,
            user_arn=user_arn if role_arn is None else None,
            metadata_key=None if door is None else metadata_key or secrets.token_bytes(METADATA_KEY_SIZE),
            door=door,
        )
        self._keep(grant, token)
        log.info("create grant id=%s kind=%s", grant.id, grant.kind)
        return grant, Secret(token)

    def _keep(self, grant: Grant, token: str) -> None:
        boot = self._clock.boottime()
        life = (grant.expires - grant.created).total_seconds()
        self._by_id[grant.id] = _Living(grant=grant, deadline=boot + life, used=boot, last_used=None)
        try:
            if grant.door is None:
                self._files.replace(self.token_path(grant.id), token.encode())
            self._write()
        except BaseException:
            del self._by_id[grant.id]
            self._remove_token(self.token_path(grant.id))
            raise
        self._admit(self._by_id[grant.id])

    def _admit(self, living: _Living) -> None:
        if living.grant.door is None:
            self._by_digest[living.grant.digest] = living

    def find(self, token: bytes) -> Grant | None:
        """The grant of a token, any bytes; None when there is none that lives. Stamps its last use."""
        digest = sha256(token).digest()
        living = self._by_digest.get(digest)
        if living is None or not hmac.compare_digest(living.grant.digest, digest):
            return None
        return self._used(living)

    def entered(self, grant_id: str) -> Grant | None:
        """The grant whose door is used; None when it has ended. Stamps its last use."""
        living = self._by_id.get(grant_id)
        return None if living is None else self._used(living)

    def _used(self, living: _Living) -> Grant | None:
        boot = self._clock.boottime()
        if boot >= living.deadline or boot - living.used >= self._idle:
            return None  # the next sweep ends it; no file is written while an SDK waits
        living.used = boot
        living.last_used = self._clock.now()
        self._changed = True
        if self._on_use is not None:
            self._on_use()
        return living.grant

    def revoke(self, grant_id: str, *, reason: str) -> Grant:
        """End one at once. Raises UnknownGrant, and Unwritable when it holds in memory but is not written yet."""
        if (again := self._unwritten.get(grant_id)) is not None:
            self._write()
            return again
        grant = self.get(grant_id)
        self._end([grant], reason)
        self._write_revoked()
        return grant

    def revoke_all(self, *, reason: str, profiles: Collection[str] | None = None) -> tuple[Grant, ...]:
        """End every grant, or every one of `profiles`, with one write; returns what ended."""
        ended = [grant for grant in self.list() if profiles is None or grant.profile in profiles]
        self._end(ended, reason)
        if ended or self._unwritten:
            self._write_revoked()
        return tuple(ended)

    def _end(self, grants: Collection[Grant], reason: str) -> None:
        for grant in grants:
            self._by_digest.pop(grant.digest, None)
            del self._by_id[grant.id]
            self._unwritten[grant.id] = grant
            self._changed = True
        for grant in grants:  # in memory all of them are gone before the first system call can fail
            self._remove_token(self.token_path(grant.id))
            log.info("revoke grant id=%s reason=%r", grant.id, shown(reason))
            self._on_revoke(grant, reason)

    def _write_revoked(self) -> None:
        try:
            self._write()
        except Unwritable as exc:
            raise Unwritable(
                f"The grant is revoked, but {self._path} could not be written and a restart would bring it back: "
                "make room on the disk, then type the same `vault-client revoke` again.",
                path=str(self._path),
            ) from exc

    # ---- questions ----

    def token_path(self, grant_id: str) -> Path:
        """Where the token's file is, for `AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE`."""
        return self._tokens / f"{grant_id}.token"

    def last_used(self, grant_id: str) -> datetime | None:
        """Its last use on the wall clock; None: never, or no such grant."""
        living = self._by_id.get(grant_id)
        return None if living is None else living.last_used

    def list(self) -> tuple[Grant, ...]:
        """Every grant that lives, the oldest first; may be asked from a thread (the look-up of a process)."""
        return tuple(living.grant for living in tuple(self._by_id.values()) if self._ending(living) is None)

    def met(self, grant_id: str, peer: Peer) -> None:
        """A program was let to it."""
        living = self._by_id.get(grant_id)
        if living is not None:
            living.met = peer

    def lives(self, grant_id: str) -> bool:
        """It was not ended; no I/O, and no use of it."""
        return grant_id in self._by_id

    def get(self, grant_id: str) -> Grant:
        """Raises UnknownGrant."""
        living = self._by_id.get(grant_id)
        if living is None or self._ending(living) is not None:
            raise UnknownGrant(f"There is no grant {shown(grant_id)!r}: list them with `vault-client grants`.")
        return living.grant

    def wire(self, grant: Grant) -> dict[str, Any]:
        """The grant object of interface.md §6; `peer` is the last program that was let to it, else who asked for it;
        `door{address,port}` is null without one.
        """
        last_used, living = self.last_used(grant.id), self._by_id.get(grant.id)
        peer = grant.peer if living is None else living.met or grant.peer
        return {
            "id": grant.id,
            "profile": shown(grant.profile),
            "kind": grant.kind,
            "imds": grant.imds,
            "created": stamp(grant.created),
            "last_used": None if last_used is None else stamp(last_used),
            "expires": stamp(grant.expires),
            "peer": None if peer is None else peer_wire(peer),
            "door": None if grant.door is None else door_wire(grant.door),
        }

    # ---- the permanent task ----

    async def run(self) -> None:
        """Sweep, and write last uses each minute, until cancelled."""
        while True:
            await self._clock.sleep(SWEEP_SECONDS)
            self.sweep()

    def sweep(self) -> None:
        """End what has expired, idled out or lost its process; write what is due. Never raises for a full disk."""
        for living in list(self._by_id.values()):
            if (reason := self._ending(living)) or (reason := self._orphaned(living.grant.bound)):
                self._end([living.grant], reason)
        if self._unwritten or (self._changed and self._clock.boottime() - self._flushed >= FLUSH_SECONDS):
            self.flush()

    def flush(self) -> None:
        """Write now what memory has and the file has not: at stop, and by the sweep. A full disk is logged."""
        if not (self._changed or self._unwritten):
            return
        try:
            self._write()
        except Misconfigured as exc:
            self._flushed = self._clock.boottime()
            log.warning("keep grants-in-memory reason=%s", exc)

    def _ending(self, living: _Living) -> str | None:
        boot = self._clock.boottime()
        if boot >= living.deadline:
            return "expired"
        return "idle" if boot - living.used >= self._idle else None

    def _orphaned(self, bound: Bound | None) -> str | None:
        if bound is None:
            return None
        if bound.boot_id != self._boot_id:
            return "rebooted"
        return None if self._alive(bound) else "process ended"

    # ---- files ----

    def _write(self) -> None:
        # A grant a line, by json's C encoder: `indent` would go through Python, 200 grants at each of 200 creates.
        lines = ",\n".join(json.dumps(stored_of(living.grant, living.last_used)) for living in self._by_id.values())
        self._files.replace(self._path, f'{{"version": {VERSION}, "grants": [\n{lines}\n]}}\n'.encode())
        self._unwritten.clear()
        self._changed = False
        self._flushed = self._clock.boottime()

    def _remove_token(self, path: Path) -> None:
        try:
            self._files.remove(path)
        except Misconfigured as exc:  # its token opens nothing any more
            log.warning("leave token-file reason=%s", exc)

    def _new_id(self) -> str:
        while (chosen := secrets.token_hex(5)) in self._by_id or chosen in self._unwritten:
            pass
        return chosen


def _entries(stored: dict[str, Any]) -> list[dict[str, Any]]:
    if stored["version"] != VERSION:
        raise ValueError(f"version {stored['version']}")
    entries: list[dict[str, Any]] = stored["grants"]
    if len({each["id"] for each in entries}) < len(entries):
        raise ValueError("two grants have the same id")
    return entries


def _where(exc: Exception) -> str:
    if isinstance(exc, json.JSONDecodeError):
        return f"line {exc.lineno}, column {exc.colno}"
    return f"{type(exc).__name__}: {shown(str(exc), limit=60)}"
