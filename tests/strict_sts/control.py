"""The HTTP control of §4.3, for daemons that run as processes of their own.

Rule: a wrong request gets 400 {"error"}, never a guess.
"""

import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.strict_sts.clocks import LogicalClock, moment
from tests.strict_sts.emulator import Emulator
from tests.strict_sts.faults import Fault
from tests.strict_sts.totp import STEP_SECONDS

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Control:
    """The routes below /_ctl/."""

    def __init__(self, emulator: Emulator, release: Callable[[], None]) -> None:
        self._emulator = emulator
        self._release = release

    def routes(self) -> list[web.RouteDef]:
        told = (self.totp, self.calls, self.audit, self.key, self.keys, self.seed, self.token, self.clock)
        done = (self.reset, self.world, self.clock, self.fault, self.mutate, self.revoke)
        return [
            *(web.get(f"/_ctl/{each.__name__}", _answered(each)) for each in told),
            *(web.post(f"/_ctl/{each.__name__}", _answered(each)) for each in done),
        ]

    async def reset(self, _request: web.Request) -> Any:
        self._release()
        self._emulator.reset()
        return {}

    async def world(self, request: web.Request) -> Any:
        wish = await request.json()
        templates = {name: Path(path) for name, path in wish.get("templates", {}).items()}
        self._emulator.load_world(Path(wish["path"]), templates=templates, knobs=wish.get("knobs", {}))
        return {}

    async def clock(self, request: web.Request) -> Any:
        wish = await request.json() if request.method == "POST" else {}
        state = self._emulator.state
        if "wire_skew" in wish:
            state.wire.skew = timedelta(seconds=wish["wire_skew"])
        if {"set", "advance"} & set(wish):
            if not isinstance(state.clock, LogicalClock):
                raise ValueError("the clock is injected: move it where it was made")
            if "set" in wish:
                state.clock.set(moment(wish["set"]))
            state.clock.advance(wish.get("advance", 0))
        return {"now": state.now().isoformat(), "wire_now": state.wire.now().isoformat()}

    async def fault(self, request: web.Request) -> Any:
        wish = await request.json()
        self._emulator.faults.plant(Fault(**{**wish.pop("match", {}), **wish}))
        return {}

    async def mutate(self, request: web.Request) -> Any:
        self._emulator.mutate(await request.json())
        return {}

    async def revoke(self, request: web.Request) -> Any:
        wish = await request.json()
        revoke = self._emulator.state.sessions.revoke
        as_ = wish.get("as", "expired")
        return {"revoked": revoke(akid=wish.get("akid"), user=wish.get("user"), kind=wish.get("kind"), as_=as_)}

    async def totp(self, request: web.Request) -> Any:
        step = int(request.query.get("step", 0))
        left = STEP_SECONDS - self._emulator.state.now().timestamp() % STEP_SECONDS
        return {"code": self._emulator.totp(request.query["serial"], step), "seconds_left": int(left)}

    async def calls(self, request: web.Request) -> Any:
        op, since = request.query.get("op"), int(request.query.get("since", 0))
        log = self._emulator.log
        return {"calls": [call.as_json() for call in log.calls(op, since=since)], "counts": log.counts(since=since)}

    async def audit(self, _request: web.Request) -> Any:
        return {"records": self._emulator.log.records}

    async def key(self, request: web.Request) -> Any:
        key = self._emulator.key(request.query.get("user", "franklin"))
        return {"id": key.id, "secret": key.secret}

    async def keys(self, request: web.Request) -> Any:
        """Every key of that user, by its status."""
        world = self._emulator.state.world
        found = world.keys_of(world.user_named(request.query.get("user", "franklin")).arn)
        return {"keys": {key.id: key.status for key in found}}

    async def token(self, request: web.Request) -> Any:
        """Of a session issued here: for whoever looks for it where it must not be."""
        issued = self._emulator.state.sessions.get(request.query["akid"])
        return {"token": None if issued is None else issued.token, "secret": None if issued is None else issued.secret}

    async def seed(self, request: web.Request) -> Any:
        return {"seed": self._emulator.state.world.devices[request.query["serial"]].seed}


def _answered(method: Callable[[web.Request], Awaitable[Any]]) -> Handler:
    """JSON out; whatever the request got wrong as 400."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return web.json_response(await method(request))
        except (ValueError, KeyError, TypeError, OSError, json.JSONDecodeError) as exc:
            return web.json_response({"error": f"{type(exc).__name__}: {exc}"}, status=400)

    return handle
