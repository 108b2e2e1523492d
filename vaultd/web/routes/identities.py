"""/v1/identities: long-term keys by name; they go in, and never come out."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from aiohttp import web

from vaultd.engine.seams import Rotated
from vaultd.errors import UnknownIdentity, VaultdError
from vaultd.model.credentials import Identity, IdentityKey
from vaultd.model.dialects import stamp
from vaultd.model.reminders import reminders
from vaultd.model.rotation import LOOK_AGAIN, USABLE, Rotation
from vaultd.model.text import nearest, shown, typed
from vaultd.web import bodies
from vaultd.web.control_replies import legible, reply
from vaultd.web.rooms import Catalogue, Rooms, caller, requester

#: After these there is no next step for now.
_LAST = frozenset({"kept", "deleted", "reactivated", "abandoned", "over"})


def table(rooms: Rooms) -> list[web.RouteDef]:
    """The routes of this collection."""
    routes = _Identities(rooms)
    return [
        web.post("/v1/identities", routes.add),
        web.get("/v1/identities", routes.index),
        web.delete("/v1/identities/{name}", routes.remove),
        web.post("/v1/identities/{name}/rotate", routes.rotate),
    ]


class _Identities:
    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    async def add(self, request: web.Request) -> web.Response:
        body = bodies.parse(bodies.IdentityBody, await request.read())
        key = IdentityKey(identity=body.name, access_key_id=body.AccessKeyId, secret_access_key=body.SecretAccessKey)
        endpoint = (await self._rooms.catalog()).identity_ground(body.name).endpoint
        before = next((each for each in self._rooms.custody.list() if each.name == body.name), None)
        identity = await self._rooms.custody.add(
            key, endpoint=endpoint, mfa_serial=body.MfaSerial, replace=body.replace
        )
        said = "" if before is None else self._forgotten(before, request, kept=body.AccessKeyId)
        return added(self._rooms, request, identity, warning=said)

    def _forgotten(self, before: Identity, request: web.Request, *, kept: str = "") -> str:
        """What a rotation that went with its identity leaves at AWS; in the audit log, too."""
        return self._rooms.rotations.forgotten(before, by=caller(request), kept=kept)

    async def index(self, request: web.Request) -> web.Response:
        now, listed = self._rooms.clock.now(), self._rooms.custody.list()
        rows = [identity_object(identity, now) for identity in listed]
        return reply({"identities": rows, "reminders": reminders(listed, now)})

    async def rotate(self, request: web.Request) -> web.Response:
        """One step of a rotation; the client comes again until it is `done`."""
        body = bodies.parse(bodies.RotateBody, await request.read())
        await refuse_profile(self._rooms, request.match_info["name"], "rotate")
        rotated = await self._rooms.rotations.step(
            request.match_info["name"],
            requester=requester(request),
            by=caller(request),
            token_code=body.token_code,
            wish=body.wish,
            grace=body.grace(),
        )
        return reply(rotated_object(rotated, self._rooms.clock.now()))

    async def remove(self, request: web.Request) -> web.Response:
        """Drop the key, its sessions, and the grants whose plan begins at it."""
        name = request.match_info["name"]
        known = {identity.name: identity for identity in self._rooms.custody.list()}
        await refuse_profile(self._rooms, name, "remove")
        if name not in known:
            raise UnknownIdentity(
                f"no identity {shown(name)} is stored.{nearest(name, known)} Type `vault-client identities`"
            )
        catalog = await self._rooms.catalog()
        doomed = {grant.profile for grant in self._rooms.grants.list() if _needs(catalog, grant.profile, name)}
        await self._rooms.custody.remove(name)
        self._rooms.broker.forget_identity(name)
        self._rooms.lifecycle.identities_changed()
        note(self._rooms, "identity.remove", request, known[name])
        self._forgotten(known[name], request)
        self._rooms.grants.revoke_all(reason="identity removed", profiles=doomed)
        return reply({})


def _needs(catalog: Catalogue, profile: str, identity: str) -> bool:
    try:
        return catalog.plan(profile).identity == identity
    except VaultdError:
        return False


async def refuse_profile(rooms: Rooms, name: str, verb: str) -> None:
    """UnknownIdentity for a profile's name where an identity's belongs: it is said which one that profile has."""
    names, catalog = {each.name for each in rooms.custody.list()}, await rooms.catalog()
    if name in names or name not in catalog.names():
        return
    identity = catalog.summary(name)["identity"]
    if identity in names:
        said = f"{shown(name)} is a profile, and its identity is {shown(identity)}"
        raise UnknownIdentity(f"{said}: type `vault-client {verb} {typed(identity)}`")


def added(rooms: Rooms, request: web.Request, identity: Identity, *, warning: str = "") -> web.Response:
    """A key is stored: plans are made anew, the audit log says so, 201; `warnings` only where there is one."""
    rooms.broker.forget_identity(identity.name)
    rooms.lifecycle.identities_changed()
    note(rooms, "identity.add", request, identity)
    more = {"warnings": [warning]} if warning else {}
    return reply({**identity_object(identity, rooms.clock.now()), **more}, status=201)


def note(rooms: Rooms, event: str, request: web.Request, identity: Identity) -> None:
    """The audit line about a key, on disk before the answer."""
    rooms.audit.record(
        event,
        sync=True,
        identity=identity.name,
        account_id=identity.account_id,
        peer=caller(request),
        access_key_id=identity.key_ending,
    )


def identity_object(identity: Identity, now: datetime) -> dict[str, Any]:
    """The identity of interface.md §6; `access_key_id` is its last 4 characters. `key_created` is null until AWS has
    told it, and `key_age_days` then the least that it can be; `rotation`: {stage, old_key, new_key, delete_after}.
    """
    row: dict[str, Any] = legible(
        {
            "name": identity.name,
            "account_id": identity.account_id,
            "user_arn": identity.user_arn,
            "mfa_serial": identity.mfa_serial,
            "access_key_id": identity.key_ending,
            "created": stamp(identity.created),
            "key_created": None if identity.key_created is None else stamp(identity.key_created),
            "key_age_days": identity.key_age(now).days,
            "rotation": None if identity.rotation is None else _rotation_object(identity.rotation),
        }
    )
    return row


def _rotation_object(rotation: Rotation) -> dict[str, Any]:
    return {
        "stage": rotation.stage,
        "old_key": rotation.old[-4:],
        "new_key": rotation.new[-4:],
        "delete_after": None if rotation.delete_after is None else stamp(rotation.delete_after),
    }


def rotated_object(rotated: Rotated, now: datetime) -> dict[str, Any]:
    """What a step did; `done`: it is not for the client to ask for the next one, else `retry_after_seconds`."""
    rotation = rotated.identity.rotation
    over = rotation is None or not rotation.over(now)
    done = rotated.did in _LAST or (rotated.did == "inactive" and over)
    body: dict[str, Any] = legible(
        {
            "identity": identity_object(rotated.identity, now),
            "did": rotated.did,
            "done": done,
            "old_key": rotated.old_key,
            "new_key": rotated.new_key,
            "usable": rotated.usable,
            "usable_wanted": USABLE,
            "last_used": rotated.last_used,
            "signed_out": rotated.signed_out,
            "retry_after_seconds": LOOK_AGAIN.seconds if rotated.did == "tried" and rotated.usable < USABLE else 0,
        }
    )
    return body
