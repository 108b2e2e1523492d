"""The control API's shapes: each route's answer, what a body may be, strings fit for a terminal (interface.md §6)."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.web.control import KEY_ID, PROFILES, ROLE, SECRET, SERIAL, House, Line, Started, strings
from vaultd import __version__
from vaultd.errors import RoleDenied
from vaultd.model.planner import make_plan
from vaultd.model.text import shown

PROFILE_KEYS = {
    "profile", "account_id", "role_arn", "identity", "mfa_serial", "state", "expiration", "seconds_left", "last_error",
}  # fmt: skip
GRANT_KEYS = {"id", "profile", "kind", "imds", "created", "last_used", "expires", "peer", "door"}
IDENTITY_KEYS = {
    "name", "account_id", "user_arn", "mfa_serial", "access_key_id", "created", "key_created", "key_age_days",
    "rotation",
}  # fmt: skip
PROMPT_KEYS = {
    "id", "kind", "identity", "mfa_serial", "profile", "requester", "attempts_left", "expires_at", "note",
}  # fmt: skip
STATUS_KEYS = {
    "version", "pid", "port", "port_given", "config_given", "store", "locked", "identities", "profiles", "prompts",
    "grants", "clock_skew_seconds", "locked_reason", "locked_by", "keyless", "keeper_pid", "lost_audit_lines", "log",
    "trouble", "link_local",
}  # fmt: skip
LEASE = {"profile": "web-admin", "kind": "lease"}


@pytest.fixture
async def started(tmp_path: Path) -> AsyncIterator[Started]:
    async with House(tmp_path).run() as started:
        yield started


async def test_the_main_job_has_the_contracts_shapes(started: Started) -> None:
    """Add → grant → 409 with the question → code → 201 → lists: each object with exactly the contract's fields."""
    identity = await started.call(
        "POST", "/v1/identities", {"name": "identity", "AccessKeyId": KEY_ID, "SecretAccessKey": SECRET}
    )
    assert identity.status == 201
    assert identity.body == {
        "name": "identity", "account_id": "123456789012", "user_arn": "arn:aws:iam::123456789012:user/franklin",
        "mfa_serial": SERIAL, "access_key_id": "0001", "created": "2026-11-22T12:00:00Z",
        "key_created": None, "key_age_days": 0, "rotation": None,
    }  # fmt: skip

    needed = await started.call("POST", "/v1/grants", LEASE)
    prompt = needed.body["prompt"]
    assert (needed.status, needed.body["code"], needed.body["exit"]) == (409, "MfaRequired", 3)
    assert set(prompt) == PROMPT_KEYS
    assert (prompt["kind"], prompt["identity"], prompt["attempts_left"]) == ("code", "identity", 3)
    assert (await started.ok("GET", "/v1/prompts")) == {"prompts": [prompt]}
    assert (await started.ok("GET", f"/v1/prompts/{prompt['id']}")) == prompt
    assert (await started.ok("POST", f"/v1/prompts/{prompt['id']}", {"token_code": "123456"})) == {}

    made = await started.call("POST", "/v1/grants", LEASE)
    assert made.status == 201
    assert made.headers["content-type"] == "application/json"
    assert made.headers["cache-control"] == "no-store"
    grant = made.body
    assert set(grant) == {"id", "profile", "set", "unset", "expiration", "account_id", "role_arn", "warnings"}
    assert (grant["profile"], grant["account_id"], grant["role_arn"]) == ("web-admin", "234567890123", ROLE)
    assert grant["expiration"] == "2026-11-22T13:00:00Z"
    token = started.house.files.read(Path(grant["set"]["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"]))
    assert token == grant["set"]["AWS_CONTAINER_AUTHORIZATION_TOKEN"].encode()

    listed = await started.ok("GET", "/v1/grants")
    assert [set(each) for each in listed["grants"]] == [GRANT_KEYS]
    assert set(listed["grants"][0]["peer"]) == {"pid", "uid", "exe", "argv0", "started"}
    profiles = (await started.ok("GET", "/v1/profiles"))["profiles"]
    assert {frozenset(each) for each in profiles} == {frozenset(PROFILE_KEYS)}
    assert [(each["profile"], each["state"]) for each in profiles] == [
        ("web-admin", "fresh"), ("audit", "none"), ("looped", "error"), ("looped-too", "error"),
    ]  # fmt: skip
    assert set(profiles[2]["last_error"]) == {"code", "message", "time"}
    assert [set(each) for each in (await started.ok("GET", "/v1/identities"))["identities"]] == [IDENTITY_KEYS]


async def test_status_has_the_contracts_fields(started: Started) -> None:
    """Status {version, pid, port, store, locked, identities, profiles, prompts, grants, clock_skew_seconds}."""
    started.house.sts.skew = 42.0
    status = await started.ok("GET", "/v1/status")

    assert set(status) == STATUS_KEYS
    assert (status["version"], status["store"], status["locked"]) == (__version__, "keyring", False)
    assert status["clock_skew_seconds"] == 42.0
    assert status["port"] == started.daemon.port
    assert (status["trouble"], status["lost_audit_lines"]) == ([], 0)


async def test_where_a_grant_is_served_is_told(started: Started) -> None:
    """A door's address and TCP port, beside the grant and in the status; null for a grant that has a token."""
    await started.with_session()
    made = await started.ok("POST", "/v1/grants", {**LEASE, "imds": True})
    await started.ok("POST", "/v1/grants", LEASE)
    first, second = (await started.ok("GET", "/v1/grants"))["grants"]
    status = await started.ok("GET", "/v1/status")

    door = first["door"]
    assert made["set"]["AWS_METADATA_ENDPOINT"] == f"http://{door['address']}:{door['port']}/"
    assert second["door"] is None
    assert [each["door"] for each in status["grants"]] == [door, None]
    assert status["link_local"] == []


async def test_the_plan_is_told_step_by_step(started: Started) -> None:
    """Plan {profile, identity, steps:[{kind, …, source}], problems}."""
    await started.add()
    plan = await started.ok("GET", "/v1/profiles/web-admin/plan")

    assert (plan["profile"], plan["identity"], plan["problems"]) == ("web-admin", "identity", [])
    assert plan["callers"] == {"protected": False, "allow_executables": None, "relays": []}
    assert [(each["kind"], each["source"]) for each in plan["steps"]] == [
        ("mfa_session", "identity key"), ("assume_role", "mfa_session"),
    ]  # fmt: skip


async def test_a_plan_is_checked_by_calls_that_change_nothing(started: Started) -> None:
    """`?check`: whose key it is and which devices its user has, {name, ok, message} each; no code, no session. AWS's no
    to the second is no fault, another device than the plan's is one. Control: unasked, AWS is not called.
    """
    await started.add()
    house = started.house
    before = len(house.sts.calls)
    assert "checks" not in await started.ok("GET", "/v1/profiles/web-admin/plan")
    assert len(house.sts.calls) == before
    good = (await started.ok("GET", "/v1/profiles/web-admin/plan?check"))["checks"]
    house.iam.serials = ("arn:aws:iam::123456789012:mfa/other",)
    other = (await started.ok("GET", "/v1/profiles/web-admin/plan?check"))["checks"]
    house.sts.arn, arn = "arn:aws:iam::123456789012:user/other", house.sts.arn
    exchanged = (await started.ok("GET", "/v1/profiles/web-admin/plan?check"))["checks"]
    house.sts.arn = arn
    house.iam.error = RoleDenied("iam:ListMFADevices is denied: allow it")
    denied = (await started.ok("GET", "/v1/profiles/web-admin/plan?check"))["checks"]

    assert [(each["name"], each["ok"]) for each in good] == [("GetCallerIdentity", True), ("ListMFADevices", True)]
    assert "the key is good, and of arn:aws:iam::123456789012:user/franklin" in good[0]["message"]
    assert exchanged[0] == {"name": "GetCallerIdentity", "ok": False, "message": (
        "the key is of arn:aws:iam::123456789012:user/other, and was added as that of "
        "arn:aws:iam::123456789012:user/franklin: type `vault-client add identity --replace`"
    )}  # fmt: skip
    assert other[1] == {"name": "ListMFADevices", "ok": False, "message": (
        f"the plan asks for a code of {SERIAL}, and AWS lists arn:aws:iam::123456789012:mfa/other: correct mfa_serial"
    )}  # fmt: skip
    assert (denied[1]["ok"], denied[1]["message"][:10]) == (True, "not known:")
    assert {each.operation for each in house.sts.calls[before:]} == {"caller_identity"}


async def test_credentials_are_the_body_of_the_endpoint(started: Started) -> None:
    """/credentials → the body of §4, and one audit line of it."""
    await started.with_session()
    body = await started.ok("GET", "/v1/profiles/web-admin/credentials")

    assert set(body) == {
        "AccessKeyId", "SecretAccessKey", "Token", "Expiration", "AccountId", "RoleArn", "Code", "LastUpdated", "Type",
    }  # fmt: skip
    [line] = started.house.events("credentials.serve")
    assert (line["profile"], line["identity"], line["decision"], line["count"]) == ("web-admin", "identity", "allow", 1)
    assert (line["access_key_id"], line["role_arn"]) == (body["AccessKeyId"][-4:], ROLE)
    assert line["peer"]["pid"] is not None


async def test_refresh_and_clear(started: Started) -> None:
    """refresh: a new role session, no code while the MFA session serves; clear PROFILE drops its role session only."""
    await started.with_session()
    await started.ok("GET", "/v1/profiles/web-admin/credentials")
    row = await started.ok("POST", "/v1/profiles/web-admin/refresh", {"token_code": "999999"})
    assert set(row) == PROFILE_KEYS
    assert row["state"] == "fresh"
    assert started.house.sts.counts() == {"caller_identity": 1, "session_token": 1, "assume_role": 2}

    assert (await started.ok("DELETE", "/v1/sessions?profile=web-admin")) == {}
    assert (await started.ok("GET", "/v1/profiles"))["profiles"][0]["state"] == "none"
    await started.ok("GET", "/v1/profiles/web-admin/credentials")
    assert started.house.sts.counts()["session_token"] == 1
    assert (await started.ok("DELETE", "/v1/sessions")) == {}
    assert (await started.refused("GET", "/v1/profiles/web-admin/credentials"))[1]["code"] == "MfaRequired"


async def test_checks_are_told_with_their_remedies(started: Started) -> None:
    """GET /v1/checks: {"checks": [{name, ok, message, remedy}]}, of the running daemon."""
    checks = (await started.ok("GET", "/v1/checks"))["checks"]

    assert {frozenset(each) for each in checks} == {frozenset({"name", "ok", "message", "remedy"})}
    told = {each["name"]: each for each in checks}
    assert told["port"]["message"] == f"127.0.0.1:{started.daemon.port} is vaultd's own"
    assert told["daemon"] == {"name": "daemon", "ok": True, "message": "unlocked", "remedy": ""}


# ---- errors ----


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "expected"),
    [
        ("GET", "/v1/nothing", None, 404, {
            "code": "NotFound", "message": "no such route in the control API: type `vault-client --help`", "exit": 1}),
        ("PUT", "/v1/status", None, 405, {
            "code": "MethodNotAllowed", "exit": 1,
            "message": "the control API has no such method there: type `vault-client --help`"}),
        ("GET", "/v1/profiles/web-admi/plan", None, 404, {"code": "UnknownProfile", "exit": 1}),
        ("GET", "/v1/profiles/looped/plan", None, 422, {"code": "BadProfile", "exit": 78}),
        ("DELETE", "/v1/grants/abc", None, 404, {
            "code": "UnknownGrant", "message": "There is no grant 'abc': list them with `vault-client grants`.",
            "exit": 1}),
        ("GET", "/v1/prompts/abc", None, 404, {
            "code": "UnknownPrompt",
            "message": "That question was answered elsewhere, or is gone: run your command again.", "exit": 1}),
        ("GET", "/v1/prompts/abc?wait", None, 404, {"code": "UnknownPrompt", "exit": 1}),
        ("POST", "/v1/prompts/abc", {"token_code": "123456"}, 404, {"code": "UnknownPrompt", "exit": 1}),
        ("DELETE", "/v1/prompts/abc", None, 404, {"code": "UnknownPrompt", "exit": 1}),
        ("DELETE", "/v1/identities/identiti", None, 404, {
            "code": "UnknownIdentity", "exit": 1,
            "message": "no identity identiti is stored. Did you mean identity? Type `vault-client identities`"}),
        ("POST", "/v1/prompts", {"identity": "identiti"}, 404, {
            "code": "UnknownIdentity", "exit": 1,
            "message": "no identity identiti is stored. Did you mean identity? Type `vault-client add identiti`"}),
        ("POST", "/v1/identities", {"name": "identity", "AccessKeyId": KEY_ID, "SecretAccessKey": "s"}, 409, {
            "code": "IdentityExists", "exit": 1,
            "message": "identity identity exists; run `vault-client add identity --replace` to replace its key"}),
        ("GET", "/v1/audit?n=x", None, 400, {
            "code": "BadRequest", "exit": 1, "field": "n",
            "message": "field n: not a number; send a whole number of lines"}),
        ("DELETE", "/v1/sessions?profile=nope", None, 404, {"code": "UnknownProfile", "exit": 1}),
    ],
)  # fmt: skip
async def test_errors_carry_code_message_and_exit(
    started: Started, method: str, path: str, body: object, status: int, expected: dict[str, Any]
) -> None:
    """Every error body of the control API carries `exit`, the client's exit status."""
    await started.add()
    found = await started.call(method, path, body)

    assert found.status == status
    assert {name: found.body.get(name) for name in expected} == expected
    assert {"code", "message", "exit"} <= set(found.body)
    assert found.headers["content-type"] == "application/json"


async def test_a_mismatch_names_both_versions(started: Started) -> None:
    """426 ProtocolMismatch, exit 1, naming both; without the header the current version is assumed."""
    other = await started.call("GET", "/v1/status", Vaultd_Protocol="2\u202e")

    assert other.status == 426
    assert other.body == {
        "code": "ProtocolMismatch", "exit": 1,
        "message": f"vaultd {__version__} speaks protocol 1 and the client 2?: type `vaultd restart` after an update",
    }  # fmt: skip
    assert (await started.call("GET", "/v1/nothing", Vaultd_Protocol="2")).status == 426
    assert (await started.call("GET", "/v1/status", Vaultd_Protocol="1")).status == 200


CANARY = "canary-4711"
GRANT = {"profile": "web-admin", "kind": "lease"}
IDENTITY = {"name": "other", "AccessKeyId": KEY_ID, "SecretAccessKey": CANARY}


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/grants", {}, "profile"),
        ("/v1/grants", {**GRANT, "profile": ""}, "profile"),
        ("/v1/grants", {**GRANT, "kind": CANARY}, "kind"),
        ("/v1/grants", {**GRANT, "pid": CANARY}, "pid"),
        ("/v1/grants", {**GRANT, "pid": True}, "pid"),
        ("/v1/grants", {**GRANT, "pid": 0}, "pid"),
        ("/v1/grants", {**GRANT, "kind": "shell", "pid": 2**40}, "pid"),
        ("/v1/grants", {**GRANT, "kind": "shell", "pid": 1 << 90}, "pid"),
        ("/v1/grants", {**GRANT, "imds": "yes"}, "imds"),
        ("/v1/grants", {**GRANT, "ttl_seconds": 0}, "ttl_seconds"),
        ("/v1/grants", {**GRANT, "ttl_seconds": -1}, "ttl_seconds"),
        ("/v1/grants", {**GRANT, "ttl_seconds": 1.5}, "ttl_seconds"),
        ("/v1/grants", {**GRANT, "duration_seconds": 899}, "duration_seconds"),
        ("/v1/grants", {**GRANT, "region": f"eu-west-1/{CANARY}"}, "region"),
        ("/v1/grants", {**GRANT, "policy": "x" * 2049}, "policy"),
        ("/v1/grants", {**GRANT, "policy_arns": [CANARY]}, "policy_arns.0"),
        ("/v1/grants", {**GRANT, "policy_arns": CANARY}, "policy_arns"),
        ("/v1/grants", {**GRANT, "token_code": 123456}, "token_code"),
        ("/v1/grants", {**GRANT, "token_code": ""}, "token_code"),
        ("/v1/grants", {**GRANT, "tll_seconds": CANARY}, "tll_seconds"),
        ("/v1/grants", {**GRANT, "a\x1b[2J": CANARY}, "a?[2J"),
        ("/v1/prompts", {"identity": 7}, "identity"),
        ("/v1/prompts/x", {}, "token_code"),
        ("/v1/profiles/web-admin/refresh", {"code": CANARY}, "code"),
        ("/v1/identities", {**IDENTITY, "name": "a/b"}, "name"),
        ("/v1/identities", {**IDENTITY, "name": "a\u202eb"}, "name"),
        ("/v1/identities", {**IDENTITY, "AccessKeyId": CANARY}, "AccessKeyId"),
        ("/v1/identities", {**IDENTITY, "SecretAccessKey": ["x", CANARY]}, "SecretAccessKey"),
        ("/v1/identities", {**IDENTITY, "MfaSerial": f"{CANARY} x"}, "MfaSerial"),
        ("/v1/unlock", {"passphrase": {"x": CANARY}}, "passphrase"),
        ("/v1/unlock", {"accept_rollback": 1}, "accept_rollback"),
    ],
)
async def test_a_malformed_body_names_the_field_and_never_its_value(
    started: Started, path: str, body: dict[str, Any], field: str
) -> None:
    """400 BadRequest naming the field; the value may be a secret and is not echoed."""
    answer = await started.call("POST", path, body)

    assert (answer.status, answer.body["code"], answer.body["exit"]) == (400, "BadRequest", 1)
    assert (answer.body["field"], answer.body["message"][: len(field) + 7]) == (field, f"field {field}:")
    assert CANARY not in json.dumps(answer.body)


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/v1/identities", {**IDENTITY, "name": "-x"}, "give a name of 1 to 128 characters without / and"),
        ("/v1/identities", {**IDENTITY, "name": "a\\b"}, "give a name of 1 to 128 characters without / and"),
        ("/v1/identities", {**IDENTITY, "name": ""}, "give a name of 1 to 128 characters without / and"),
        ("/v1/identities", {**IDENTITY, "AccessKeyId": "x"}, "an access key id is 16 to 128 capital letters"),
        ("/v1/identities", {**IDENTITY, "MfaSerial": "x y"}, "an MFA device is named by its ARN"),
        ("/v1/grants", {**GRANT, "region": "x"}, "a region is written like eu-west-1"),
        ("/v1/grants", {**GRANT, "kind": "x"}, "it is one of exec, shell and lease"),
        ("/v1/grants", {**GRANT, "duration_seconds": 60}, "sessions of 900 to 43200 seconds are what AWS gives"),
    ],
)
async def test_a_malformed_field_is_told_in_words(started: Started, path: str, body: dict[str, Any], said: str) -> None:
    """A person reads it through vault-client: no pattern, no name of a checker."""
    message = (await started.call("POST", path, body)).body["message"]

    field = next(name for name, value in body.items() if value != {**IDENTITY, **GRANT}.get(name))
    assert message.startswith(f"field {field}: {said}")
    assert not re.search(r"string|pattern|input|\^", message)


@pytest.mark.parametrize("raw", [b"{", b"\xff\xfe", b'"\xed\xa0\x80"', b'{"passphrase": "\\ud800"}', b"[" * 60_000])
async def test_what_is_not_json_is_said_to_be_none(started: Started, raw: bytes) -> None:
    """No byte of it comes back; deep nesting and lone surrogates are no crash."""
    answer = await started.call("POST", "/v1/unlock", raw)

    assert answer.status == 400
    assert answer.body["message"] == "the body is not JSON in UTF-8: send one JSON object"


@pytest.mark.parametrize("raw", [b"[]", b"7", b'"x"', b"null"])
async def test_json_that_is_no_object(started: Started, raw: bytes) -> None:
    """The body is one JSON object."""
    answer = await started.call("POST", "/v1/unlock", raw)

    assert (answer.status, answer.body["message"]) == (
        400, "the body is not a JSON object: send one JSON object",
    )  # fmt: skip


async def test_a_body_over_64_kib_is_refused(started: Started) -> None:
    """security.md §2.1 item 10."""
    answer = await started.call("POST", "/v1/unlock", {"passphrase": "x" * 70_000})

    assert (answer.status, answer.body["code"]) == (400, "BadRequest")
    assert answer.body["message"] == "the body is over 65536 bytes: send less"


@pytest.mark.parametrize(
    "raw",
    [
        b"canary-4711\r\n\r\n",
        b"POST /v1/unlock HTTP/1.1\r\nHost: vaultd\r\nBad Header canary-4711\r\n\r\n",
        b"POST /v1/unlock HTTP/1.1\r\nHost: vaultd\r\nX: " + b"canary-4711" * 1000 + b"\r\n\r\n",
        b"POST /v1/unlock HTTP/1.1\r\nHost: vaultd\r\nTransfer-Encoding: chunked\r\n\r\ncanary-4711\r\n\r\n",
    ],
)
async def test_what_cannot_be_parsed_is_neither_echoed_nor_logged(
    started: Started, raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """security.md §0.5: aiohttp puts request bytes into the 400 and the log; a broken request may hold a passphrase."""
    async with Line(started) as line:
        line.writer.write(raw)
        answer = await line.answer()

    assert (answer.status, answer.body["code"], answer.body["exit"]) == (400, "BadRequest", 1)
    assert CANARY not in json.dumps(answer.body) + caplog.text


async def test_an_error_of_ours_is_500_without_detail(
    started: Started, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An unknown exception is InternalError without detail, with the traceback in the log (architecture.md §9)."""

    def broken() -> None:
        raise RuntimeError("canary-4711")

    monkeypatch.setattr(started.daemon.desk, "open_questions", broken)
    answer = await started.call("GET", "/v1/prompts")

    assert answer.status == 500
    assert answer.body == {
        "code": "InternalError", "exit": 1, "message": "vaultd made an error: type `vaultd logs` for the traceback",
    }  # fmt: skip
    assert "RuntimeError" in caplog.text


# ---- strings ----


async def test_every_string_is_fit_for_a_terminal(tmp_path: Path) -> None:
    """interface.md §6: free of C0, C1, bidi and line separators, and at most 200 characters, already on the wire."""
    house = House(tmp_path)
    name = "evil\x9b31m\u202e\u2066" + "n" * 300
    house.profiles(
        f"[profile {name}]\nsource_profile = identity\nrole_arn = {ROLE}\nmfa_serial = {SERIAL}\n"
        f"[profile lost\u202e]\nsource_profile = gone\u202e{'x' * 300}\nrole_arn = {ROLE}\n"
    )
    async with house.run() as started:
        await started.add()
        needed = await started.call("POST", "/v1/grants", {"profile": name, "kind": "lease"})
        assert needed.status == 409, needed
        found: list[Any] = [needed.body["prompt"], await started.ok("GET", "/v1/prompts")]
        await started.ok("POST", f"/v1/prompts/{needed.body['prompt']['id']}", {"token_code": "123456"})
        await started.ok("POST", "/v1/grants", {"profile": name, "kind": "lease"})
        lists = ("/v1/grants", "/v1/profiles", "/v1/identities", "/v1/status")
        found.extend([await started.ok("GET", path) for path in lists])
        messages = [(await started.refused("GET", "/v1/profiles/x%1b%e2%80%ae/plan"))[1]]

    texts = strings(found)
    assert any(each.startswith("evil?") for each in texts)
    assert [each for each in texts if shown(each) != each] == []
    assert [each for each in strings(messages) if shown(each, limit=1000) != each] == []


async def test_a_profile_of_any_name_can_be_asked_for(tmp_path: Path) -> None:
    """A name with blanks, slashes or letters beyond ASCII travels as one escaped segment."""
    house = House(tmp_path)
    house.profiles(f'[profile "team prod/ü"]\nsource_profile = identity\nrole_arn = {ROLE}\n')
    async with house.run() as started:
        await started.add()
        plan = await started.ok("GET", "/v1/profiles/team%20prod%2F%C3%BC/plan")

    assert plan["profile"] == "team prod/ü"


async def test_a_profile_of_our_own_credential_process_is_no_error(tmp_path: Path) -> None:
    """docs/export.md's own line: `list` has the session of the profile that it asks us for, and no trouble. Whoever
    wants the profile itself is told which one serves it; it is no second name beside `protected`.
    """
    house = House(tmp_path)
    line = "credential_process = vault-client credential-process web-admin"
    house.profiles(f"{PROFILES}[profile keys]\n{line}\n[profile other]\ncredential_process = /bin/x\n")
    async with house.run() as started:
        await started.with_session()
        await started.ok("POST", "/v1/grants", LEASE)
        rows = {each["profile"]: each for each in (await started.ok("GET", "/v1/profiles"))["profiles"]}
        _, refused = await started.refused("POST", "/v1/grants", {**LEASE, "profile": "keys"})
        at_work = [(await started.ok("GET", "/v1/status"))["profiles"] for _ in "12"]

    assert [[each["profile"] for each in rows] for rows in at_work] == [
        ["web-admin", "looped", "looped-too", "other"]
    ] * 2
    assert rows["keys"] == {**rows["web-admin"], "profile": "keys"}
    assert (rows["keys"]["state"], rows["keys"]["last_error"]) == ("fresh", None)
    assert rows["other"]["state"] == "error"  # control
    assert refused["exit"] == 78
    assert refused["message"].endswith(": vaultd serves it through web-admin, so type `vault-client use web-admin`.")


async def test_one_profile_can_be_asked_for_alone(started: Started) -> None:
    """`?profile=`: a shell's prompt does not read a thousand rows; no such profile is no row."""
    every = (await started.ok("GET", "/v1/profiles"))["profiles"]

    assert len(every) > 1  # control
    found = (await started.ok("GET", f"/v1/profiles?profile={every[0]['profile']}"))["profiles"]
    assert [row["profile"] for row in found] == [every[0]["profile"]]
    assert (await started.ok("GET", "/v1/profiles?profile=nope"))["profiles"] == []


async def test_a_thousand_profiles_are_planned_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 3, speed: `list` of 1,000 profiles builds each plan once per snapshot, and a second one none."""
    made = []

    def counted(*args: Any) -> Any:
        made.append(args[3])
        return make_plan(*args)

    monkeypatch.setattr("vaultd.catalog.make_plan", counted)
    house = House(tmp_path)
    house.profiles("".join(f"[profile p{n}]\nsource_profile = identity\nrole_arn = {ROLE}\n" for n in range(1000)))
    async with house.run() as started:
        await started.add()
        made.clear()
        first = await started.ok("GET", "/v1/profiles")
        assert len(first["profiles"]) == len(made) == 1000
        assert await started.ok("GET", "/v1/profiles") == first
        assert len(made) == 1000
