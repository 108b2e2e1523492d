"""Rotations of a real daemon, killed by SIGKILL: what stands at AWS then, and how they are gone on with."""

from __future__ import annotations

import pytest

from tests.process.harness import Emulator, Home
from tests.process.rotations import POINTS, Point, Who, rotated

#: The whole table is `python -m tests.process.rotations`; here are the points where something has just changed.
KILLS: list[tuple[Who, Point]] = [
    *(("daemon", point) for point in POINTS if (point.op, point.when) in {
        ("", ""), ("CreateAccessKey", "before"), ("CreateAccessKey", "after"), ("UpdateAccessKey", "after"),
        ("DeleteAccessKey", "after")} and point.steps in {1, 2, 6, 7}),
    *(("keeper", point) for point in POINTS if point.op == "CreateAccessKey"),
]  # fmt: skip


@pytest.mark.parametrize(("who", "point"), KILLS, ids=lambda each: each if isinstance(each, str) else each.name)
def test_a_kill_costs_no_key_in_use(home: Home, emulator: Emulator, who: Who, point: Point) -> None:
    """Credentials are served at any point, and the end is one key; only an answer that was lost costs a new key."""
    row = rotated(home, emulator, point, who)

    old, new = row.killed.get("old"), row.killed.get("new")
    assert "Active" in {old, new}
    assert (old == "Active") or row.stage in {"swapped", "inactive"}
    assert row.said == ("named, --abandon, anew" if point.name == "after CreateAccessKey" else "gone on")
    assert row.end == {"new": "Active"}
