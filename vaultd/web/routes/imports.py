"""/v1/imports: keys of aws-vault's stores by name and last 4 characters; the keys themselves go past below.

The secret of a foreign key never comes up: the keeper reads it where it lies and stores it. What travels down is the
passphrase, with each call, and is not kept.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from vaultd.engine.seams import Kin, Offer
from vaultd.model.credentials import IdentityKey
from vaultd.model.importing import called
from vaultd.model.text import shown
from vaultd.web import bodies
from vaultd.web.control_replies import SENTENCE, legible, reply
from vaultd.web.rooms import Rooms
from vaultd.web.routes.identities import added, identity_object


def table(rooms: Rooms) -> list[web.RouteDef]:
    """The routes of an import."""
    routes = _Imports(rooms)
    return [
        web.post("/v1/imports/aws-vault", routes.offers),
        web.post("/v1/imports/aws-vault/adopt", routes.adopt),
        web.post("/v1/imports/aws-vault/discard", routes.discard),
        web.post("/v1/identities/{name}/compare", routes.compare),
    ]


class _Imports:
    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    async def offers(self, request: web.Request) -> web.Response:
        """What there is; nothing is stored."""
        body = bodies.parse(bodies.ImportBody, await request.read())
        found = await self._rooms.importer.offers(body.source(), passphrase=body.passphrase, names=body.names)
        return reply({"keys": [offer_object(each) for each in found]})

    async def adopt(self, request: web.Request) -> web.Response:
        """Verify, store, read back; the same answer as POST /v1/identities."""
        body = bodies.parse(bodies.ImportOneBody, await request.read())
        before = self._rooms.custody.list()
        identity = await self._rooms.importer.adopt(
            body.source(),
            body.name,
            passphrase=body.passphrase,
            endpoint=(await self._rooms.catalog()).identity_ground(called(body.name) or body.name).endpoint,
            mfa_serial=body.MfaSerial,
        )
        if identity in before:  # stored by an earlier go: its sessions live on
            return reply(identity_object(identity, self._rooms.clock.now()), status=201)
        return added(self._rooms, request, identity)

    async def discard(self, request: web.Request) -> web.Response:
        """Deleted in aws-vault's store, when ours gave the same key back."""
        body = bodies.parse(bodies.ImportOneBody, await request.read())
        await self._rooms.importer.discard(body.source(), body.name, passphrase=body.passphrase)
        return reply({})

    async def compare(self, request: web.Request) -> web.Response:
        """Is this the key that is stored, read again? If not: whose it is (`like`), and was it rotated out (`old`)?"""
        body = bodies.parse(bodies.CompareBody, await request.read())
        key = IdentityKey(request.match_info["name"], body.AccessKeyId, body.SecretAccessKey)
        if await self._rooms.importer.holds(key):
            return reply({"same": True})
        return reply({"same": False, **_kin(await self._rooms.importer.kin(key))})


def _kin(kin: Kin) -> dict[str, Any]:
    return {"like": shown(kin.identity), "old": kin.old}


def offer_object(offer: Offer) -> dict[str, Any]:
    """{name, identity, access_key_id (last 4), state: new|same|taken|temporary|wrong, like, old, message}.

    A name that cannot be shown as it is could not be sent back, either.
    """
    name, wrong = shown(offer.name), offer.wrong
    if name != offer.name and not wrong:
        wrong = "its name cannot be shown; type `vault-client add IDENTITY` with the key itself"
    state = "wrong" if wrong else {"no": "new", "same": "same", "other": "taken"}[offer.held]
    state = "temporary" if offer.ends else state
    row = {"name": name, "identity": offer.identity, "access_key_id": offer.key_ending, "state": state}
    return {**legible(row), **_kin(offer.kin), "message": shown(wrong, limit=SENTENCE)}
