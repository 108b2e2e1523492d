"""The C++ SDK inside pyarrow: its default chain, and S3's ListBuckets."""

from __future__ import annotations

import os
from typing import Any

import pyarrow as pa
from pyarrow import fs
from speaking import Said, speak


class Kept:
    """A file system and its chain; made at the first call, made anew by `fresh`."""

    def __init__(self) -> None:
        self.s3: Any = None

    def call(self) -> Said:
        if self.s3 is None:
            scheme, _, place = os.environ["SDK_S3_URL"].partition("://")
            self.s3 = fs.S3FileSystem(
                endpoint_override=place, scheme=scheme, region=os.environ.get("AWS_REGION", "us-east-1")
            )
        self.s3.get_file_info(fs.FileSelector(""))
        return {"arn": None, "key": None, "expiration": None}

    def fresh(self) -> Said:
        self.s3 = None
        return self.call()


kept = Kept()
speak("pyarrow", pa.__version__, call=kept.call, fresh=kept.fresh)
