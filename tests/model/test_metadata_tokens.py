"""Rules of model/metadata_tokens.py: stateless, bound to one key, good until their second and no longer."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from vaultd.model.metadata_tokens import LONGEST_TTL, NONCE_SIZE, check, make

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
KEY, OTHER = b"k" * 32, b"o" * 32


def token(*, seconds: int = 60, key: bytes = KEY) -> bytes:
    return make(key, expiry=NOW + timedelta(seconds=seconds), nonce=secrets.token_bytes(NONCE_SIZE))


@given(st.integers(1, LONGEST_TTL))
def test_a_token_is_good_for_its_ttl(seconds: int) -> None:
    """From its first moment to the last before its end; nothing is kept of it in between."""
    made = token(seconds=seconds)
    assert check(KEY, made, NOW)
    assert check(KEY, made, NOW + timedelta(seconds=seconds - 1))
    assert not check(KEY, made, NOW + timedelta(seconds=seconds))


def test_a_token_is_of_one_key() -> None:
    """Another grant's token is as wrong as any other bytes."""
    assert check(OTHER, token(key=OTHER), NOW)
    assert not check(KEY, token(key=OTHER), NOW)


def test_a_token_fits_into_a_header_field() -> None:
    """One spelling of 56 URL-safe characters (the CRT takes no more than 64), never the same twice."""
    made = {token() for _ in range(50)}
    assert len(made) == 50
    assert {len(each) for each in made} == {56}
    assert all(each.replace(b"-", b"").replace(b"_", b"").isalnum() for each in made)


@given(st.integers(0, 75), st.sampled_from(list(b"AZaz09-_+/= \n\x00\xff")))
def test_a_changed_token_is_none(place: int, changed: int) -> None:
    """Any other byte anywhere, the other alphabet of base64 included: no."""
    made = token()
    other = made[:place] + bytes([changed]) + made[place + 1 :]
    assert check(KEY, other, NOW) == (other == made)


@given(
    st.binary(max_size=120)
    | st.binary(min_size=56, max_size=56)
    | st.text("AB-_=", min_size=56, max_size=56).map(str.encode)
)
def test_garbage_is_just_no(garbage: bytes) -> None:
    """Whatever a client sends is answered with False and never raises."""
    assert check(KEY, garbage, NOW) is False


def test_a_longer_life_cannot_be_written_into_one() -> None:
    """The end is under the MAC: the claims of one with the MAC of another are none."""
    short, long = token(seconds=1), token(seconds=LONGEST_TTL)
    assert not check(KEY, long[:36] + short[36:], NOW)
    assert check(KEY, long, NOW)
