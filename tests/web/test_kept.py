"""Nothing of a connection outlives it: what refuses a request keeps neither the request nor the token in it."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

from aiohttp.web_protocol import RequestHandler

from tests.web.door_rig import TTL, a_door
from tests.web.rig import read_reply, running


def connections() -> set[int]:
    gc.collect()
    return {id(each) for each in gc.get_objects() if isinstance(each, RequestHandler)}


async def gone(before: set[int], *, patience: int = 200) -> bool:
    for _ in range(patience):  # the server's side of a socket ends some turns after the client's
        if not connections() - before:
            return True
        await asyncio.sleep(0.01)
    return False


async def test_refusals_of_the_credential_endpoint_keep_no_connection(tmp_path: Path) -> None:
    """An exception that is a constant keeps each traceback, and in it the connection: 1.8 KiB and a token, for ever."""
    async with running(tmp_path) as rig:
        before = connections()
        assert (await rig.get("/nothing")).status == 404
        assert (await rig.get(method="POST")).status == 405
        assert (await rig.get(Authorization="wrong")).status == 401
        assert await gone(before)


async def test_refusals_of_a_door_keep_no_connection(tmp_path: Path) -> None:
    """The same of a door: 400, 401, 404 and 405."""
    async with a_door(tmp_path) as rig:
        before = connections()
        for method, path, line in (
            ("GET", "/latest/nothing", "X-aws-ec2-metadata-token: wrong"),
            ("POST", "/latest/meta-data/", f"{TTL}: 60"),
            ("GET", "/latest/api/token", f"{TTL}: 60"),
            ("PUT", "/latest/api/token", f"{TTL}: none"),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
            writer.write(rig.request(method, path, line))
            assert (await read_reply(reader)).status in {400, 401, 404, 405}
            writer.close()
        assert await gone(before)
