"""Wishes: what a caller of the broker wants, and what a question remembers of the plans that wait for its code."""

from __future__ import annotations

from dataclasses import dataclass

from vaultd.model.plan import Plan


@dataclass(frozen=True, slots=True)
class Wish:
    """What one caller wants. `deadline` by boottime; None: until the flight lands (a terminal)."""

    plan: Plan
    requester: str
    deadline: float | None
    asks: bool
    forced: bool = False


@dataclass(frozen=True, slots=True)
class Waiting:
    """A plan that goes on once its question is answered; `forced`: it is a `refresh`."""

    plan: Plan
    forced: bool
