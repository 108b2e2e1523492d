"""aiobotocore's default chain and its STS client, all in one event loop, as s3fs uses it."""

from __future__ import annotations

import asyncio
from typing import Any

import aiobotocore
from aiobotocore.session import get_session
from speaking import Said, speak


class Kept:
    """A client and its chain; made at the first call, made anew by `fresh`."""

    def __init__(self) -> None:
        self.session: Any = None
        self.opened: Any = None
        self.sts: Any = None

    async def call(self) -> Said:
        if self.sts is None:
            self.session = get_session()
            self.opened = self.session.create_client("sts")
            self.sts = await self.opened.__aenter__()
        arn = (await self.sts.get_caller_identity())["Arn"]
        keys = await self.session.get_credentials()
        # keys of the environment have neither of these
        key, until = getattr(keys, "_access_key", None), getattr(keys, "_expiry_time", None)
        return {"arn": arn, "key": key, "expiration": until and until.strftime("%Y-%m-%dT%H:%M:%SZ")}

    async def fresh(self) -> Said:
        if self.sts is not None:
            await self.opened.__aexit__(None, None, None)
        self.sts = None
        return await self.call()


kept = Kept()
with asyncio.Runner() as runner:
    speak(
        "aiobotocore",
        aiobotocore.__version__,
        call=lambda: runner.run(kept.call()),
        fresh=lambda: runner.run(kept.fresh()),
    )
