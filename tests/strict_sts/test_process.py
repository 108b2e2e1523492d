"""The emulator as a process, its HTTP control, TLS under a CA of our own, and G6's data plane behind it."""

import json
import os
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.strict_sts.bench import Bench, outcome
from tests.strict_sts.live import SERIAL, StrictStsThread, role
from tests.strict_sts.tampered import TAMPERS

ROOT = Path(__file__).parents[2]


@contextmanager
def process(*arguments: str) -> Iterator[dict[str, Any]]:
    """A running `python -m tests.strict_sts`; checks that SIGTERM ends it with 0."""
    command = [sys.executable, "-m", "tests.strict_sts", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        ready = json.loads(child.stdout.readline())
        try:
            yield ready
        finally:
            child.send_signal(signal.SIGTERM)
        assert child.wait(20) == 0


class Remote:
    """The HTTP control."""

    def __init__(self, url: str) -> None:
        self._url = url

    def post(self, name: str, **wish: Any) -> Any:
        request = urllib.request.Request(f"{self._url}/_ctl/{name}", data=json.dumps(wish).encode())
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self._url}/_ctl/{path}", timeout=20) as answer:
            return json.load(answer)

    def client(self, service: str, keys: dict[str, Any] | None = None, *, user: str = "franklin") -> Any:
        if keys is None:
            key = self.get(f"key?user={user}")
            keys = {"AccessKeyId": key["id"], "SecretAccessKey": key["secret"]}
        return boto3.client(
            service,  # type: ignore[call-overload]
            endpoint_url=self._url,
            region_name="us-east-1",
            aws_access_key_id=keys["AccessKeyId"],
            aws_secret_access_key=keys["SecretAccessKey"],
            aws_session_token=keys.get("SessionToken"),
            config=Config(retries={"total_max_attempts": 1}),
        )

    def mfa(self, step: int = 0) -> dict[str, Any]:
        code = self.get(f"totp?serial={SERIAL}&step={step}")["code"]
        keys: dict[str, Any] = self.client("sts").get_session_token(SerialNumber=SERIAL, TokenCode=code)["Credentials"]
        return keys


@pytest.fixture(scope="module")
def remote(moto: str) -> Iterator[Remote]:
    with process("--moto", moto) as ready:
        assert set(ready) == {"port", "url", "env", "pid", "moto"}
        urls = {each.removesuffix("/federation") for each in ready["env"].values()}
        assert urls == {ready["url"]} == {f"http://127.0.0.1:{ready['port']}"}
        yield Remote(ready["url"])


@pytest.fixture(autouse=True)
def _fresh(request: pytest.FixtureRequest) -> None:
    if "remote" in request.fixturenames:
        request.getfixturevalue("remote").post("reset")


@pytest.mark.process
def test_the_tutorials_story_by_the_stock_cli(remote: Remote, tmp_path: Path) -> None:
    """G6's oracle: code → GetSessionToken → AssumeRole → the stock CLI's describe-applications names prod-app."""
    webadmin = remote.client("sts", remote.mfa()).assume_role(RoleArn=role("WebAdmin"), RoleSessionName="franklin")
    keys = webadmin["Credentials"]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "AWS_ENDPOINT_URL": remote._url,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": keys["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"],
        "AWS_SESSION_TOKEN": keys["SessionToken"],
    }
    aws = [sys.executable, "-W", "ignore", "-m", "awscli", "elasticbeanstalk", "describe-applications"]
    told = subprocess.run(aws, env=environment, capture_output=True, text=True, check=True, timeout=60)

    assert [each["ApplicationName"] for each in json.loads(told.stdout)["Applications"]] == ["prod-app"]
    rows = remote.get("calls")["counts"]
    assert rows == {"GetSessionToken": 1, "AssumeRole": 1, "DescribeApplications": 1}


@pytest.mark.process
def test_the_identity_account_has_no_application(remote: Remote) -> None:
    """One state an account: who looks in the identity account, being allowed to, sees none."""
    robot = "arn:aws:iam::123456789012:user/robot"
    statement = {"Effect": "Allow", "Action": "elasticbeanstalk:*", "Resource": "*"}
    document = {"Version": "2012-10-17", "Statement": statement}
    beanstalk = remote.client("elasticbeanstalk", user="robot")
    assert outcome(beanstalk.describe_applications) == "AccessDenied"

    remote.post("mutate", policy={"principal": robot, "name": "look", "document": document})
    assert beanstalk.describe_applications()["Applications"] == []


@pytest.mark.process
def test_clocks(remote: Remote) -> None:
    """set, advance and wire_skew; both times are told."""
    told = remote.post("clock", set="2027-01-01T00:00:00Z", advance=3600)
    assert told["now"].startswith("2027-01-01T01:00:0")
    keys = remote.mfa()
    assert keys["Expiration"].year == 2027

    remote.post("clock", advance=3601)
    assumed = remote.client("sts", keys)
    assert outcome(lambda: assumed.assume_role(RoleArn=role("WebAdmin"), RoleSessionName="franklin")) == "AccessDenied"
    remote.post("clock", wire_skew=1000)
    assert outcome(assumed.get_caller_identity) == "SignatureDoesNotMatch"
    with urllib.request.urlopen(f"{remote._url}/_ctl/clock") as answer:
        wire = datetime.fromisoformat(json.load(answer)["wire_now"])
    assert abs(wire - datetime.now(UTC) - timedelta(seconds=1000)) < timedelta(seconds=60)


@pytest.mark.process
def test_faults_revocation_calls_and_audit(remote: Remote) -> None:
    """What a test plants by HTTP strikes as in one process, and the log never shows a code."""
    remote.post("fault", match={"op": "GetSessionToken"}, kind="throttle", times=1)
    assert outcome(remote.mfa) == "Throttling"
    keys = remote.mfa()
    assert remote.post("revoke", akid=keys["AccessKeyId"], **{"as": "invalid"}) == {"revoked": 1}
    assert outcome(remote.client("sts", keys).get_caller_identity) == "InvalidClientTokenId"

    rows = remote.get("calls?op=GetSessionToken")["calls"]
    assert [(row["fault"], row["code"], row["status"]) for row in rows] == [("throttle", 1, 400), ("", 1, 200)]
    assert [row["op"] for row in remote.get(f"calls?since={rows[-1]['seq']}")["calls"]] == ["GetCallerIdentity"]
    assert remote.get("audit")["records"][0]["eventName"] == "GetSessionToken"
    assert remote.get("totp?serial=" + SERIAL)["code"] not in json.dumps([remote.get("calls"), remote.get("audit")])


@pytest.mark.process
def test_another_world_and_back(remote: Remote, tmp_path: Path) -> None:
    """A tampered template by path; reset keeps that world."""
    tamper = next(each for each in TAMPERS if each.name == "mfa-condition-dropped")
    templates = {name: str(path) for name, path in tamper.templates(tmp_path).items()}
    world = str(Path(__file__).with_name("world.yaml"))

    def seen() -> str:
        robot = remote.client("sts", user="robot")
        return outcome(lambda: robot.assume_role(RoleArn=role("WebAdmin"), RoleSessionName="robot"))

    assert seen() == "AccessDenied"
    remote.post("world", path=world, templates=templates)
    assert seen() == "allowed"
    remote.post("reset")
    assert seen() == "allowed"
    remote.post("world", path=world)
    assert seen() == "AccessDenied"


@pytest.mark.process
@pytest.mark.parametrize(
    ("name", "wish"),
    [
        ("fault", {"kind": "nope"}),
        ("mutate", {"nope": {}}),
        ("world", {"path": "/nonexistent"}),
        ("clock", {"set": "x"}),
    ],
)
def test_wrong_control_requests(remote: Remote, name: str, wish: dict[str, Any]) -> None:
    """400 with the reason, never a guess."""
    with pytest.raises(urllib.error.HTTPError, match="400") as refused:
        remote.post(name, **wish)
    assert "error" in json.load(refused.value)
    refused.value.close()


@pytest.mark.process
def test_options() -> None:
    """--knob, --time-scale and --with-moto reach the emulator; its moto is gone when it is."""
    with process("--with-moto", "--time-scale", "60", "--knob", "session_token_bytes=8192") as ready:
        keys = Remote(ready["url"]).mfa()
        assert len(keys["SessionToken"]) == 8192
        assert keys["Expiration"] - datetime.now(UTC) <= timedelta(seconds=720)
        with urllib.request.urlopen(ready["moto"] + "/moto-api/data.json") as answer:
            assert answer.status == 200
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(ready["moto"])


def certificate(directory: Path) -> tuple[Path, Path]:
    """A CA of the tests' own that certifies itself for localhost: certificate and key as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "strict-sts tests")])
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    certified = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    paths = directory / "ca.pem", directory / "ca.key"
    paths[0].write_bytes(certified.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(secret)
    return paths


def test_tls(tmp_path: Path) -> None:
    """Over TLS: refused by who does not know the CA, served to who does."""
    files = certificate(tmp_path)
    with StrictStsThread(tls=files) as strict:
        assert strict.url.startswith("https://localhost:")
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            urllib.request.urlopen(f"{strict.url}/_ctl/calls", context=ssl.create_default_context())
        key = strict.key()
        client = boto3.client(
            "sts",
            endpoint_url=strict.url,
            region_name="us-east-1",
            verify=str(files[0]),
            aws_access_key_id=key.id,
            aws_secret_access_key=key.secret,
        )
        assert client.get_caller_identity()["Account"] == "123456789012"


def test_injected_clock_is_its_owners(bench: Bench) -> None:
    """A clock that the test brought cannot be moved over HTTP, only told."""
    remote = Remote(bench.strict.url)
    assert remote.get("clock")["now"].startswith("2026-11-22T12:00:10")

    with pytest.raises(urllib.error.HTTPError, match="400") as refused:
        remote.post("clock", advance=1)
    assert "injected" in json.load(refused.value)["error"]
    refused.value.close()


def test_cross_account_audit(bench: Bench) -> None:
    """Two records of one AssumeRole, joined; only the caller's names the user; none holds a code or a secret."""
    code = bench.strict.totp()
    keys = bench.mfa()
    webadmin = bench.assume("WebAdmin", keys)
    bench.client("sts", webadmin).get_caller_identity()

    ours, theirs = [each for each in bench.strict.audit() if each["eventName"] == "AssumeRole"]
    assert ours["sharedEventID"] == theirs["sharedEventID"]
    assert (ours["recipientAccountId"], theirs["recipientAccountId"]) == ("123456789012", "234567890123")
    assert ours["userIdentity"]["userName"] == "franklin"
    assert ours["userIdentity"]["sessionContext"]["attributes"]["mfaAuthenticated"] == "true"
    assert theirs["userIdentity"]["type"] == "AWSAccount"
    assert "franklin" not in json.dumps(theirs["userIdentity"])
    assert theirs["requestParameters"]["roleSessionName"] == "franklin"
    last = bench.strict.audit()[-1]["userIdentity"]
    assert (last["type"], last["sessionContext"]["attributes"]["mfaAuthenticated"]) == ("AssumedRole", "false")
    seen = json.dumps(bench.strict.audit()) + repr(bench.strict.calls())
    assert not [each for each in (code, keys["SecretAccessKey"], keys["SessionToken"]) if each in seen]
