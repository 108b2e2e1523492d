"""/v1/profiles and /v1/sessions: what there is, what it takes, and making or dropping a session."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from aiohttp import web

from vaultd.engine.broker import Broker
from vaultd.errors import ConsentRequired, ForbiddenPeer, VaultdError
from vaultd.model.console import MadeSignIn
from vaultd.model.credentials import RoleSession
from vaultd.model.dialects import credentials_object, sign_in_object
from vaultd.model.plan import Plan, Step
from vaultd.model.reminders import reminders
from vaultd.model.text import shown, typed
from vaultd.web import bodies
from vaultd.web.control_replies import SENTENCE, legible, long_reply, reply
from vaultd.web.rooms import Catalogue, Rooms, caller, requester

#: Of the audit line of a sign-in URL, which is served as keys are.
CONSOLE = "console sign-in"
#: What a call to AWS may take of a session's length.
_A_CALL = timedelta(seconds=60)


def table(rooms: Rooms) -> list[web.RouteDef]:
    """The routes of this collection."""
    routes = _Profiles(rooms)
    return [
        web.get("/v1/profiles", routes.index),
        web.get("/v1/profiles/{profile}/plan", routes.plan),
        web.post("/v1/profiles/{profile}/refresh", routes.refresh),
        web.get("/v1/profiles/{profile}/credentials", routes.credentials),
        web.post("/v1/profiles/{profile}/signin", routes.sign_in),
        web.delete("/v1/sessions", routes.clear),
    ]


class _Profiles:
    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    async def index(self, request: web.Request) -> web.Response:
        catalog = await self._rooms.catalog()
        only = request.query.get("profile")  # a shell's prompt asks for its own before each line
        names = [name for name in catalog.names() if only is None or name == only]
        rows = (profile_object(self._rooms.broker, catalog, name) for name in names)
        said = {
            "trouble": list(catalog.trouble()),
            "reminders": reminders(self._rooms.custody.list(), self._rooms.clock.now()),
        }
        return await long_reply("profiles", rows, alone=is_wrong, **legible(said, limit=SENTENCE))

    async def plan(self, request: web.Request) -> web.Response:
        """`?check` adds what AWS says of the key without changing anything, {name, ok, message} each."""
        plan = (await self._rooms.catalog()).plan(request.match_info["profile"])
        checks = {"checks": await self._of_aws(plan)} if "check" in request.query else {}
        return reply(legible({**plan_object(plan), **checks}, limit=SENTENCE))

    async def _of_aws(self, plan: Plan) -> list[dict[str, Any]]:
        """By the bare key: whose it is, which needs no permission; its user's devices, which a ForceMFA policy may
        deny (aws-facts §2.2). No code, no session: STS has no dry run of AssumeRole.
        """
        custody, endpoint = self._rooms.custody, plan.steps[0].endpoint
        try:
            arn = await custody.probe(plan.identity, endpoint=endpoint)
        except VaultdError as exc:
            return [{"name": "GetCallerIdentity", "ok": False, "message": exc.message}]
        rows = [_owner(plan, arn)]
        try:
            serials = await custody.detect(plan.identity, endpoint=endpoint)
        except VaultdError as exc:
            return [*rows, {"name": "ListMFADevices", "ok": True, "message": f"not known: {exc.message}"}]
        return [*rows, _devices(plan, serials)]

    async def refresh(self, request: web.Request) -> web.Response:
        body = bodies.parse(bodies.CodeBody, await request.read())
        catalog = await self._rooms.catalog()
        profile = request.match_info["profile"]
        await self._rooms.broker.refresh(
            catalog.plan(profile), requester=requester(request), token_code=body.token_code
        )
        return reply(profile_object(self._rooms.broker, catalog, profile))

    async def credentials(self, request: web.Request) -> web.Response:
        plan = (await self._rooms.catalog()).plan(request.match_info["profile"])
        await self._admit(request, plan)
        session = await self._rooms.broker.session(plan, requester=requester(request))
        self._note(request, plan, session)
        return reply(credentials_object(session))

    async def sign_in(self, request: web.Request) -> web.Response:
        """Whoever gets the URL gets what the keys may do, so the caller is judged, and the line is one of serving."""
        body = bodies.parse(bodies.SignInBody, await request.read())
        plan = (await self._rooms.catalog()).plan(request.match_info["profile"], body.overrides())
        await self._admit(request, plan)
        made = await self._rooms.signins.make(
            plan,
            requester=requester(request),
            token_code=body.token_code,
            service=body.service,
            region=body.region,
            logout_first=body.logout_first,
        )
        self._note(request, plan, made.session, reason=CONSOLE)
        warnings = legible(self._short_of(body.overrides().duration, plan, made), limit=SENTENCE)
        return reply({**sign_in_object(made), "warnings": warnings})

    def _short_of(self, asked: timedelta | None, plan: Plan, made: MadeSignIn) -> list[str]:
        """Why the session is not as long as was asked for, as a grant's answer has it."""
        if asked is None or made.session.lifetime >= asked - _A_CALL:
            return []
        return list(dict.fromkeys([*plan.problems, *self._rooms.broker.state(plan).warnings]))

    async def _admit(self, request: web.Request, plan: Plan) -> None:
        """Keys go to the caller here, and not to a program that holds a token: it is judged in its place."""
        if self._rooms.broker.locked:
            return
        try:
            await self._rooms.attestation.admit_caller(plan, caller(request))
        except (ForbiddenPeer, ConsentRequired) as exc:
            self._deny(request, plan, exc)
            raise

    def _deny(self, request: web.Request, plan: Plan, error: VaultdError) -> None:
        self._rooms.audit.record(
            "credentials.deny",
            profile=plan.profile,
            identity=plan.identity,
            role_arn=plan.role_arn,
            peer=caller(request),
            decision="deny",
            reason=error.code,
            count=1,
        )

    def _note(self, request: web.Request, plan: Plan, session: RoleSession, *, reason: str | None = None) -> None:
        self._rooms.audit.record(
            "credentials.serve",
            profile=plan.profile,
            identity=plan.identity,
            account_id=session.account_id,
            role_arn=session.role_arn,
            role_session_name=session.role_session_name,
            peer=caller(request),
            access_key_id=session.key_ending,
            expiration=session.expiration,
            decision="allow",
            reason=reason,
            count=1,
            aws_request_id=session.aws_request_id,
        )

    async def clear(self, request: web.Request) -> web.Response:
        profile = request.query.get("profile")
        await self._rooms.broker.clear(None if profile is None else (await self._rooms.catalog()).plan(profile))
        return reply({})


def profile_object(broker: Broker, catalog: Catalogue, name: str) -> dict[str, Any]:
    """The profile of interface.md §6. One that cannot be planned is of state `error`, with the reason."""
    try:
        state = broker.state(catalog.plan(catalog.served_as(name))).wire()
    except VaultdError as exc:
        error = {"code": exc.code, "message": exc.message, "time": None}
        state = {"state": "error", "expiration": None, "seconds_left": None, "last_error": error}
    return {**catalog.summary(name), **legible(state)}


def is_wrong(row: Mapping[str, Any]) -> bool:
    """A row that may have taken as long as a slice of others: near names were looked for."""
    return bool(row["state"] == "error")


def _owner(plan: Plan, arn: str) -> dict[str, Any]:
    """As AWS has it: a user may have been renamed, and an item of a keyring exchanged, since the key was added."""
    if arn == plan.user_arn:
        return {"name": "GetCallerIdentity", "ok": True, "message": f"the key is good, and of {arn}"}
    said = f"the key is of {arn}, and was added as that of {plan.user_arn}: type `vault-client add "
    return {"name": "GetCallerIdentity", "ok": False, "message": f"{said}{typed(plan.identity)} --replace`"}


def _devices(plan: Plan, serials: Sequence[str]) -> dict[str, Any]:
    listed = ", ".join(serials) or "none"
    wrong = plan.mfa_serial is not None and plan.mfa_serial not in serials
    if not wrong:
        return {"name": "ListMFADevices", "ok": True, "message": f"devices that show codes: {listed}"}
    said = f"the plan asks for a code of {plan.mfa_serial}, and AWS lists {listed}: correct mfa_serial"
    return {"name": "ListMFADevices", "ok": False, "message": said}


def plan_object(plan: Plan) -> dict[str, Any]:
    """`explain --json`: {profile, identity, steps: [{kind, …, source}], problems}."""
    return {
        "profile": shown(plan.profile),
        "identity": shown(plan.identity),
        "region": plan.region,
        "account_id": plan.account_id,
        "role_arn": plan.role_arn,
        "mfa_serial": plan.mfa_serial,
        "steps": [
            _step_object(step, "identity key" if index == 0 else plan.steps[index - 1].kind)
            for index, step in enumerate(plan.steps)
        ],
        "callers": {
            "protected": plan.callers.protected,
            "allow_executables": _shown_all(plan.callers.allow_executables),
            "relays": list(plan.callers.relays),
        },
        "problems": list(plan.problems),
    }


def _shown_all(paths: Iterable[str] | None) -> list[str] | None:
    return None if paths is None else [shown(each) for each in paths]


def _step_object(step: Step, source: str) -> dict[str, Any]:
    return {
        "kind": step.kind,
        "profile": step.profile,
        "role_arn": step.role.role_arn if step.role else None,
        "role_session_name": step.role.role_session_name if step.role else None,
        "mfa_serial": step.mfa_serial,
        "duration_seconds": int(step.duration.total_seconds()),
        "region": step.endpoint.region,
        "source": source,
        "values": [asdict(line) for line in step.sources],
    }
