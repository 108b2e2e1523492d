"""The aiohttp side: bytes to calls, replies and faults to bytes.

Rule: a call is logged before its answer goes out, so that no test reads the log too early.
"""

import asyncio
import socket
import struct
from email.utils import format_datetime
from http import HTTPStatus

from aiohttp import web

from tests.strict_sts import faults, sigv4
from tests.strict_sts.calls import Exchange
from tests.strict_sts.emulator import Emulator
from tests.strict_sts.faults import Fault
from tests.strict_sts.moto_plane import MotoPlane
from tests.strict_sts.replies import Reply, failure, invalid_action
from tests.strict_sts.sessions import Credential


class Front:
    """Every AWS call of every service, at one address; control routes are added beside it (control.py)."""

    def __init__(self, emulator: Emulator, moto: MotoPlane | None) -> None:
        self._emulator = emulator
        self._moto = moto
        self._released = asyncio.Event()

    def release(self) -> None:
        """Lets go of every hanging call; later ones hang anew."""
        self._released.set()
        self._released = asyncio.Event()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """One AWS call."""
        body = await request.read()
        url = f"{request.scheme}://{request.host}{request.raw_path}"
        x, fault = self._emulator.receive(sigv4.read(request.method, url, request.headers, body))
        if fault and fault.kind == "latency":
            await asyncio.sleep(float(fault.arg))
        reply = await self._reply(x, fault)
        silent = fault is not None and fault.kind in faults.SILENT
        error = x.error.code if x.error else ""
        self._emulator.log.add(x, status=0 if silent else reply.status, error=error, fault=fault.kind if fault else "")
        if fault and fault.kind in faults.SILENT | {"truncate"}:
            return await self._cut(request, reply, fault)
        return web.Response(
            status=reply.status, body=reply.body, headers=self._headers(reply), reason=_reason(reply.status)
        )

    async def _reply(self, x: Exchange, fault: Fault | None) -> Reply:
        """The true answer, or what the fault makes of it before or after AWS did its work."""
        if fault is None or fault.kind in faults.PASSING:
            x.expired_by = float(fault.arg or 60) if fault and fault.kind == "past_expiration" else None
            return await self._true(x)
        if fault.kind == "throttle":
            self._emulator.throttle(x)
        true = await self._true(x) if fault.when == "after" else None
        return true if true and fault.kind == "truncate" else faults.spoiled(fault, x)

    async def _true(self, x: Exchange) -> Reply:
        answer = self._emulator.answer(x)
        return await self._data(x, answer) if isinstance(answer, Credential) else answer

    async def _data(self, x: Exchange, caller: Credential) -> Reply:
        """The data plane's answer; what it does not know reads as at AWS, 400 and not 500 (aws-facts §3)."""
        reply = await self._moto.forward(x.wire, account=caller.account) if self._moto else None
        if reply is not None and reply.status < 500:
            return reply
        x.error = invalid_action(x.op or "Unknown", x.params.get("Version", ""))
        return failure(x.error, x.rid, service=x.service, json_protocol=x.wire.json_protocol)

    async def _cut(self, request: web.Request, reply: Reply, fault: Fault) -> web.StreamResponse:
        """A connection that ends badly: never, with RST, or half way through the body."""
        if fault.kind == "hang":
            await self._released.wait()
        response = web.StreamResponse(status=reply.status, headers=self._headers(reply))
        transport = request.transport
        if transport is None:
            return response
        if fault.kind == "truncate":
            response.content_length = len(reply.body)
            await response.prepare(request)
            await response.write(reply.body[: len(reply.body) // 2])
            transport.close()
            return response
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close sends RST
        transport.abort()
        return response

    def _headers(self, reply: Reply) -> dict[str, str]:
        """`Date` is what a client measures its skew by; logical only where a knob says so."""
        state = self._emulator.state
        now = state.now() if state.knobs.date_header == "logical" else state.wire.now()
        return {**reply.headers, "Content-Type": reply.content_type, "Date": format_datetime(now, usegmt=True)}


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
