"""/v1/grants: tokens that point a shell, a command or a lease at one profile."""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import Any, Final, Protocol

from aiohttp import web

from vaultd.engine.grant_records import Bound, Door, Grant, peer_wire
from vaultd.engine.grants import Grants
from vaultd.errors import BadRequest, VaultdError
from vaultd.host import processes
from vaultd.model.credentials import RoleSession
from vaultd.model.dialects import stamp
from vaultd.model.environment import Change, ecs_change, imds_change
from vaultd.model.peer import Peer
from vaultd.model.plan import Plan
from vaultd.model.secret import Secret
from vaultd.model.text import shown
from vaultd.web import bodies
from vaultd.web.control_replies import SENTENCE, legible, reply
from vaultd.web.rooms import Rooms, caller, connection, requester
from vaultd.web.serving import agreed

#: By the metadata service botocore keeps keys for 2 to 10 min whatever is left of them, and a tended session may have
#: half its life left when it is served (docs/sdk-freshness.md).
SHORT_BY_IMDS: Final = timedelta(minutes=20)


class _Make(Protocol):
    """Makes the grant, with the door that it is reached by."""

    def __call__(self, *, door: Door | None = None) -> tuple[Grant, Secret]:
        """Raises Unwritable, after which nothing of it exists."""


def table(rooms: Rooms) -> list[web.RouteDef]:
    """The routes of this collection."""
    routes = _Grants(rooms)
    return [
        web.post("/v1/grants", routes.create),
        web.get("/v1/grants", routes.index),
        web.delete("/v1/grants", routes.revoke_all),
        web.get("/v1/grants/{id}", routes.one),
        web.delete("/v1/grants/{id}", routes.revoke),
    ]


class _Grants:
    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    async def create(self, request: web.Request) -> web.Response:
        body = bodies.parse(bodies.GrantBody, await request.read())
        bound = self._bound(request, body)
        plan = (await self._rooms.catalog()).plan(body.profile, body.overrides())
        session = await self._rooms.broker.session(plan, requester=requester(request), token_code=body.token_code)
        if connection(request).gone.done():  # who would hold the token has left while the session was made
            raise ConnectionResetError
        make = functools.partial(self._make, plan, body, session, bound, caller(request))
        grant, change = await self._with_door(make, plan, body) if body.imds else self._with_token(make, plan, body)
        self._note(plan, grant, session)
        self._rooms.lifecycle.granted()
        return reply(self._object(plan, grant, change, session), status=201)

    def _make(
        self,
        plan: Plan,
        body: bodies.GrantBody,
        session: RoleSession,
        bound: Bound | None,
        peer: Peer,
        door: Door | None = None,
    ) -> tuple[Grant, Secret]:
        return self._rooms.grants.create(
            profile=plan.profile,
            slug=plan.slug,
            kind=body.kind,
            ttl=body.ttl(),
            overrides=body.overrides(),
            role_arn=session.role_arn,
            bound=bound,
            peer=peer,
            identity=plan.identity,
            user_arn=plan.user_arn,
            door=door,
        )

    async def _with_door(self, make: _Make, plan: Plan, body: bodies.GrantBody) -> tuple[Grant, Change]:
        """`--imds`: its port is what it is reached by, and its token is nobody's."""
        grant = await self._rooms.doors.open(lambda door: make(door=door)[0])
        assert grant.door is not None
        region = body.region or plan.region
        return grant, imds_change(port=grant.door.port, profile=plan.profile, grant_id=grant.id, region=region)

    def _with_token(self, make: _Make, plan: Plan, body: bodies.GrantBody) -> tuple[Grant, Change]:
        grant, token = make()
        change = ecs_change(
            port=self._rooms.port(),
            profile=plan.profile,
            grant_id=grant.id,
            token=token,
            token_path=str(self._rooms.grants.token_path(grant.id)),
            region=body.region or plan.region,
        )
        return grant, change

    def _note(self, plan: Plan, grant: Grant, session: RoleSession) -> None:
        self._rooms.audit.record(
            "grant.create",
            sync=True,
            profile=plan.profile,
            identity=plan.identity,
            account_id=session.account_id,
            role_arn=session.role_arn,
            grant=grant.id,
            peer=grant.peer,
        )

    def _object(self, plan: Plan, grant: Grant, change: Change, session: RoleSession) -> dict[str, Any]:
        return {
            "id": grant.id,
            "profile": plan.profile,
            "set": dict(change.set),
            "unset": list(change.unset),
            "expiration": stamp(session.expiration),
            "account_id": session.account_id,
            "role_arn": session.role_arn,
            "warnings": legible(self._warnings(plan, grant, session), limit=SENTENCE),
        }

    def _warnings(self, plan: Plan, grant: Grant, session: RoleSession) -> list[str]:
        """Of the plan, of what AWS made of it and of the way it is served, each once. What SDKs prefer in the caller's
        own variables and files his client says, which alone sees them.
        """
        said = [*plan.problems, *self._rooms.broker.state(plan).warnings]
        if grant.door is not None and session.lifetime < SHORT_BY_IMDS:
            said.append(
                f"Sessions of {shown(plan.profile)} live {session.lifetime.total_seconds() / 60:.0f} min, and botocore "
                "keeps keys of the metadata service for up to 10 min whatever is left of them, so calls can fail with "
                "ExpiredToken: add `--duration 1h`, or leave out `--imds`."
            )
        return list(dict.fromkeys(said))

    def _bound(self, request: web.Request, body: bodies.GrantBody) -> Bound | None:
        """exec: the caller of the socket, whose pid and start time execve keeps. shell: an ancestor, when given."""
        if body.kind == "exec":
            held: Peer | None = caller(request)  # as he was at accept: the pid may be another process's by now
        elif body.kind == "shell" and body.pid is not None:
            held = self._ancestor(request, body.pid)
        else:
            return None
        if held is None or held.pid is None or held.started is None:
            raise BadRequest("field pid: that process is gone; run the command again", field="pid")
        return Bound(boot_id=self._rooms.boot_id, pid=held.pid, started=held.started)

    def _ancestor(self, request: web.Request, pid: int) -> Peer | None:
        """The caller himself (a subshell takes his place by execve) or a parent of his, of the same user."""
        own = caller(request)
        held = processes.look(pid) if own.pid is not None and processes.is_ancestor(pid, of=own.pid) else None
        if held is None or held.uid != own.uid:
            raise BadRequest("field pid: it is no parent of the caller and his; leave it out", field="pid")
        return held

    async def index(self, request: web.Request) -> web.Response:
        return reply({"grants": [grant_object(self._rooms.grants, grant) for grant in self._rooms.grants.list()]})

    async def one(self, request: web.Request) -> web.Response:
        """A shell's own; `refused {code, message}` where the endpoint refuses its every call for what the config file
        says by now. Raises UnknownGrant.
        """
        catalog = await self._rooms.catalog()
        grant = self._rooms.grants.get(request.match_info["id"])
        try:
            agreed(catalog.plan(grant.profile, grant.overrides), grant)
            refused = None
        except VaultdError as exc:
            refused = {"code": exc.code, "message": exc.message}
        said = legible({"refused": refused}, limit=SENTENCE)
        return reply({**grant_object(self._rooms.grants, grant), **said})

    async def revoke(self, request: web.Request) -> web.Response:
        self._rooms.grants.revoke(request.match_info["id"], reason="revoked")
        return reply({})

    async def revoke_all(self, request: web.Request) -> web.Response:
        self._rooms.grants.revoke_all(reason="revoked")
        return reply({})


def grant_object(grants: Grants, grant: Grant) -> dict[str, Any]:
    """The grant of interface.md §6, held by what its process is now: `exec` asked as vault-client, then became CMD."""
    wire = grants.wire(grant)
    held = None if grant.bound is None else processes.look(grant.bound.pid)
    if held is not None and grant.bound is not None and held.started == grant.bound.started:
        wire["peer"] = peer_wire(held)
    fitted: dict[str, Any] = legible(wire)
    return fitted
