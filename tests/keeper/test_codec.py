"""What is kept reads back as it was; what does not read counts as absent."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultd.engine.seams import Head
from vaultd.errors import StoreDamaged
from vaultd.keeper import codec
from vaultd.model.credentials import IdentityKey, MfaHandle, MfaSession, RoleSession
from vaultd.model.secret import Secret

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
secrets_ = texts.map(Secret)
times = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
sessions = st.builds(RoleSession, texts, secrets_, secrets_, times, times, texts, st.none() | texts)
handles = st.builds(MfaHandle, texts, st.none() | texts, times, times)
mfa_sessions = st.builds(MfaSession, handles, texts, secrets_, secrets_)


@given(sessions)
def test_role_sessions_round_trip(session: RoleSession) -> None:
    """Every field, whatever AWS puts into it."""
    assert codec.session_of(codec.session_record(session)) == session


def test_no_field_of_a_role_session_is_left_out() -> None:
    """A new field must find its way into the record: with every field its own value, none may be missing from it."""
    now = datetime(2026, 11, 22, tzinfo=UTC)
    session = RoleSession("AKID", Secret("se"), Secret("to"), now, now, "1", "arn", "name", 7, "request")

    assert len(json.loads(codec.session_record(session))) == len(fields(session)) + 1


@given(mfa_sessions, texts)
def test_mfa_sessions_round_trip(session: MfaSession, region: str) -> None:
    """With the region, to the microsecond: the handle above the keeper must still mean it after a restart."""
    assert codec.mfa_of(codec.mfa_record(session, region=region)) == (session, region)


def test_a_6_kb_token_round_trips() -> None:
    """F6: the size of a session token is unbounded by contract (aws-facts §1.1)."""
    now = datetime.now(UTC)
    session = RoleSession("A", Secret("s"), Secret("t" * 6144), now, now + timedelta(hours=1), "1")

    assert codec.session_of(codec.session_record(session)) == session


def test_small_records_round_trip() -> None:
    """Head, seconds, data key."""
    key = codec.new_data_key()

    assert codec.head_of(codec.head_record(Head(3, "ab"))) == Head(3, "ab")
    assert codec.seconds_of(codec.seconds_record(3540)) == 3540
    assert codec.data_key_of(codec.data_key_item(key)) == key
    assert len(key.reveal_bytes()) == 32
    assert codec.new_data_key() != key


@pytest.mark.parametrize("record", [b"", b"[]", b"{}", b'{"v":2}', b'{"v":1}', b"\xff", b'{"v":1,"issued":3}'])
def test_what_does_not_read_is_absent(record: bytes) -> None:
    """A later version's record is no crash."""
    assert codec.session_of(record) is None
    assert codec.mfa_of(record) is None
    assert codec.head_of(record) is None
    assert codec.seconds_of(record) is None


def test_a_time_without_zone_is_absent() -> None:
    """It could not be compared with the clock's."""
    now = datetime.now(UTC)
    session = RoleSession("A", Secret("s"), Secret("t"), now, now, "1")

    assert codec.session_of(codec.session_record(session).replace(b"+00:00", b"")) is None


@pytest.mark.parametrize("item", ["", "x", "YWJj", "not base64 at all!"])
def test_a_data_key_of_another_shape_is_damage(item: str) -> None:
    """It is not replaced silently: all sessions and codes hang on it."""
    with pytest.raises(StoreDamaged, match="the store's data key is damaged"):
        codec.data_key_of(Secret(item or " "))


def test_an_identity_item_fits_every_keyring() -> None:
    """security.md §3.1: under 400 bytes, Windows' limit is 1,280 characters."""
    item = codec.key_item(IdentityKey("n", "A" * 20, Secret("s" * 40)), uuid="0" * 36)

    assert len(item.reveal_bytes()) < 400
