"""object_store's default chain (environment only), and S3's ListObjectsV2 on the bucket that the play has made."""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import Any

from obstore.store import S3Store
from speaking import Said, speak


class Kept:
    """A store and its chain; made at the first call, made anew by `fresh`."""

    def __init__(self) -> None:
        self.store: Any = None

    def call(self) -> Said:
        if self.store is None:
            self.store = S3Store(
                os.environ.get("SDK_S3_BUCKET", "sdk-matrix"),
                endpoint=os.environ["SDK_S3_URL"],
                client_options={"allow_http": True},
            )
        self.store.list_with_delimiter()
        return {"arn": None, "key": None, "expiration": None}

    def fresh(self) -> Said:
        self.store = None
        return self.call()


kept = Kept()
speak("obstore", version("obstore"), call=kept.call, fresh=kept.fresh)
