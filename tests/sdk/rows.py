"""The error rows of interface.md §4 as a daemon's real states: how each comes about, and what the daemon then says.

Rule: a row counts only when the daemon, asked by the harness itself with the program's own variables, gives the row's
code. Each row has its own grants and, where AWS has a part in it, its own role, so that none disturbs another.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.process.harness import until
from tests.sdk.programs import DIALECTS, Dialect
from tests.sdk.stage import Stage

ROBOT = "arn:aws:iam::123456789012:user/robot"
ACCOUNT = "arn:aws:iam::234567890123:role/"
#: Rows by the roles of an identity without MFA: a denial is not taken for an MFA session that is too old.
PLAIN = ("row-token", "row-mismatch", "row-unknown", "row-denied", "row-away", "row-broken")
#: The one of the person's identity, for what a person must do.
PERSON = "row-person"
Environments = Mapping[Dialect, dict[str, str]]


@dataclass(frozen=True)
class Truth:
    """What the daemon says by itself: `code` is `refused` when nobody listens, `OK` with keys, else the row's."""

    code: str
    message: str = ""


def truth(environment: Mapping[str, str]) -> Truth:
    """Ask the daemon by the variables of a program."""
    try:
        if url := environment.get("AWS_CONTAINER_CREDENTIALS_FULL_URI"):
            return _container(url, environment["AWS_CONTAINER_AUTHORIZATION_TOKEN"])
        return _metadata(environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"])
    except ConnectionRefusedError:
        return Truth("refused")


def _got(url: str, *, method: str = "GET", headers: Mapping[str, str]) -> tuple[int, str]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=150)
    try:
        connection.request(method, parts.path, headers=dict(headers))
        reply = connection.getresponse()
        return reply.status, reply.read().decode().strip()
    finally:
        connection.close()


def _container(url: str, token: str) -> Truth:
    status, text = _got(url, headers={"Authorization": token})
    if not text:  # a hold that ended without keys; the next one hears the reason
        return Truth("held")
    body = json.loads(text)
    return Truth("OK") if status == 200 else Truth(body["code"], body["message"])


def _metadata(base: str) -> Truth:
    root = f"{base}latest/meta-data/iam/security-credentials/"
    _, token = _got(f"{base}latest/api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"})
    headers = {"X-aws-ec2-metadata-token": token}
    status, name = _got(root, headers=headers)
    if status == 200:
        status, name = _got(root + name, headers=headers)
    code, _, message = name.partition(": ")
    return Truth("OK") if status == 200 else Truth(code, message)


@dataclass(frozen=True)
class Row:
    """One row: who brings it about; what the daemon says by each dialect (one that is not there has no such row)."""

    name: str
    profile: str
    bring: Callable[[Stage, Environments], Environments]
    codes: Mapping[Dialect, str]


def brought(stage: Stage, row: Row, environments: Environments) -> tuple[Environments, dict[Dialect, Truth]]:
    """The environments by which a program meets the row, and the truth in each; waits until the daemon says so."""
    changed = row.bring(stage, environments)
    for dialect in changed:
        until(lambda d=dialect: truth(changed[d]).code == row.codes[d], f"{row.name} by {dialect}")  # type: ignore[misc]
    return changed, {dialect: truth(each) for dialect, each in changed.items()}


def prepare(stage: Stage) -> None:
    """The second identity, the roles and the profiles; before any grant of a row is made."""
    key = stage.emulator.ctl("key?user=robot")
    allow = {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "*"}
    document = {"Version": "2012-10-17", "Statement": [allow]}
    stage.emulator.ctl("mutate", {"policy": {"principal": ROBOT, "name": "rows", "document": document}})
    for name in PLAIN:
        stage.emulator.ctl("mutate", {"role": {"arn": ACCOUNT + name, "trust": _trust("123456789012")}})
    config = stage.home.directory / ".aws/config"
    config.write_text("\n".join([config.read_text(), *map(_plain, PLAIN), _person()]))
    body = json.dumps({"AccessKeyId": key["id"], "SecretAccessKey": key["secret"]})
    added = stage.home.client("add", "robot", "--stdin", stdin=body)
    assert added.status == 0, added
    until(lambda: PERSON in stage.home.client("list").out, "the daemon has seen the rows' profiles")


def granted(stage: Stage, row: Row, dialects: Iterable[Dialect] = DIALECTS) -> Environments:
    """A grant of the row's profile in each dialect that it has."""
    return {dialect: stage.pointed(row.profile, dialect) for dialect in dialects if dialect in row.codes}


def _trust(account: str) -> dict[str, object]:
    statement = {"Effect": "Allow", "Principal": {"AWS": account}, "Action": "sts:AssumeRole"}
    return {"Version": "2012-10-17", "Statement": [statement]}


def _plain(name: str) -> str:
    return (
        f"[profile {name}]\nsource_profile = robot\nrole_arn = {ACCOUNT}{name}\nregion = us-east-1\n"
        f"role_session_name = {name}\n"
    )


def _person() -> str:
    return (
        f"[profile {PERSON}]\nsource_profile = identity\nrole_arn = {ACCOUNT}LongOps\nregion = us-east-1\n"
        f"mfa_serial = arn:aws:iam::123456789012:mfa/franklin\nrole_session_name = {PERSON}\n"
    )


# ---- how each comes about ----


def _token(stage: Stage, environments: Environments) -> Environments:
    """A program that has the token still: the file goes with the grant, so here is a copy of it."""
    name = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"
    kept = stage.home.directory / "kept.token"
    kept.write_text(environments["ecs"]["AWS_CONTAINER_AUTHORIZATION_TOKEN"])
    for each in environments.values():
        assert stage.home.client("revoke", each["VAULTD_GRANT"]).status == 0
    return {**environments, "ecs": {**environments["ecs"], name: str(kept)}}


def _mismatch(_: Stage, environments: Environments) -> Environments:
    url = environments["ecs"]["AWS_CONTAINER_CREDENTIALS_FULL_URI"].replace("row-mismatch", "row-token")
    return {"ecs": {**environments["ecs"], "AWS_CONTAINER_CREDENTIALS_FULL_URI": url}}


def _unknown(stage: Stage, environments: Environments) -> Environments:
    config = stage.home.directory / ".aws/config"
    config.write_text(config.read_text().replace(_plain("row-unknown"), ""))
    return environments


def _denied(stage: Stage, environments: Environments) -> Environments:
    stage.emulator.ctl("mutate", {"role": {"arn": ACCOUNT + "row-denied", "trust": _trust("345678901234")}})
    return _cleared("row-denied")(stage, environments)


def _away(stage: Stage, environments: Environments) -> Environments:
    match = {"op": "AssumeRole", "session_name": "row-away"}
    stage.emulator.ctl("fault", {"match": match, "kind": "http", "when": "before", "times": 0, "arg": 503})
    return _cleared("row-away")(stage, environments)


def _broken(stage: Stage, environments: Environments) -> Environments:
    key = stage.emulator.ctl("key?user=robot")["id"]
    stage.emulator.ctl("mutate", {"key": {"id": key, "status": "deleted"}})
    return _cleared("row-broken")(stage, environments)


def _cleared(*profile: str) -> Callable[[Stage, Environments], Environments]:
    def bring(stage: Stage, environments: Environments) -> Environments:
        assert stage.home.client("clear", *profile).status == 0
        return environments

    return bring


def _locked(stage: Stage, environments: Environments) -> Environments:
    assert stage.home.client("lock").status == 0
    return environments


def _down(stage: Stage, environments: Environments) -> Environments:
    assert stage.home.run("vaultd", "stop").status == 0
    return environments


def _both(code: str) -> dict[Dialect, str]:
    return dict.fromkeys(DIALECTS, code)


#: In this order: what a key of the robot's is needed for comes before that key's end. A door closes with its grant.
ROBOT_ROWS = (
    Row("InvalidToken", "row-token", _token, {"ecs": "InvalidToken", "imds": "refused"}),
    Row("ProfileMismatch", "row-mismatch", _mismatch, {"ecs": "ProfileMismatch"}),
    Row("UnknownProfile", "row-unknown", _unknown, _both("UnknownProfile")),
    Row("RoleDenied", "row-denied", _denied, _both("RoleDenied")),
    Row("StsUnavailable", "row-away", _away, _both("StsUnavailable")),
    Row("IdentityBroken", "row-broken", _broken, _both("IdentityBroken")),
)
MFA_REQUIRED = Row("MfaRequired", PERSON, _cleared(), _both("MfaRequired"))
LOCKED = Row("Locked", PERSON, _locked, _both("Locked"))
DOWN = Row("daemon down", PERSON, _down, _both("refused"))
ROWS = (*ROBOT_ROWS, MFA_REQUIRED, LOCKED, DOWN)
