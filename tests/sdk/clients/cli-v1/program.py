"""AWS CLI v1: each call is one process of it, as its users have it."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version

from speaking import Said, aws_cli, speak


def call() -> Said:
    return aws_cli(sys.executable, "-m", "awscli", endpoint=os.environ["AWS_ENDPOINT_URL_STS"])


speak("cli-v1", version("awscli"), call=call, fresh=call)
