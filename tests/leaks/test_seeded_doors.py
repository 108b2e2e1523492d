"""Seeded leaks of what doors, holds and handed-over sockets hold: metadata keys, metadata tokens, replies with keys.

Rule: as in test_seeded.py. Each row runs twice: guarded it must give no canary; unguarded, which is the same attempt
with its one control taken away (a field that is shown, bytes in the reply's place, a reader that echoes), it must.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import START, FakeClock
from tests.leaks.canary import Canaries
from tests.leaks.test_seeded import attempted
from tests.link_local.rig import handing, offer
from vaultd.engine.grant_records import Door, Grant, grant_of, stored_of
from vaultd.engine.grants import Grants
from vaultd.errors import MfaRequired
from vaultd.files import Files
from vaultd.model import metadata_tokens
from vaultd.model.credentials import RoleSession
from vaultd.model.dialects import ecs_reply
from vaultd.model.imds_dialect import metadata_reply
from vaultd.model.plan import Overrides
from vaultd.model.secret import Secret
from vaultd.web.hold import Ended, last_chunk
from vaultd.web.replies import Reply
from vaultd.web.serving import Rendered, Served

Row = Callable[[Canaries], object]


def grant_with(canaries: Canaries) -> Grant:
    digest = sha256(b"token").digest()
    return Grant(
        "g1", "p", "p", "lease", True, digest, None, Overrides(), START, START + timedelta(hours=1), None, None,
        metadata_key=bytes.fromhex(canaries.values["metadata_key"]), door=Door("127.0.0.1", 1),
    )  # fmt: skip


def shown_grant(canaries: Canaries) -> object:
    """The same fields in a dataclass that hides none."""
    grant = grant_with(canaries)
    plain = dataclasses.make_dataclass("Plain", [each.name for each in dataclasses.fields(grant)])
    return plain(**{each.name: getattr(grant, each.name) for each in dataclasses.fields(grant)})


def session_of(canaries: Canaries) -> RoleSession:
    key, token = (Secret(canaries.values[name]) for name in ("secret_key", "session_token"))
    return RoleSession("ASIACANARYCANARY1234", key, token, START, START + timedelta(hours=1), "123456789012")


def message(canaries: Canaries) -> bytes:
    return ecs_reply(session_of(canaries))


def token_reply(canaries: Canaries) -> bytes:
    return metadata_reply(canaries.values["metadata_token"].encode(), headers={})


def rendered(canaries: Canaries) -> list[object]:
    """The bytes at hand for a session, and what keeps them there."""
    found, held = Rendered(ecs_reply), session_of(canaries)
    found.message(held)
    return [found, held]


def opened(canaries: Canaries) -> str:
    """The same with its table shown."""
    found, held = rendered(canaries)
    return repr(vars(found)) + repr(held)


def bad_key(canaries: Canaries) -> str:
    stored = {**stored_of(grant_with(canaries), None), "metadata_key": canaries.values["metadata_key"] + "zz"}
    try:
        grant_of(stored)
    except ValueError as exc:
        return repr(exc)
    raise AssertionError("it is damaged")


def served(canaries: Canaries) -> Served:
    return Served(grant_with(canaries), None, session_of(canaries), message(canaries))  # type: ignore[arg-type]


#: name → what is tried, and the same without its control
ROWS: dict[str, tuple[Row, Row]] = {
    "repr of a grant": (lambda c: repr(grant_with(c)), lambda c: repr(shown_grant(c))),
    "grants in a list": (lambda c: str([{"a": (grant_with(c),)}]), lambda c: str([{"a": (shown_grant(c),)}])),
    "a grant in an error": (
        lambda c: repr(MfaRequired("x", grant=grant_with(c)).details),
        lambda c: repr(shown_grant(c)),
    ),
    "a grant with another field": (
        lambda c: repr(dataclasses.replace(grant_with(c), profile="q")),
        lambda c: repr(shown_grant(c)),
    ),
    "a key that is damaged in grants.json": (bad_key, lambda c: repr(ValueError(stored_of(grant_with(c), None)))),
    "repr of a token's reply": (lambda c: repr(Reply(token_reply(c))), lambda c: repr(token_reply(c))),
    "repr of a reply with keys": (lambda c: repr(Reply(message(c))), lambda c: repr(message(c))),
    "repr of what is served": (lambda c: repr(served(c)), lambda c: repr(tuple(served(c)))),
    "repr of what was rendered": (lambda c: repr(rendered(c)), opened),
    "repr of a hold's end": (
        lambda c: repr(Reply(last_chunk(message(c)), keep=False)),
        lambda c: repr(last_chunk(message(c))),
    ),
    "a hold's outcome": (
        lambda c: repr(Ended(error=MfaRequired("type it", session=session_of(c)))),
        lambda c: repr([c.values["session_token"]]),
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_it_does_not_get_out(row: str) -> None:
    """No repr, error or container of ours shows a metadata key, a metadata token, or a reply's bytes."""
    guarded, unguarded = ROWS[row]
    canaries = Canaries.random()

    assert canaries.scan(str(guarded(canaries))) == []
    assert canaries.scan(str(unguarded(canaries))), "positive control: without the control it leaks on this way"


def test_a_metadata_key_is_in_its_file_and_nowhere_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """grants.json carries it (SECURITY.md, "Where secrets may be"): no repr, no wire, no log line, no other file."""
    caplog.set_level(logging.DEBUG)
    (tmp_path / "grants").mkdir(mode=0o700)
    canaries = Canaries.random()
    key = canaries.values["metadata_key"]
    grants = Grants(
        files=Files(), path=tmp_path / "grants.json", tokens=tmp_path / "grants", clock=FakeClock(),
        max_age=timedelta(days=1), idle_timeout=timedelta(days=1), boot_id="b", alive=lambda _: True,
        on_revoke=lambda grant, reason: None,
    )  # fmt: skip
    grant, _ = grants.create(
        profile="p", slug="p", kind="lease", ttl=None, overrides=Overrides(), role_arn=None, bound=None, peer=None,
        door=Door("127.0.0.1", 1), metadata_key=bytes.fromhex(key),
    )  # fmt: skip
    grants.entered(grant.id)
    again = Grants(
        files=Files(), path=tmp_path / "grants.json", tokens=tmp_path / "grants", clock=FakeClock(),
        max_age=timedelta(days=1), idle_timeout=timedelta(days=1), boot_id="b", alive=lambda _: True,
        on_revoke=lambda grant, reason: None,
    )  # fmt: skip
    again.load()
    shown = [grant, grants, vars(grants), json.dumps(grants.wire(grant)), again.list(), grants.list()]

    assert canaries.scan(repr(shown)) == []
    assert canaries.scan(caplog.text) == []
    assert canaries.scan_path(tmp_path, besides=[tmp_path / "grants.json"]) == []
    assert {hit.canary for hit in canaries.scan_path(tmp_path)} == {"metadata_key"}, "positive control"
    assert again.get(grant.id).metadata_key == bytes.fromhex(key)


def test_a_grants_file_that_is_damaged_does_not_tell(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The start refuses and names the place; what stands there is not quoted, in any of its forms."""
    caplog.set_level(logging.DEBUG)
    (tmp_path / "grants").mkdir(mode=0o700)
    canaries = Canaries.random()
    stored = stored_of(grant_with(canaries), None)
    key = canaries.values["metadata_key"]
    for broken in (key + "zz", key[:-1], [key], {key: 1}, key + "00"):
        (tmp_path / "grants.json").write_text(
            json.dumps({"version": 1, "grants": [{**stored, "metadata_key": broken}]})
        )
        (tmp_path / "grants.json").chmod(0o600)
        grants = Grants(
            files=Files(), path=tmp_path / "grants.json", tokens=tmp_path / "grants", clock=FakeClock(),
            max_age=timedelta(days=1), idle_timeout=timedelta(days=1), boot_id="b", alive=lambda _: True,
            on_revoke=lambda grant, reason: None,
        )  # fmt: skip
        with pytest.raises(Exception, match=r"cannot be understood") as raised:
            grants.load()
        assert canaries.scan(f"{raised.value!r} {raised.value}") == []
    assert canaries.scan(caplog.text) == []
    assert canaries.scan((tmp_path / "grants.json").read_bytes()), "positive control: it stands there"


def test_a_token_tells_nothing_of_its_key() -> None:
    """And its check names nothing of what it was given."""
    canaries = Canaries.random()
    key = bytes.fromhex(canaries.values["metadata_key"])
    tokens = [metadata_tokens.make(key, expiry=START, nonce=os.urandom(9)) for _ in range(100)]

    assert canaries.scan(b" ".join(tokens)) == []
    assert canaries.scan(key), "positive control"
    for bad in (b"\xff" * 56, canaries.values["metadata_token"].encode()[:-1], b""):
        assert attempted(lambda bad=bad: metadata_tokens.check(key, bad, START)) == "False"  # type: ignore[misc]


HOSTILE: dict[str, Callable[[str], Any]] = {
    "no JSON": lambda canary: f"{canary}\n".encode(),
    "a key of its own": lambda canary: {**offer(), canary: canary},
    "a dialect": lambda canary: {**offer(), "dialect": canary},
    "a profile": lambda canary: offer(profile=canary + "\x1b[31m"),
    "a protocol": lambda canary: {**offer(), "protocol": canary},
    "a long line": lambda canary: (canary * 300).encode(),
    "bytes": lambda canary: b"\xff" + canary.encode() + b"\n",
}


@pytest.mark.parametrize("name", ["grant_token", "metadata_token", "passphrase"])
@pytest.mark.parametrize("way", HOSTILE)
async def test_doors_sock_does_not_tell(way: str, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is sent to doors.sock is neither answered back nor logged; a profile's name is what the answer may name."""
    caplog.set_level(logging.DEBUG)
    canaries = Canaries.random()
    sent = HOSTILE[way](canaries.values[name])
    async with handing(tmp_path) as rig:
        with rig.listener() as sock:
            said = json.dumps(await rig.told(sent, [sock.fileno()]))

    if way != "a profile":
        assert canaries.scan(said) == []
    assert canaries.scan(caplog.text) == []
    assert canaries.scan(repr(sent)), "positive control: it was sent"
    assert "\x1b" not in said


def test_there_are_enough() -> None:
    """Metadata keys, metadata tokens, holds, doors.sock: each by several ways."""
    assert len(ROWS) + len(HOSTILE) + 3 >= 20
