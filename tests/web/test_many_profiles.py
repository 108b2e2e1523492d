"""`list` and `status` of many profiles: the loop that serves SDKs has its turn in between, and no row is made in vain.

Turns are counted, not timed: a row belongs to the turn of the loop in which its state was asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.web.control import PROFILES, ROLE, House, Started
from vaultd.model.plan import Plan
from vaultd.web.control_replies import SLICE, in_slices, long_reply

MANY = 200


class Turns:
    """Counts the turns of the loop, and how many rows are made in each."""

    def __init__(self) -> None:
        self.now = 0
        self.rows: Counter[int] = Counter()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(0)
            self.now += 1

    @contextlib.asynccontextmanager
    async def counting(self) -> AsyncIterator[Counter[int]]:
        """The rows by turn, of this span."""
        self.rows.clear()
        running = asyncio.ensure_future(self.run())
        await asyncio.sleep(0)  # it has begun
        try:
            yield self.rows
        finally:
            running.cancel()

    def row(self) -> None:
        self.rows[self.now] += 1


@pytest.fixture
async def started(tmp_path: Path) -> AsyncIterator[Started]:
    house = House(tmp_path)
    others = (
        f"[profile p{n}]\nsource_profile = identity\nrole_arn = arn:aws:iam::{n:012}:role/A\n" for n in range(MANY)
    )
    house.profiles(PROFILES + "".join(others))
    async with house.run() as running:
        await running.add()
        yield running


@pytest.fixture
def turns(started: Started, monkeypatch: pytest.MonkeyPatch) -> Turns:
    turns, state = Turns(), started.daemon.broker.state

    def counted(plan: Plan) -> Any:
        turns.row()
        return state(plan)

    monkeypatch.setattr(started.daemon.broker, "state", counted)
    return turns


@pytest.mark.parametrize("path", ["/v1/profiles", "/v1/status"])
async def test_a_slice_at_a_time(started: Started, turns: Turns, path: str) -> None:
    """At most SLICE rows in one turn of the loop, whoever asks for all of them."""
    async with turns.counting() as rows:
        await started.ok("GET", path)
        assert rows.total() >= MANY  # control: all were made
        assert max(rows.values()) <= SLICE
        assert len(rows) >= MANY // SLICE


async def test_status_looks_at_what_is_there(started: Started, turns: Turns) -> None:
    """Once at all profiles of a snapshot; then at those with a session or a fault, in the order of the file."""
    async with turns.counting() as rows:
        first = (await started.ok("GET", "/v1/status"))["profiles"]
        assert rows.total() >= MANY  # control
        assert [row["profile"] for row in first] == ["looped", "looped-too"]
        rows.clear()
        assert (await started.ok("GET", "/v1/status"))["profiles"] == first
        assert rows.total() == 0
    await started.ok("POST", "/v1/grants", {"profile": "p7", "kind": "lease", "token_code": "123456"})
    async with turns.counting() as rows:
        found = (await started.ok("GET", "/v1/status"))["profiles"]
        assert [(row["profile"], row["state"]) for row in found][2:] == [("p7", "fresh")]
        assert rows.total() == 1


async def test_a_question_is_the_state_of_all_profiles_of_its_device(started: Started) -> None:
    """They have no cell; and none of them is told any more when it is over."""
    before = (await started.ok("GET", "/v1/status"))["profiles"]
    refused = await started.call("POST", "/v1/grants", {"profile": "audit", "kind": "lease"})
    assert refused.status == 409
    during = {row["profile"]: row["state"] for row in (await started.ok("GET", "/v1/status"))["profiles"]}
    assert (during["web-admin"], during["audit"]) == ("mfa_required", "mfa_required")
    await started.ok("DELETE", f"/v1/prompts/{refused.body['prompt']['id']}")
    assert (await started.ok("GET", "/v1/status"))["profiles"] == before


async def test_every_row_is_answered_once(started: Started) -> None:
    """In the order of the file, and beside what else the list says; one profile alone costs one row."""
    body = await started.ok("GET", "/v1/profiles")
    assert list(body) == ["profiles", "trouble", "reminders"]
    names = [row["profile"] for row in body["profiles"]]
    assert names == ["web-admin", "audit", "looped", "looped-too", *(f"p{n}" for n in range(MANY))]
    assert body["profiles"][4]["role_arn"] == "arn:aws:iam::000000000000:role/A"
    assert body["profiles"][0]["role_arn"] == ROLE


async def test_a_row_that_is_a_slice_by_itself() -> None:
    """`alone`: for one that may have taken as long as a slice of others the loop has its turn after it."""
    turns = Turns()

    def rows() -> Iterator[int]:
        for number in range(3 * SLICE):
            turns.row()
            yield number

    async with turns.counting() as made:
        assert [row async for row in in_slices(rows())] == list(range(3 * SLICE))
        assert max(made.values()) == SLICE
        made.clear()
        assert [row async for row in in_slices(rows(), alone=lambda _: True)] == list(range(3 * SLICE))
        assert max(made.values()) == 1


async def test_a_long_reply_is_json() -> None:
    """Of no rows, too."""
    empty, two = await long_reply("rows", [], more=[1]), await long_reply("rows", [{"a": "é"}, {"b": None}])
    assert empty.body == b'{"rows": [], "more": [1]}'
    assert two.body == b'{"rows": [{"a": "\\u00e9"}, {"b": null}]}'
