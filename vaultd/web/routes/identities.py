"""/v1/identities: long-term keys by name; they go in, and never come out."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from vaultd.errors import UnknownIdentity, VaultdError
from vaultd.model.credentials import Identity, IdentityKey
from vaultd.model.dialects import stamp
from vaultd.model.text import nearest, shown
from vaultd.web import bodies
from vaultd.web.control_replies import legible, reply
from vaultd.web.rooms import Rooms, caller


def table(rooms: Rooms) -> list[web.RouteDef]:
    """The routes of this collection."""
    routes = _Identities(rooms)
    return [
        web.post("/v1/identities", routes.add),
        web.get("/v1/identities", routes.index),
        web.delete("/v1/identities/{name}", routes.remove),
    ]


class _Identities:
    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    async def add(self, request: web.Request) -> web.Response:
        body = bodies.parse(bodies.IdentityBody, await request.read())
        key = IdentityKey(identity=body.name, access_key_id=body.AccessKeyId, secret_access_key=body.SecretAccessKey)
        endpoint = self._rooms.catalog().identity_ground(body.name).endpoint
        identity = await self._rooms.custody.add(
            key, endpoint=endpoint, mfa_serial=body.MfaSerial, replace=body.replace
        )
        self._rooms.broker.forget_identity(body.name)
        self._rooms.lifecycle.identities_changed()
        self._note("identity.add", request, identity)
        return reply(identity_object(identity), status=201)

    async def index(self, request: web.Request) -> web.Response:
        return reply({"identities": [identity_object(identity) for identity in self._rooms.custody.list()]})

    async def remove(self, request: web.Request) -> web.Response:
        """Drop the key, its sessions, and the grants whose plan begins at it."""
        name = request.match_info["name"]
        known = {identity.name: identity for identity in self._rooms.custody.list()}
        if name not in known:
            raise UnknownIdentity(
                f"no identity {shown(name)} is stored.{nearest(name, known)} Type `vault-client identities`"
            )
        doomed = {grant.profile for grant in self._rooms.grants.list() if self._needs(grant.profile, name)}
        await self._rooms.custody.remove(name)
        self._rooms.broker.forget_identity(name)
        self._rooms.lifecycle.identities_changed()
        self._note("identity.remove", request, known[name])
        self._rooms.grants.revoke_all(reason="identity removed", profiles=doomed)
        return reply({})

    def _needs(self, profile: str, identity: str) -> bool:
        try:
            return self._rooms.catalog().plan(profile).identity == identity
        except VaultdError:
            return False

    def _note(self, event: str, request: web.Request, identity: Identity) -> None:
        self._rooms.audit.record(
            event,
            sync=True,
            identity=identity.name,
            account_id=identity.account_id,
            peer=caller(request),
            access_key_id=identity.key_ending,
        )


def identity_object(identity: Identity) -> dict[str, Any]:
    """The identity of interface.md §6; `access_key_id` is its last 4 characters."""
    row: dict[str, Any] = legible(
        {
            "name": identity.name,
            "account_id": identity.account_id,
            "user_arn": identity.user_arn,
            "mfa_serial": identity.mfa_serial,
            "access_key_id": identity.key_ending,
            "created": stamp(identity.created),
        }
    )
    return row
