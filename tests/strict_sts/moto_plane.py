"""moto behind the front: Beanstalk, S3 and the rest, one state an account. Asked only after our own checks passed.

It runs as a child that ends when its stdin closes, so that no test, however it dies, leaves one behind.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import aiohttp
from yarl import URL

from tests.strict_sts.replies import Reply
from tests.strict_sts.sigv4 import Wire

HOP_BY_HOP = {"connection", "content-length", "transfer-encoding", "keep-alive", "expect", "accept-encoding"}
SEED_SIGNATURE = (
    "AWS4-HMAC-SHA256 Credential=seed/20200101/us-east-1/elasticbeanstalk/aws4_request, SignedHeaders=host, Signature=0"
)


class MotoPlane:
    """One moto server, ours or somebody's."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._child: asyncio.subprocess.Process | None = None
        self._http = aiohttp.ClientSession(auto_decompress=False)

    @classmethod
    async def start(cls) -> "MotoPlane":
        """A moto of our own on a free loopback port; about a second."""
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "ignore", str(Path(__file__).with_name("moto_child.py")),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        )  # fmt: skip
        assert child.stdout is not None
        line = await asyncio.wait_for(child.stdout.readline(), 60)
        if not line:
            raise RuntimeError(f"moto did not start: exit status {await child.wait()}")
        plane = cls(line.decode().strip())
        plane._child = child
        return plane

    async def seed(self, applications: Mapping[str, list[str]]) -> None:
        """Beanstalk applications by account; one that exists already is left alone."""
        for account, names in applications.items():
            for name in names:
                headers = {"Authorization": SEED_SIGNATURE, "x-moto-account-id": account}
                form = {"Action": "CreateApplication", "Version": "2010-12-01", "ApplicationName": name}
                async with self._http.post(self.url, data=form, headers=headers) as answer:
                    await answer.read()

    async def forward(self, wire: Wire, *, account: str) -> Reply:
        """The call as the client sent it, in that account. Authorization stays: moto routes by it (scenarios §4.1)."""
        asked = URL(wire.url, encoded=True)
        # the Host stays too: moto reads a bucket or an API from it
        headers = {name: value for name, value in wire.headers.items() if name not in HOP_BY_HOP}
        headers["x-moto-account-id"] = account
        target = URL(self.url + asked.raw_path_qs, encoded=True)
        async with self._http.request(
            wire.method, target, data=wire.body, headers=headers, skip_auto_headers=("Accept-Encoding", "User-Agent")
        ) as answer:
            kind = answer.headers.get("Content-Type", "text/xml")
            kept = {name: value for name, value in answer.headers.items() if name.lower().startswith("x-amz")}
            return Reply(answer.status, await answer.read(), kind, kept)

    async def stop(self) -> None:
        await self._http.close()
        if self._child is None or self._child.stdin is None:
            return
        self._child.stdin.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._child.wait(), 5)
            return
        self._child.kill()
        await self._child.wait()
