"""Reminders: which keys, which rotations, in which words; and when a step asks something of IAM."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from vaultd.model.credentials import Identity
from vaultd.model.reminders import reminders
from vaultd.model.rotation import GRACE, OLD, Rotation, Stage, Wish, calls_iam

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
FRANKLIN = Identity("franklin", "123456789012", "arn:aws:iam::123456789012:user/franklin", None, "WXYZ", NOW)
ROTATION = Rotation("inactive", "x", ("AKIAOLDOLDOLDOLDWXYZ",), NOW, new="AKIANEWNEWNEWNEWABCD")
WAY = "type `vault-client rotate franklin`"


@pytest.mark.parametrize(("age", "said"), [(OLD - timedelta(seconds=1), False), (OLD, True)])
def test_the_age(age: timedelta, said: bool) -> None:
    """From 90 days on; where AWS has not told, since it was stored: at least."""
    made = replace(FRANKLIN, key_created=NOW - age)
    stored = replace(FRANKLIN, created=NOW - age)

    assert reminders([made], NOW) == ([f"the key …WXYZ of franklin is 90 days old: {WAY}"] if said else [])
    assert reminders([stored], NOW) == ([f"the key …WXYZ of franklin is at least 90 days old: {WAY}"] if said else [])


@pytest.mark.parametrize(
    ("stage", "stray", "state"),
    [
        ("intent", (), "…WXYZ is in use, and a new key may have been made"),
        ("intent", ("AKIASTRAY",), "…WXYZ is in use, and of AKIASTRAY nobody has the secret"),
        ("pending", (), "…WXYZ is in use, and …ABCD is not yet"),
        ("swapped", (), "…ABCD is in use, and …WXYZ is Active, too"),
        ("reactivated", (), "…ABCD is in use, and …WXYZ is Active, too"),
        ("inactive", (), "…ABCD is in use, and …WXYZ may be deleted, which needs an MFA session"),
    ],
)
def test_what_is_half_done(stage: Stage, stray: tuple[str, ...], state: str) -> None:
    """Goes before the age."""
    rotation = replace(ROTATION, stage=stage, stray=stray)
    old = replace(FRANKLIN, created=NOW - 2 * OLD, rotation=rotation)

    assert reminders([old], NOW + GRACE) == [f"the rotation of franklin is not finished: {state}; {WAY}"]


def test_a_grace_that_runs() -> None:
    """Until when, and how to have the old key back, before its age."""
    old = replace(FRANKLIN, created=NOW - 2 * OLD, rotation=ROTATION)
    said = (
        "the old key …WXYZ of franklin is Inactive, and vaultd deletes it after 2026-11-23 12:00 UTC: if something "
        "still needs it, type `vault-client rotate franklin --undo`"
    )

    assert reminders([old], NOW) == reminders([old], NOW + GRACE - timedelta(seconds=1)) == [said]
    assert "not finished" in reminders([old], NOW + GRACE)[0], "control"
    other = replace(FRANKLIN, name="other", created=NOW - 2 * OLD)
    assert reminders([old, other], NOW)[1] == said, "what a person has to do is told first"


@pytest.mark.parametrize(
    ("stage", "wish", "hours", "calls"),
    [
        (None, "go", 0, True), (None, "undo", 0, False), (None, "abandon", 0, False),
        ("intent", "go", 0, True), ("intent", "abandon", 0, True), ("intent", "undo", 0, False),
        ("pending", "go", 0, False), ("pending", "abandon", 0, True),
        ("swapped", "go", 0, True), ("swapped", "abandon", 0, False), ("reactivated", "go", 0, True),
        ("inactive", "go", 0, False), ("inactive", "go", 24, True), ("inactive", "undo", 0, True),
    ],
)  # fmt: skip
def test_who_asks_iam(stage: Stage | None, wish: Wish, hours: int, calls: bool) -> None:
    """A code is asked of a person for these steps only."""
    rotation = None if stage is None else replace(ROTATION, stage=stage)
    assert calls_iam(rotation, wish, None, NOW + timedelta(hours=hours)) is calls


def test_a_shorter_grace_counts() -> None:
    """`--grace 0s` on a grace that runs deletes, so it asks IAM."""
    assert calls_iam(ROTATION, "go", timedelta(), NOW)
    assert not calls_iam(ROTATION, "go", None, NOW)
