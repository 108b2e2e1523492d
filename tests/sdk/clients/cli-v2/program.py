"""AWS CLI v2 of the system: each call is one process of it. 2.9 does not know AWS_ENDPOINT_URL: it is told."""

from __future__ import annotations

import os
import re
import subprocess

from speaking import Said, aws_cli, speak

AWS = "/usr/bin/aws"


def version() -> str:
    told = subprocess.run((AWS, "--version"), capture_output=True, text=True, check=True)
    found = re.match(r"aws-cli/(2\S*)", told.stdout)
    assert found, f"{AWS} is no AWS CLI v2: {told.stdout}"
    return found[1]


def call() -> Said:
    return aws_cli(AWS, endpoint=os.environ["AWS_ENDPOINT_URL_STS"])


speak("cli-v2", version(), call=call, fresh=call)
