"""/v1/prompts: questions to a person; the terminal that asks is counted as an asker while it waits."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from vaultd.engine.questions import Question
from vaultd.errors import BadRequest, Locked, UnknownIdentity, UnknownPrompt
from vaultd.model import limits
from vaultd.model.credentials import MfaHandle
from vaultd.model.dialects import stamp
from vaultd.model.text import nearest, shown, typed
from vaultd.web import bodies
from vaultd.web.control_replies import reply
from vaultd.web.rooms import Rooms, connection, requester
from vaultd.web.routes.identities import refuse_profile


def table(rooms: Rooms) -> list[web.RouteDef]:
    """The routes of this collection."""
    routes = _Prompts(rooms)
    return [
        web.get("/v1/prompts", routes.index),
        web.post("/v1/prompts", routes.open),
        web.get("/v1/prompts/{id}", routes.show),
        web.post("/v1/prompts/{id}", routes.answer),
        web.delete("/v1/prompts/{id}", routes.cancel),
    ]


class _Prompts:
    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    async def index(self, request: web.Request) -> web.Response:
        return reply({"prompts": [question.wire() for question in self._rooms.desk.open_questions()]})

    async def open(self, request: web.Request) -> web.Response:
        """`vault-client mfa`: 201 with the question, or 200 {"live": true, "expiration"} when no code is needed."""
        body = bodies.parse(bodies.PromptBody, await request.read())
        if self._rooms.broker.locked:
            raise Locked("vaultd is locked: type `vault-client unlock`")
        pending = self._pending(body.identity, code=body.token_code is not None)
        question = pending or await self._ahead_of_time(body.identity, requester=requester(request))
        if isinstance(question, MfaHandle):
            return reply({"live": True, "expiration": stamp(question.expiration)})
        if body.token_code is None:
            return reply({**question.wire(), "opened": pending is None}, status=201)
        # Who brings a code is an asker as long as AWS takes for it: a wrong one must not leave a question behind.
        attendance = None if pending else self._rooms.desk.attend(question.id)
        try:
            await self._rooms.desk.answer(question.id, body.token_code, by=requester(request))
        finally:
            if attendance is not None:
                attendance.leave()
        return reply({})

    def _pending(self, identity: str | None, *, code: bool) -> Question | None:
        """The oldest open question, of that identity where one is named; one for a `code` where that is given."""
        for each in self._rooms.desk.open_questions():
            if identity in {None, each.identity} and not (code and each.kind != "code"):
                return each
        return None

    async def _ahead_of_time(self, identity: str | None, *, requester: str) -> Question | MfaHandle:
        name = await self._known(identity)
        ground = (await self._rooms.catalog()).identity_ground(name)
        if ground.device.serial is None:
            raise BadRequest(
                f"identity {shown(name)} has no MFA device that vaultd knows: register one with AWS, then type "
                f"`vault-client add {typed(name)} --replace`",
                field="identity",
            )
        return await self._rooms.broker.open_mfa(name, ground.device.serial, ground.endpoint, requester=requester)

    async def _known(self, identity: str | None) -> str:
        names = [known.name for known in self._rooms.custody.list()]
        if identity in names:
            return str(identity)
        if identity is not None:
            await refuse_profile(self._rooms, identity, "mfa")
            way = "identities" if limits.identity_name(identity) else f"add {typed(identity)}"
            raise UnknownIdentity(
                f"no identity {shown(identity)} is stored.{nearest(identity, names)} Type `vault-client {way}`"
            )
        if not names:
            raise UnknownIdentity("no identity is stored: type `vault-client add IDENTITY`")
        if len(names) > 1:
            which = ", ".join(typed(name) for name in names)
            raise BadRequest(f"no question is open; type `vault-client mfa` and one of: {which}", exit=2)
        return names[0]

    async def show(self, request: web.Request) -> web.Response:
        """The question; with `?wait` its outcome, when it is over. `&attend` counts the caller as an asker."""
        question = self._rooms.desk.question(request.match_info["id"])
        if "wait" not in request.query:
            return reply(question.wire())
        attendance = self._rooms.desk.attend(question.id) if "attend" in request.query else None
        waiting = asyncio.ensure_future(self._rooms.desk.wait(question.id))
        try:
            watched: set[asyncio.Future[Any]] = {waiting, connection(request).gone}
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if attendance is not None:
                attendance.leave()
            waiting.cancel()
        if not waiting.done():
            raise UnknownPrompt("you have left that question: type `vault-client mfa`")
        outcome, shut = waiting.result(), self._rooms.desk.shut
        return reply({"outcome": outcome, **({"reason": shut} if outcome == "cancelled" and shut else {})})

    async def answer(self, request: web.Request) -> web.Response:
        body = bodies.parse(bodies.AnswerBody, await request.read())
        question = request.match_info["id"]
        if (body.token_code is None) == (body.allow is None):
            raise BadRequest(
                "field token_code: a question takes it or allow, and not both; send the one that it asks for",
                field="token_code",
            )
        if body.allow is not None:
            self._rooms.desk.decide(question, allow=body.allow, by=requester(request))
        elif body.token_code is not None:
            await self._rooms.desk.answer(question, body.token_code, by=requester(request))
        return reply({})

    async def cancel(self, request: web.Request) -> web.Response:
        """A person's no, which starts the cool-down; with `?leave` only the going of a caller who has nobody to ask."""
        question = request.match_info["id"]
        if "leave" in request.query:
            self._rooms.desk.attend(question).leave()
        else:
            self._rooms.desk.cancel(question, by=requester(request))
        return reply({})
