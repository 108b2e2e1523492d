"""curl as the plain reader of both dialects: it reads the keys anew for each call, and signs with them itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

from speaking import Failed, Said, speak

BODY = "Action=GetCallerIdentity&Version=2011-06-15"
METADATA = "latest/meta-data/iam/security-credentials/"


def curl(*lines: str) -> str:
    """One request, by a config file on stdin: no secret on a command line. Raises Failed with the body."""
    config = "\n".join(("silent", "show-error", 'write-out = "\\n%{http_code}"', *lines))
    done = subprocess.run(("curl", "-q", "-K", "-"), input=config, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(done.stderr.strip())
    body, _, status = done.stdout.rpartition("\n")
    if not body.strip():
        raise Failed(f"{status} with nothing in it")
    if status != "200":
        raise Failed(f"{status} {body}")
    return body


def quoted(name: str, value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{name} = "{escaped}"'


def container() -> str:
    url = os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
    if path := os.environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"):
        token = Path(path).read_text()
    else:
        token = os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
    return curl(quoted("url", url), quoted("header", f"Authorization: {token}"))


def metadata() -> str:
    base = os.environ["AWS_EC2_METADATA_SERVICE_ENDPOINT"]
    ttl = quoted("header", "X-aws-ec2-metadata-token-ttl-seconds: 21600")
    token = curl(quoted("url", f"{base}latest/api/token"), quoted("request", "PUT"), ttl)
    header = quoted("header", f"X-aws-ec2-metadata-token: {token}")
    name = curl(quoted("url", f"{base}{METADATA}"), header)
    return curl(quoted("url", f"{base}{METADATA}{name}"), header)


def call() -> Said:
    keys = json.loads(metadata() if "AWS_EC2_METADATA_SERVICE_ENDPOINT" in os.environ else container())
    region = os.environ.get("AWS_REGION", "us-east-1")
    reply = curl(
        quoted("url", os.environ["AWS_ENDPOINT_URL_STS"] + "/"),
        quoted("data", BODY),
        quoted("aws-sigv4", f"aws:amz:{region}:sts"),
        quoted("user", f"{keys['AccessKeyId']}:{keys['SecretAccessKey']}"),
        quoted("header", f"X-Amz-Security-Token: {keys['Token']}"),
    )
    found = re.search("<Arn>(.*)</Arn>", reply)
    return {"arn": found and found[1], "key": keys["AccessKeyId"], "expiration": keys["Expiration"]}


def version() -> str:
    return subprocess.run(("curl", "--version"), capture_output=True, text=True, check=True).stdout.split()[1]


speak("curl", version(), call=call, fresh=call)
