"""The routes of an import: bodies, states, and what an adoption changes in the rest of the daemon."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.store.aws_vault.craft import item, message
from tests.store.aws_vault.make import PASSPHRASE, stored
from tests.web.control import KEY_ID, SECRET, House, Started

LIST, ADOPT, DISCARD = (f"/v1/imports/aws-vault{each}" for each in ("", "/adopt", "/discard"))


def sealed(name: str, *, key_id: str = KEY_ID, **fields: str) -> str:
    return message(item(name, AccessKeyID=key_id, SecretAccessKey=SECRET, **fields)).decode()


@pytest.fixture
async def started(tmp_path: Path) -> AsyncIterator[Started]:
    async with House(tmp_path).run() as started:
        yield started


@pytest.fixture
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = {"identity": sealed("identity"), "torn": "x", "ends": sealed("ends", SessionToken="t"),
             "\x1b[31mred": sealed("\x1b[31mred")}  # fmt: skip
    return stored(tmp_path_factory.mktemp("foreign"), files)


def body(keys: Path, **more: Any) -> dict[str, Any]:
    return {"backend": "file", "place": str(keys), "passphrase": PASSPHRASE, **more}


async def test_the_states(started: Started, keys: Path) -> None:
    """Names and last 4, fit for a terminal; no secret, no passphrase."""
    listed = {each["name"]: each for each in (await started.ok("POST", LIST, body(keys)))["keys"]}

    assert listed["identity"] == {
        "name": "identity", "identity": "identity", "access_key_id": KEY_ID[-4:], "state": "new", "like": "",
        "old": False, "message": "",
    }  # fmt: skip
    assert {name: each["state"] for name, each in listed.items()} == {
        "identity": "new", "torn": "wrong", "ends": "temporary", "?[31mred": "wrong",
    }  # fmt: skip
    assert listed["torn"]["message"].startswith("it is damaged")
    assert SECRET not in str(listed)
    await started.ok("POST", ADOPT, body(keys, name="identity"))
    named = await started.ok("POST", LIST, body(keys, names=["identity"]))
    assert [each["state"] for each in named["keys"]] == ["same"]


async def test_an_adoption_is_an_addition(started: Started, keys: Path) -> None:
    """Its profiles have plans from now on, and the audit log a line; adopted twice, no second one."""
    first = await started.call("POST", ADOPT, body(keys, name="identity"))
    second = await started.call("POST", ADOPT, body(keys, name="identity"))

    assert (first.status, second.status) == (201, 201)
    assert first.body == second.body
    assert first.body["access_key_id"] == KEY_ID[-4:]
    added = [line for line in started.house.audit() if line["event"] == "identity.add"]
    assert [(line["identity"], line["access_key_id"]) for line in added] == [("identity", KEY_ID[-4:])]
    assert await started.ok("POST", DISCARD, body(keys, name="identity")) == {}
    assert not (keys / "identity").exists()


async def test_comparing(started: Started, keys: Path) -> None:
    """Yes or no about one whole key; of a name that is not there, no; and who else has it."""
    await started.ok("POST", ADOPT, body(keys, name="identity"))
    key = {"AccessKeyId": KEY_ID, "SecretAccessKey": SECRET}

    no = {"same": False, "like": "", "old": False}
    for name, given, said in (
        ("identity", key, {"same": True}),
        ("nobody", key, {**no, "like": "identity"}),
        ("identity", {**key, "SecretAccessKey": "canary"}, no),
        ("identity", {**key, "AccessKeyId": "AKIAOTHER00000000001"}, no),
    ):
        assert await started.ok("POST", f"/v1/identities/{name}/compare", given) == said


@pytest.mark.parametrize(
    ("path", "wrong", "said"),
    [
        (LIST, {"backend": "kwallet"}, "field backend: it is one of file and secret-service"),
        (LIST, {"place": ""}, "field place: a directory or a collection has 1 to 4096 characters"),
        (LIST, {"place": "relative"}, "field place: a directory is given by its whole path"),
        (LIST, {"place": "/a\0b"}, "field place: a directory is given by its whole path"),
        (LIST, {"names": ["x"] * 501}, "field names: up to 500 names"),
        (LIST, {"names": "x"}, "field names"),
        (LIST, {"passphrase": ""}, "field passphrase: it must be a text that is not empty"),
        (LIST, {"token": "x"}, "field token"),
        (ADOPT, {}, "field name"),
        (ADOPT, {"name": ""}, "field name: a key's name has 1 to 1024 characters"),
        (DISCARD, {"name": 7}, "field name"),
        ("/v1/identities/identity/compare", {}, "field AccessKeyId"),
    ],
)
async def test_a_malformed_body(started: Started, keys: Path, path: str, wrong: dict[str, Any], said: str) -> None:
    """400 that names the field, and never repeats a value (interface.md §6)."""
    status, answer = await started.refused("POST", path, body(keys, **wrong))

    assert status == 400
    assert answer["message"].startswith(said), answer
    assert PASSPHRASE not in answer["message"]


async def test_what_the_store_refuses(started: Started, keys: Path, tmp_path: Path) -> None:
    """Each with its code and the client's exit status."""
    for path, given, expected in (
        (LIST, body(keys, passphrase="wrong"), (403, "WrongPassphrase", 1)),
        (LIST, body(tmp_path / "none"), (404, "NotFound", 1)),
        (ADOPT, body(keys, name="nobody"), (404, "NotFound", 1)),
        (ADOPT, body(keys, name="torn"), (400, "BadRequest", 1)),
        (DISCARD, body(keys, name="identity"), (409, "NotImported", 1)),
    ):
        status, answer = await started.refused("POST", path, given)
        assert (status, answer["code"], answer["exit"]) == expected
    _for_everybody(keys)
    status, answer = await started.refused("POST", LIST, body(keys))
    assert (status, answer["code"], answer["exit"]) == (422, "FileRefused", 78)


def _for_everybody(directory: Path) -> None:
    directory.chmod(0o777)
