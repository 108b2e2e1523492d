"""How often SDKs ask, and that asking costs AWS nothing (docs/sdk-freshness.md has every client's numbers)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.harness import MovedClock, short_directory
from tests.sdk.freshness import HOUR, QUARTER, Hours, Window, hours, idle, windows

#: Two virtual hours tell all there is: the second session is served in the first, the third in the second.
COUNT = 2
#: Never more for keys of an hour: renewed half an hour before their end, asked for again a quarter of an hour before it
#: at the earliest (botocore), an SDK has them for 15 minutes at least. C++ asks every 5 minutes, whatever is left.
MOST_GETS, MOST_GETS_CPP = 4, 13
#: A life is renewed at its half, up to 10 % of that earlier, and the daemon lives in pieces of 5 s.
MOST_PER_LIFE = 2.3


@pytest.fixture(scope="module")
def directories() -> Iterator[list[Path]]:
    with short_directory() as first, short_directory() as second, short_directory() as third:
        yield [first, second, third]


@pytest.fixture(scope="module")
def lived(directories: list[Path]) -> tuple[list[Hours], int]:
    """An SDK of each kind of refresh that the preload moves, through both dialects."""
    clock = MovedClock.build(directories[0])
    clients = ("boto3", "js-v3", "java-v2", "rust", "pyarrow")
    return hours(directories[0], clock, clients=clients, count=COUNT)


@pytest.fixture(scope="module")
def seen(directories: list[Path]) -> list[Window]:
    clients = ("boto3", "go-v2", "go-v1", "rust", "awscrt", "pyarrow", "obstore")
    return windows(directories[1], clients=clients, dialects=("ecs",), lefts=(1500, 960, 840, 450, 240))


def _loses_keys(row: Hours) -> bool:
    """On IMDS botocore keeps keys for up to 10 minutes; those of a 900 s role can have 7.5 left when served."""
    return row.part.client == "boto3" and row.part.dialect == "imds" and row.part.life == QUARTER


@pytest.mark.sdk
def test_nobody_fails(lived: tuple[list[Hours], int]) -> None:
    """A call a minute, for hours: none fails, and one code was enough for all of them."""
    rows, codes = lived
    assert {row.part.profile: row.failed for row in rows if row.failed and not _loses_keys(row)} == {}
    assert {row.calls for row in rows} == {COUNT * 60}
    assert codes == 1


@pytest.mark.sdk
def test_who_asks_costs_aws_nothing(lived: tuple[list[Hours], int]) -> None:
    """AssumeRole follows the session's life, never the GETs: botocore asks on each use of a 900 s role."""
    rows, _ = lived
    assert all(row.assumed <= MOST_PER_LIFE * COUNT * 3600 / row.part.life + 1 for row in rows), rows
    (loop,) = (row for row in rows if (row.part.client, row.part.dialect, row.part.life) == ("boto3", "ecs", QUARTER))
    assert loop.gets >= COUNT * 55  # the control: there is somebody who asks without end
    assert loop.assumed < loop.gets / 4


@pytest.mark.sdk
def test_keys_of_an_hour_are_asked_for_seldom(lived: tuple[list[Hours], int]) -> None:
    """Outside its window an SDK comes at most so often; what it gets has 25 minutes, of a 900 s role the half."""
    rows, _ = lived
    for row in rows:
        if row.part.life == HOUR:
            most = MOST_GETS_CPP if row.part.client == "pyarrow" else MOST_GETS
            assert 0 < row.gets_an_hour <= most, row
            assert row.least >= 25 * 60, row
        else:
            assert row.least >= QUARTER / 2 - 10, row


@pytest.mark.sdk
def test_the_windows(seen: list[Window]) -> None:
    """With 25 minutes left nobody asks again, with the 7.5 of a 900 s role only botocore; the windows are real."""
    asks = {(row.part.client, row.left): row.asks for row in seen}
    clients = {row.part.client for row in seen}

    assert [row for row in seen if row.failed or not row.first] == []
    assert [each for each in clients if asks[each, 1500] or asks[each, 960]] == []
    assert [each for each in clients if asks[each, 840]] == ["boto3"]
    assert [each for each in clients if asks[each, 450]] == ["boto3"]
    assert {each for each in clients if asks[each, 240]} == {"boto3", "go-v2", "go-v1", "awscrt", "obstore"}


@pytest.mark.sdk
def test_idle(directories: list[Path]) -> None:
    """A grant that nobody uses is left alone after half an hour: its first GET waits for a session that has 25 min."""
    rows = idle(directories[2], MovedClock.build(directories[2]), minutes=(45, 80, 100))
    assert rows[0].left >= 25 * 60
    assert all(row.left >= 59 * 60 for row in rows[1:]), rows
