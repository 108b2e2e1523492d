"""A short soak, and that a soak sees what it is there to see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tests.process.harness import short_directory
from tests.sdk.soak import Failure, Report, Row, Sample, soak, table
from tests.sdk.stage import Part


@pytest.mark.sdk
def test_a_short_soak() -> None:
    """Two SDKs through both dialects live through sessions of 45 s: no goal is missed."""
    with short_directory() as directory:
        report = soak(directory, clients=("go-v2", "js-v3"), seconds=75.0, pause=1.0)

    assert report.missed() == [], table(report)
    assert all(row.assumed >= 3 for row in report.rows), table(report)
    assert all(row.keys >= 2 for row in report.rows), table(report)
    asking = [row for row in report.rows if row.part.dialect == "ecs"]  # 45 s are within their window of 5 minutes
    assert all(row.gets >= row.calls for row in asking), table(report)


@pytest.mark.sdk
def test_a_daemon_that_stops_is_seen() -> None:
    """Positive control: without it calls fail, each is told with its time and the SDK's own words."""
    with short_directory() as directory:
        report = soak(directory, clients=("go-v2",), dialects=("ecs",), seconds=20.0, pause=0.5, stop_halfway=True)

    assert [row.failed for row in report.rows] == [len(report.failures)]
    assert report.failures
    assert "connection refused" in report.failures[0].text
    assert report.missed() == [f"{len(report.failures)} calls failed"]


# ---- the goals, without any SDK ----

PART = Part("boto3", "ecs", 900)
ROW = Row(part=PART, version="1", calls=800, failed=0, gets=800, assumed=85, keys=40, life=45.0, seconds=1800.0)
GOOD = Report(
    seconds=1800.0,
    scale=20.0,
    rows=(ROW,),
    failures=(),
    samples=(Sample(0, 80.0, 20), Sample(300, 84.0, 24), Sample(1800, 85.0, 26)),
    ops={"AssumeRole": 85, "GetSessionToken": 1},
    codes=1,
    asked=1,
)
FAILED = Failure("boto3-ecs-900", datetime(2026, 11, 22, 20, tzinfo=UTC), "no credentials")


def _grown(rss: float, fds: int) -> Sequence[Sample]:
    return (*GOOD.samples[:2], Sample(1800, rss, fds))


def test_goals_reached() -> None:
    """84 renewals in 40 lives are 2.1 a life."""
    assert GOOD.missed() == []
    assert "| boto3 | 1 | ecs | 45 s | 800 | 0 | 800 | 1600 | 85 | 2.10 | 40 |" in table(GOOD)


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (replace(GOOD, failures=(FAILED,)), "1 calls failed"),
        (replace(GOOD, rows=(replace(ROW, assumed=100),)), "2.48 AssumeRole calls a life"),
        (replace(GOOD, rows=(replace(ROW, gets=0),)), "no keys were served"),
        (replace(GOOD, rows=(replace(ROW, calls=0),)), "made no call"),
        (replace(GOOD, codes=2), "2 codes were sent"),
        (replace(GOOD, asked=2), "2 questions were asked"),
        (replace(GOOD, samples=_grown(94.0, 26)), "24.0 MB an hour"),
        (replace(GOOD, samples=_grown(85.0, 40)), "16 more descriptors"),
    ],
)
def test_goals_missed(report: Report, said: str) -> None:
    """Each goal can be missed, and is then named."""
    (missed,) = report.missed()
    assert said in missed


def test_a_short_run_says_nothing_of_memory() -> None:
    """Before five minutes nothing has settled."""
    assert replace(GOOD, samples=(Sample(0, 80.0, 20), Sample(120, 99.0, 90))).missed() == []
