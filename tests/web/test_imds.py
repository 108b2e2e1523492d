"""A door row by row (interface.md §5), over real sockets, on both event loops."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.web.door_rig import EXTENDED, KEYS, TTL, DoorRig, a_door, doors_in, port_of, resident_kib
from tests.web.rig import (
    FRANKLIN,
    ROLE,
    SECRET,
    TOKEN_TEXT,
    StandInBroker,
    StandInPlans,
    read_reply,
    session,
    until_closed,
)
from vaultd.errors import Locked, MfaRequired, ProfileMismatch, RoleDenied, StsUnavailable, UnknownProfile
from vaultd.host.peers import Peers
from vaultd.model.plan import Overrides, Plan
from vaultd.web.imds import PATIENCE
from vaultd.web.limits import Crowd, Limits

#: What only pages and proxies send (interface.md §4).
FOREIGN = (
    "Origin: http://evil.example",
    "Referer: http://evil.example/",
    "Sec-Fetch-Site: cross-site",
    "Cookie: a=b",
    "Upgrade: websocket",
    "X-Forwarded-For: 10.0.0.1",
    "X-Forwarded-Host:",
    "X-Real-IP: 10.0.0.1",
    "Forwarded: for=10.0.0.1",
    "Via: 1.1 proxy",
)
CRT = "User-Agent: aws-sdk-crt/aws-imds-client"
NO_SESSION = StsUnavailable("AWS cannot be reached; type `vault-client status`.")


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[DoorRig]:
    async with a_door(tmp_path, region="eu-west-1") as made:
        yield made


# ---- the token path ----


@pytest.mark.parametrize("ttl", ["1", "300", "600", "21600"])
async def test_a_put_gets_a_token_and_its_ttl_back(rig: DoorRig, ttl: str) -> None:
    """200 text/plain, the TTL header echoed (Go, Kotlin and Rust fail without), the endpoint's own header fields."""
    reply = await rig.put(ttl=ttl)

    assert (reply.status, reply.reason) == (200, "OK")
    assert reply.header(TTL.lower()) == ttl
    assert reply.header("content-type") == "text/plain"
    assert reply.header("cache-control") == "no-store"
    assert reply.header("x-content-type-options") == "nosniff"
    assert reply.header("server") is None
    assert re.fullmatch(rb"[A-Za-z0-9_-]{56}", reply.body)
    assert (await rig.get("/", token=reply.body.decode())).status == 200


@pytest.mark.parametrize(
    "ttl", [None, "", "0", "21601", "99999", "-1", "+60", "1.5", "60s", "text", "6_0", "000060", "\xb2", "60, 60"]
)
async def test_a_bad_ttl_is_400(rig: DoorRig, ttl: str | None) -> None:
    """Missing, 0, 21601, text and whatever is no plain ASCII number: 400, and no token."""
    reply = await rig.put(ttl=ttl)
    assert (reply.status, reply.header("content-type")) == (400, "text/plain")
    assert reply.body.startswith(b"BadRequest: ")


async def test_two_ttls_are_400(rig: DoorRig) -> None:
    """Exactly one header, even where both say the same; any letter case of its name is one (positive control)."""
    assert (await rig.put(f"{TTL}: 60", ttl="60")).status == 400
    assert (await rig.put(f"{TTL.upper()}: 60", ttl=None)).status == 200


@pytest.mark.parametrize("line", FOREIGN)
async def test_a_forwarded_request_is_400_on_put_and_403_on_get(rig: DoorRig, line: str) -> None:
    """SDKs take a 403 on PUT for "no IMDSv2"; a page or a proxy gets neither a token nor keys."""
    put, get = await rig.put(line), await rig.get(f"{KEYS}web-admin", line)

    assert (put.status, get.status) == (400, 403)
    assert (put.header("connection"), get.header("connection")) == ("close", "close")
    assert put.body.startswith(b"ForbiddenOrigin: ")
    assert put.body.endswith(b"ask 127.0.0.1 directly, as `vault-client use --imds PROFILE` sets it up.")
    assert get.body == put.body
    assert SECRET.encode() not in get.raw
    assert {denial[:2] for denial in rig.audit.denials} == {("ForbiddenOrigin", "web-admin")}


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1:1", "169.254.169.254", "169.254.169.254:80", "[::1]"])
async def test_a_foreign_host_is_400_on_put_and_403_on_get(rig: DoorRig, host: str) -> None:
    """A DNS-rebound page has its own Host; the link-local one is not this listener's."""
    token = await rig.token()
    put = await rig.ask(rig.request("PUT", "/latest/api/token", f"{TTL}: 60", host=host))
    get = await rig.ask(rig.request("GET", "/", f"X-aws-ec2-metadata-token: {token}", host=host))
    assert (put.status, get.status) == (400, 403)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST"])
async def test_our_own_hosts_are_let_in(rig: DoorRig, host: str) -> None:
    """Without our port, as the CRT writes it, and by name in any letter case."""
    assert (await rig.ask(rig.request("PUT", "/latest/api/token", f"{TTL}: 60", host=host))).status == 200


@pytest.mark.parametrize(
    ("lines", "body", "status"),
    [
        ((), b"", 200),
        (("Content-Length: 0",), b"", 200),
        (("Expect: 100-continue", "Content-Length: 0"), b"", 200),
        (("Content-Length: 5",), b"hello", 400),
        (("Content-Length: 1",), b"\n", 400),
        (("Transfer-Encoding: chunked",), b"0\r\n\r\n", 400),
        (("Transfer-Encoding: chunked",), b"5\r\nhello\r\n0\r\n\r\n", 400),
    ],
)
async def test_a_put_without_a_length_is_taken_and_a_body_refused(
    rig: DoorRig, lines: tuple[str, ...], body: bytes, status: int
) -> None:
    """Java, CRT, C++, Rust and object_store send no Content-Length (sdk-facts §10.3): never 411."""
    raw = rig.request("PUT", "/latest/api/token", f"{TTL}: 60", *lines) + body
    assert (await rig.ask(raw)).status == status


@pytest.mark.parametrize(
    "path", ["/latest/api/token", "/latest/api/token/", "//latest/api/token", "//latest//api//token"]
)
async def test_the_token_path_in_every_spelling(rig: DoorRig, path: str) -> None:
    """A well-formed PUT is never answered 403, 404 or 405, whatever slashes the client glued together."""
    assert (await rig.put(path=path)).status == 200


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "HEAD", "OPTIONS"])
async def test_the_token_path_is_put_only(rig: DoorRig, method: str) -> None:
    """405 with the method that there is, with a live token too; HEAD without a body."""
    reply = await rig.get("/latest/api/token", method=method)
    assert (reply.status, reply.header("allow")) == (405, "PUT")
    assert bool(reply.body) is (method != "HEAD")


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "HEAD", "OPTIONS", "PATCH"])
@pytest.mark.parametrize("path", ["/", f"{KEYS}web-admin", "/nothing"])
async def test_everything_else_is_get_only(rig: DoorRig, method: str, path: str) -> None:
    """405, and nothing was served; the text ends in what to type."""
    reply = await rig.get(path, method=method)
    assert method == "HEAD" or reply.body.endswith(b"`vault-client use --imds PROFILE`.")
    assert (reply.status, reply.header("allow")) == (405, "GET")
    assert rig.audit.serves == []


@pytest.mark.parametrize(
    "raw", [b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n", b"GARBAGE\r\n\r\n"]
)
async def test_what_is_no_http_is_told_in_this_dialect(rig: DoorRig, raw: bytes) -> None:
    """400 text/plain, a constant, the connection ends with it; no byte of the request in it."""
    reply = await rig.ask(raw)
    assert (reply.status, reply.header("content-type")) == (400, "text/plain")
    assert reply.body.startswith(b"BadRequest: The request is not plain HTTP/1.1")
    assert reply.header("connection") == "close"


# ---- who is let in ----


@pytest.mark.parametrize("path", ["/", KEYS, f"{KEYS}web-admin", "/latest/meta-data/instance-id", "/nothing/at/all"])
@pytest.mark.parametrize("token", [(), ("",), ("x",), ("A" * 56,), ("\xff" * 56,)], ids=repr)
async def test_a_get_without_a_live_token_is_401(rig: DoorRig, path: str, token: tuple[str, ...]) -> None:
    """IMDSv1 and garbage: 401, before 404."""
    reply = await rig.ask(rig.request("GET", path, *(f"X-aws-ec2-metadata-token: {each}" for each in token)))
    assert reply.status == 401
    assert reply.body.startswith(b"InvalidToken: ")
    assert rig.audit.denials == [("InvalidToken", "web-admin", rig.audit.denials[0][2])]


async def test_two_tokens_are_none(rig: DoorRig) -> None:
    """Two token headers, even of one live token: 401."""
    token = await rig.token()
    assert (await rig.get("/", f"X-aws-ec2-metadata-token: {token}", token=token)).status == 401
    assert (await rig.get("/", token=token)).status == 200


async def test_a_token_of_another_door_is_401(rig: DoorRig) -> None:
    """Bound to the grant, the profile being the same; each is good at its own door (positive control)."""
    other = await rig.another("web-admin")
    here, there = await rig.token(), await rig.token(other)

    assert (await rig.get(f"{KEYS}web-admin", token=there)).status == 401
    assert (await rig.get(f"{KEYS}web-admin", token=here)).status == 200
    raw = rig.request("GET", "/", f"X-aws-ec2-metadata-token: {there}", port=port_of(other))
    assert (await rig.ask(raw, port=port_of(other))).status == 200


async def test_a_token_ends_with_its_ttl(rig: DoorRig) -> None:
    """Good to the last second before it, 401 from then on."""
    token = await rig.token(ttl=60)
    await rig.clock.advance(59)
    assert (await rig.get("/", token=token)).status == 200
    await rig.clock.advance(1)
    assert (await rig.get("/", token=token)).status == 401


async def test_another_user_gets_not_a_byte(tmp_path: Path) -> None:
    """The peer is looked up at accept: another uid is cut off, and the audit names the door's profile."""
    async with a_door(tmp_path, peers=Peers(own_uid=54321)) as rig:
        raw = rig.request("PUT", "/latest/api/token", f"{TTL}: 60")
        with pytest.raises((ConnectionError, AssertionError)):
            assert await rig.unanswered(raw)
        assert [denial[:2] for denial in rig.audit.denials] == [("ForbiddenPeer", "web-admin")]


# ---- what there is ----

ACCOUNT = "234567890123"
TOLD = {
    "/": "latest",
    "/latest/": "dynamic\nmeta-data",
    "/latest/meta-data/": "iam/\ninstance-id\nplacement/\nservices/",
    "/latest/meta-data/iam/": "info\nsecurity-credentials-extended/\nsecurity-credentials/",
    KEYS: "web-admin",
    EXTENDED: "web-admin",
    "/latest/meta-data/placement/": "availability-zone\nregion",
    "/latest/meta-data/placement/region": "eu-west-1",
    "/latest/meta-data/placement/availability-zone": "eu-west-1a",
    "/latest/meta-data/services/": "domain\npartition",
    "/latest/meta-data/services/domain": "amazonaws.com",
    "/latest/meta-data/services/partition": "aws",
    "/latest/dynamic/": "instance-identity/",
    "/latest/dynamic/instance-identity/": "document",
}


@pytest.mark.parametrize("path", TOLD)
async def test_every_path_with_and_without_its_slash(rig: DoorRig, path: str) -> None:
    """interface.md §5; slashes may be doubled anywhere, as AWS CLI 2 and JS v2 write them."""
    token = await rig.token()
    for spelling in (path, path.rstrip("/") or "/", path.rstrip("/") + "/", "/" + path, path.replace("/", "//")):
        reply = await rig.get(spelling, token=token)
        assert (reply.status, reply.body.decode()) == (200, TOLD[path]), spelling
        assert reply.header("content-type") == "text/plain"
        assert reply.header("cache-control") == "no-store"
        assert reply.header("x-content-type-options") == "nosniff"
        assert reply.header("server") is None


async def test_who_the_instance_is(rig: DoorRig) -> None:
    """A stable instance id, the account and the region of the profile; the documents are JSON."""
    told = [await rig.get("/latest/meta-data/instance-id") for _ in range(2)]
    info = json.loads((await rig.get("/latest/meta-data/iam/info")).body)
    document = json.loads((await rig.get("/latest/dynamic/instance-identity/document")).body)

    assert told[0].body == told[1].body
    assert re.fullmatch(rb"i-[0-9a-f]{17}", told[0].body)
    assert info["Code"] == "Success"
    assert info["InstanceProfileArn"] == f"arn:aws:iam::{ACCOUNT}:instance-profile/WebAdmin"
    assert (document["region"], document["accountId"]) == ("eu-west-1", ACCOUNT)
    assert document["instanceId"] == told[0].body.decode()
    assert document["pendingTime"] == "2026-11-22T12:00:00Z"


@pytest.mark.parametrize(
    "path",
    [
        "/latest/user-data",
        "/latest/api",
        "/2009-04-04/meta-data/",
        f"{KEYS}other",
        f"{KEYS}web-admin/x",
        f"{KEYS}WEB-ADMIN",
        f"{EXTENDED}audit",
        f"{KEYS}web-admin?x",
        f"{KEYS}../security-credentials/web-admin",
        "/latest/meta%2Ddata/",
        "/v1/credentials/web-admin",
        "/healthz",
    ],
)
async def test_elsewhere_is_404(rig: DoorRig, path: str) -> None:
    """Anything else, another name than ours included."""
    reply = await rig.get(path)
    assert reply.status == 404
    assert reply.body.endswith(b"`vault-client use --imds PROFILE`.")
    assert reply.body.startswith(b"NotFound: ")
    assert rig.audit.serves == []


@pytest.mark.parametrize(
    ("arn", "partition", "domain"),
    [
        ("arn:aws-cn:iam::234567890123:role/Web", "aws-cn", "amazonaws.com.cn"),
        ("arn:aws-us-gov:iam::234567890123:role/Web", "aws-us-gov", "amazonaws.com"),
        (None, "aws", "amazonaws.com"),
    ],
)
async def test_the_partition_is_the_roles(tmp_path: Path, arn: str | None, partition: str, domain: str) -> None:
    """`services/*` by the ARN that the grant pinned; a profile without a role by its user's."""
    async with a_door(tmp_path, role_arn=arn) as rig:
        assert (await rig.get("/latest/meta-data/services/partition")).body.decode() == partition
        assert (await rig.get("/latest/meta-data/services/domain")).body.decode() == domain
        info = json.loads((await rig.get("/latest/meta-data/iam/info")).body)
        assert info["InstanceProfileArn"].startswith(f"arn:{partition}:iam::")


async def test_no_region_is_invented(tmp_path: Path) -> None:
    """Where no file names one, and where the profile is gone: 404, and the directories do not list it."""
    async with a_door(tmp_path) as rig:
        for path in ("placement/", "placement/region", "placement/availability-zone"):
            assert (await rig.get(f"/latest/meta-data/{path}")).status == 404
        assert (await rig.get("/latest/dynamic/instance-identity/document")).status == 404
        assert (await rig.get("/latest/meta-data/")).body == b"iam/\ninstance-id\nservices/"
        rig.plans.broken, rig.plans.number = UnknownProfile("gone"), 2
        assert (await rig.get("/latest/meta-data/placement/region")).status == 404
        assert (await rig.get(KEYS)).body == b"web-admin"


class InOregon(StandInPlans):
    """The config file names a region."""

    region = "us-west-2"

    def plan(self, profile: str, overrides: Overrides = Overrides()) -> Plan:  # noqa: B008 (frozen)
        plan = super().plan(profile, overrides)
        return Plan(plan.profile, plan.slug, plan.identity, plan.steps, region=self.region, role_arn=plan.role_arn)


async def test_the_region_is_the_profiles_until_it_changes(tmp_path: Path) -> None:
    """The region of the config file as it is now."""
    plans = InOregon()
    async with a_door(tmp_path, plans=plans) as rig:
        assert (await rig.get("/latest/meta-data/placement/region")).body == b"us-west-2"
        plans.region, plans.number = "eu-north-1", 2
        assert (await rig.get("/latest/meta-data/placement/region")).body == b"eu-north-1"


# ---- credentials ----


async def test_credentials_are_those_of_an_instance(rig: DoorRig) -> None:
    """EC2's own fields in text/plain, times without fractions; no RoleArn, and AccountId only in the extended ones."""
    plain, extended = await rig.get(f"{KEYS}web-admin"), await rig.get(f"{EXTENDED}web-admin")

    expected = {
        "Code": "Success",
        "LastUpdated": "2026-11-22T12:00:00Z",
        "Type": "AWS-HMAC",
        "AccessKeyId": "ASIAEXAMPLEEXAMPLE01",
        "SecretAccessKey": SECRET,
        "Token": TOKEN_TEXT,
        "Expiration": "2026-11-22T13:00:00Z",
    }
    assert json.loads(plain.body) == expected
    assert json.loads(extended.body) == {**expected, "AccountId": ACCOUNT}
    assert (plain.status, plain.header("content-type")) == (200, "text/plain")
    assert plain.header("cache-control") == "no-store"


async def test_a_serve_is_audited_and_stamps_the_grant(rig: DoorRig) -> None:
    """After the bytes: an audit line with the socket, a look at what is due, and the grant's last use."""
    assert rig.grants.last_used(rig.grant.id) is None
    token = await rig.token()
    await rig.ask(rig.request("GET", "/"))
    assert rig.grants.last_used(rig.grant.id) is None, "nothing that shows no token is a use"
    await rig.clock.advance(5)
    await rig.get(KEYS, token=token)
    assert rig.grants.last_used(rig.grant.id) == rig.clock.now()
    await rig.get(f"{KEYS}web-admin", token=token)

    ((profile, sighting, identity),) = rig.audit.serves
    assert (profile, identity) == ("web-admin", "franklin")
    assert sighting.inode
    assert rig.broker.used_plans == ["web-admin"]


async def test_cold_credentials_are_made_within_patience(tmp_path: Path) -> None:
    """No session: asked for once, with the process's name and at most 0.4 s, since Go gives 0.5 s."""
    async with a_door(tmp_path, broker=StandInBroker(later=session())) as rig:
        assert (await rig.get(f"{KEYS}web-admin")).status == 200
        ((profile, requester, wait),) = rig.broker.asked
        assert (profile, requester) == ("web-admin", "terraform (pid 4711)")
        assert wait is not None
        assert 0 < wait <= PATIENCE < 0.5


@pytest.mark.parametrize(
    "error",
    [
        NO_SESSION,
        Locked("vaultd is locked: type `vault-client unlock`."),
        MfaRequired("A code is needed: type `vault-client mfa`."),
        RoleDenied("AWS said no: type `vault-client explain web-admin`."),
    ],
    ids=lambda error: error.code,
)
async def test_without_a_session_it_is_403(tmp_path: Path, error: Exception) -> None:
    """Whatever the reason, AWS being away included; the message is the body and the reason phrase, and one denial."""
    async with a_door(tmp_path, broker=StandInBroker(error=error)) as rig:
        for path in (f"{KEYS}web-admin", f"{EXTENDED}web-admin", f"{KEYS}web-admin/"):
            rig.audit.denials.clear()
            reply = await rig.get(path)
            code = getattr(error, "code", "")
            assert (reply.status, reply.reason) == (403, str(error))
            assert reply.body.decode() == f"{code}: {error}"
            assert reply.header("content-type") == "text/plain"
            assert [denial[:2] for denial in rig.audit.denials] == [(code, "web-admin")]
        assert rig.audit.serves == []


async def test_a_profile_that_left_or_changed_is_403(rig: DoorRig) -> None:
    """The grant's profile means another role by now, or is gone: refused, not followed."""
    for number, (roles, code) in enumerate(
        [({"web-admin": f"{ROLE}Other"}, ProfileMismatch.code), ({}, UnknownProfile.code), ({"web-admin": ROLE}, "")], 2
    ):
        rig.plans.roles, rig.plans.number = dict(roles), number
        reply = await rig.get(f"{KEYS}web-admin")
        assert reply.status == (403 if code else 200)
        assert reply.body.startswith(f"{code}: ".encode() if code else b"{")


@pytest.mark.parametrize("path", [f"{KEYS}web-admin", f"{EXTENDED}web-admin", f"{KEYS}other"])
async def test_the_crt_is_closed_unanswered(tmp_path: Path, path: str) -> None:
    """Any error body on the credentials path aborts its process (sdk-facts §6): not a byte; others are told."""
    async with a_door(tmp_path, broker=StandInBroker(error=NO_SESSION)) as rig:
        shown = f"X-aws-ec2-metadata-token: {await rig.token()}"
        assert await rig.unanswered(rig.request("GET", path, shown, CRT)) == b""
        told = await rig.ask(rig.request("GET", path, shown, "User-Agent: aws-sdk-cpp/1.11 aws-sdk-crt/0.1"))
        assert told.status in {403, 404}
        assert {denial[0] for denial in rig.audit.denials} <= {"StsUnavailable"}


async def test_the_crt_is_answered_everywhere_else(tmp_path: Path) -> None:
    """Token, role list and 401 are no reason to close; nor are keys that there are."""
    async with a_door(tmp_path, broker=StandInBroker(error=NO_SESSION)) as rig:
        put = await rig.put(CRT)
        token = put.body.decode()
        assert put.status == 200
        assert (await rig.get(KEYS, CRT, token=token)).body == b"web-admin"
        assert (await rig.get("/latest/nothing", CRT, token=token)).status == 404
        assert (await rig.ask(rig.request("GET", f"{KEYS}web-admin", CRT))).status == 401
        rig.broker.ready = session()
        assert (await rig.get(f"{KEYS}web-admin", CRT, token=token)).status == 200


async def test_token_and_role_list_without_a_session(tmp_path: Path) -> None:
    """Locked, and nothing to serve: both are answered as ever, and nobody is asked for anything."""
    broker = StandInBroker(error=Locked("vaultd is locked: type `vault-client unlock`."), locked=True)
    async with a_door(tmp_path, broker=broker) as rig:
        assert (await rig.put()).status == 200
        for path in (KEYS, EXTENDED, "/", "/latest/meta-data/iam/info"):
            assert (await rig.get(path)).status == 200
        assert broker.asked == []


async def test_no_keys_below_the_floor(tmp_path: Path) -> None:
    """With 15 s left they go out, with 14 s they do not, whatever the broker says."""
    for seconds, status in ((15, 200), (14, 403)):
        folder = tmp_path / str(seconds)
        folder.mkdir()
        async with a_door(folder, broker=StandInBroker(ready=session(lives=timedelta(seconds=seconds)))) as rig:
            reply = await rig.get(f"{KEYS}web-admin")
            assert reply.status == status
            assert (SECRET.encode() in reply.raw) is (status == 200)


async def test_no_keys_once_the_broker_is_locked(tmp_path: Path) -> None:
    """A session that landed in the turn of a lock is not written."""
    for locked in (False, True):
        folder = tmp_path / str(locked)
        folder.mkdir()
        broker = StandInBroker(later=session(), release=asyncio.Event())
        async with a_door(folder, broker=broker) as rig:
            asking = asyncio.ensure_future(rig.get(f"{KEYS}web-admin"))
            await broker.was_asked(1)
            assert broker.release is not None
            broker.release.set()
            broker.locked = locked
            assert (await asking).status == (403 if locked else 200)
            assert len(rig.audit.serves) == (0 if locked else 1)


async def test_a_failure_of_ours_tells_nothing(tmp_path: Path) -> None:
    """500 without detail, its traceback in the log; to the CRT not a byte."""
    for broker in (StandInBroker(error=RuntimeError("canary")), StandInBroker(ready=session())):
        folder = tmp_path / str(broker.ready is None)
        folder.mkdir()
        async with a_door(folder, broker=broker) as rig:
            if broker.ready is not None:
                rig.plans.broken = RuntimeError("canary")
            shown = f"X-aws-ec2-metadata-token: {await rig.token()}"
            reply = await rig.ask(rig.request("GET", f"{KEYS}web-admin", shown))
            assert reply.status == 500
            assert b"canary" not in reply.raw
            assert await rig.unanswered(rig.request("GET", f"{KEYS}web-admin", shown, CRT)) == b""


async def test_an_ended_grant_is_401_before_the_sweep(rig: DoorRig) -> None:
    """Between its end and the next sweep a door serves nothing, token or not."""
    token = await rig.token()
    assert (await rig.get(f"{KEYS}web-admin", token=token)).status == 200
    rig.clock.jump(-10)
    rig.clock._boot += timedelta(days=1).total_seconds()  # no sleeper: the sweep has not come
    assert (await rig.get(f"{KEYS}web-admin", token=token)).status == 401
    assert len(rig.audit.serves) == 1


async def test_a_profile_without_a_role(tmp_path: Path) -> None:
    """The identity's own MFA session: served, told by its user's account."""
    plans = StandInPlans(roles={"web-admin": None})
    async with a_door(tmp_path, plans=plans, role_arn=None) as rig:
        assert (await rig.get(f"{KEYS}web-admin")).status == 200
        info = json.loads((await rig.get("/latest/meta-data/iam/info")).body)
        assert info["InstanceProfileArn"].split(":")[4] == FRANKLIN.split(":")[4]
        plans.user_arn, plans.number = f"{FRANKLIN}2", 2
        assert (await rig.get(f"{KEYS}web-admin")).status == 403


# ---- connections ----


async def test_one_connection_serves_the_whole_conversation(rig: DoorRig) -> None:
    """Token, role list, credentials on one kept connection, pipelined too; closed when the client asks for it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(rig.request("PUT", "/latest/api/token", f"{TTL}: 60"))
    token = (await read_reply(reader)).body.decode()
    shown = f"X-aws-ec2-metadata-token: {token}"
    writer.write(rig.request("GET", KEYS, shown) + rig.request("GET", f"{KEYS}web-admin", shown))
    assert (await read_reply(reader)).body == b"web-admin"
    assert (await read_reply(reader)).status == 200
    writer.write(rig.request("GET", "/", shown, "Connection: close"))
    last = await read_reply(reader)
    assert (last.status, last.header("connection")) == (200, "close")
    assert await until_closed(reader) == b""
    writer.close()


async def test_all_doors_share_one_limit(tmp_path: Path) -> None:
    """The longest idle connection of any door makes room for the next of another."""
    limits = Limits(connections=2)
    async with doors_in(tmp_path, limits=limits, crowd=Crowd(2)) as rig:
        first, second = await rig.another("web-admin"), await rig.another("audit")
        rig.grant = first
        streams = []
        for grant in (first, second, second):
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(grant))
            writer.write(rig.request("PUT", "/latest/api/token", f"{TTL}: 60", port=port_of(grant)))
            assert (await read_reply(reader)).status == 200
            streams.append((reader, writer))
        assert await until_closed(streams[0][0]) == b""
        for _, writer in streams:
            writer.close()


async def test_ten_thousand_tokens_cost_no_memory(rig: DoorRig) -> None:
    """Nothing is kept of a token: 10,000 more leave the memory where the first 1,000 left it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    raw, made = rig.request("PUT", "/latest/api/token", f"{TTL}: 21600"), set[bytes]()

    async def ask(times: int) -> int:
        for _ in range(times):
            writer.write(raw)
            reply = await read_reply(reader)
            assert reply.status == 200
            made.add(reply.body[-8:]) if len(made) < 1000 else None
        return resident_kib()

    before = await ask(1_000)
    after = await ask(10_000)
    writer.close()
    assert len(made) == 1_000
    assert after - before < 1_024, (before, after)
