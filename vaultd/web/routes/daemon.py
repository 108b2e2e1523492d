"""The daemon itself: status, checks, lock, unlock, audit, events, stop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

from vaultd.errors import BadRequest
from vaultd.web import bodies
from vaultd.web.control_replies import SENTENCE, in_slices, legible, long_reply, reply
from vaultd.web.rooms import Catalogue, Rooms, caller, connection
from vaultd.web.routes.grants import grant_object
from vaultd.web.routes.identities import identity_object
from vaultd.web.routes.profiles import is_wrong, profile_object

#: Lines of `GET /v1/audit` unless asked otherwise, and at most.
LINES, MOST_LINES = 1000, 100_000
#: The last line of a stream whose reader was too slow; no event of the log, so it has no `seq`.
CUT = {"event": "stream.cut", "reason": "1000 events were waiting for this reader: read GET /v1/audit for the rest"}
SLOW_SECONDS = 10.0


def table(rooms: Rooms) -> list[web.RouteDef]:
    """The routes of this collection."""
    routes = _Daemon(rooms)
    return [
        web.get("/v1/status", routes.status),
        web.get("/v1/checks", routes.checks),
        web.post("/v1/lock", routes.lock),
        web.post("/v1/unlock", routes.unlock),
        web.get("/v1/audit", routes.audit),
        web.get("/v1/events", routes.events),
        web.post("/v1/stop", routes.stop),
    ]


class _Deadline:
    """A reader who was cut has this long to take what is kept for him; one who reads nothing holds a connection."""

    def __init__(self, over: Callable[[], None]) -> None:
        self._over = over
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """He was cut just now."""
        self._timer = asyncio.get_running_loop().call_later(SLOW_SECONDS, self._over)

    def end(self) -> None:
        """He has taken all, or is gone."""
        if self._timer is not None:
            self._timer.cancel()


class _Daemon:
    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._planned: Catalogue | None = None

    async def status(self, request: web.Request) -> web.Response:
        rooms = self._rooms
        profiles, now = await self._at_work(), rooms.clock.now()
        lists = {
            "identities": [identity_object(identity, now) for identity in rooms.custody.list()],
            "profiles": profiles,
            "prompts": [question.wire() for question in rooms.desk.open_questions()],
            "grants": [grant_object(rooms.grants, grant) for grant in rooms.grants.list()],
            "link_local": rooms.linked.wire(),
        }
        return reply({**legible(rooms.lifecycle.status(), limit=SENTENCE), **lists})

    async def _at_work(self) -> list[dict[str, Any]]:
        """The rows of profiles that have more to say than `none` or `locked`. All are looked at once for each snapshot:
        a session of before a restart is known by its fingerprint only. Then only those that can have anything.
        """
        rooms, catalog = self._rooms, await self._rooms.catalog()
        marked = rooms.broker.marked() if catalog is self._planned else None
        names = catalog.names() if marked is None else catalog.marked(marked)
        made = ((profile_object(rooms.broker, catalog, name), name) for name in names)
        rows = [
            row
            async for row, name in in_slices(made, alone=lambda each: is_wrong(each[0]))
            if row["state"] not in {"none", "locked"} and catalog.served_as(name) == name  # told of once
        ]
        self._planned = catalog
        return rows

    async def checks(self, request: web.Request) -> web.Response:
        return reply({"checks": legible(await self._rooms.lifecycle.checks(), limit=SENTENCE)})

    async def lock(self, request: web.Request) -> web.Response:
        await self._rooms.lifecycle.lock(by=caller(request))
        return reply({})

    async def unlock(self, request: web.Request) -> web.Response:
        body = bodies.parse(bodies.UnlockBody, await request.read())
        consent = body.accept_rollback
        return reply(await self._rooms.lifecycle.unlock(body.passphrase, accept_rollback=consent, by=caller(request)))

    async def audit(self, request: web.Request) -> web.Response:
        count = request.query.get("n", str(LINES))
        if not (count.isascii() and count.isdigit()):
            raise BadRequest("field n: not a number; send a whole number of lines", field="n")
        await self._rooms.audit.flush()
        lines = min(int(count), MOST_LINES)
        events = await self._rooms.audit.read(lines, profile=request.query.get("profile"))
        head = self._rooms.audit.head  # where the files must end: for `vaultd check --audit`, which reads them itself
        return await long_reply("events", events, head={"seq": head.seq, "digest": head.digest})

    async def events(self, request: web.Request) -> web.StreamResponse:
        """NDJSON from now on, until the caller leaves or falls behind (a last line says so), or the daemon stops."""
        transport = request.transport
        deadline = _Deadline(lambda: None if transport is None else transport.abort())
        # before the head is sent: who has read that misses nothing
        subscription = self._rooms.audit.subscribe(on_cut=deadline.begin)
        connection(request).gone.add_done_callback(lambda _: subscription.close())
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"})
        try:
            await response.prepare(request)
            async for event in subscription:
                await response.write(json.dumps(event).encode() + b"\n")
            if subscription.cut:
                await response.write(json.dumps(CUT).encode() + b"\n")
        finally:
            deadline.end()
            subscription.close()
        return response

    async def stop(self, request: web.Request) -> web.Response:
        self._rooms.lifecycle.stop(by=caller(request))
        return reply({})
