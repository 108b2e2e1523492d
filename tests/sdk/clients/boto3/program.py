"""boto3's default chain and its STS client."""

from __future__ import annotations

from typing import Any

import boto3
from speaking import Said, speak


class Kept:
    """A client and its chain; made at the first call, made anew by `fresh`."""

    def __init__(self) -> None:
        self.session: Any = None
        self.sts: Any = None

    def call(self) -> Said:
        if self.sts is None:
            self.session = boto3.Session()
            self.sts = self.session.client("sts")
        arn = self.sts.get_caller_identity()["Arn"]
        keys = self.session.get_credentials()
        # the private fields: asking for the public ones would be one more use of the keys, and so one more request
        # keys of the environment have neither of these
        key, until = getattr(keys, "_access_key", None), getattr(keys, "_expiry_time", None)
        return {"arn": arn, "key": key, "expiration": until and until.strftime("%Y-%m-%dT%H:%M:%SZ")}

    def fresh(self) -> Said:
        boto3.DEFAULT_SESSION = None
        self.sts = None
        return self.call()


kept = Kept()
speak("boto3", boto3.__version__, call=kept.call, fresh=kept.fresh)
