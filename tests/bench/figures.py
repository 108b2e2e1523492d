"""A figure of the bench, its goal, the table in the terminal and the JSON file.

Rule: a bench measures and never fails on what it measured; a goal that was missed is marked where the figure stands
and named once more at the end.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One row: `goal` as text (`≤ 3.0`), empty for a figure that is only for the record."""

    name: str
    value: float
    unit: str
    goal: str = ""
    ok: bool = True

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Figure:
        """A row of a bench that speaks in dictionaries; its goal is a text or the most that is allowed."""
        goal = row["goal"]
        text = goal if isinstance(goal, str) else f"≤ {goal}"
        return cls(str(row["name"]), float(row["value"]), str(row["unit"]), text, bool(row["ok"]))


def at_most(name: str, value: float, unit: str, most: float) -> Figure:
    """A goal that must not be exceeded."""
    return Figure(name, value, unit, f"≤ {most:g}", value <= most)


def exactly(name: str, value: int, unit: str, wanted: int) -> Figure:
    """A count with one right answer."""
    return Figure(name, value, unit, f"= {wanted}", value == wanted)


def within(name: str, value: float, unit: str, least: float, most: float) -> Figure:
    """A value that must stay in a band."""
    return Figure(name, value, unit, f"{least:g} to {most:g}", least <= value <= most)


def for_the_record(name: str, value: float, unit: str) -> Figure:
    """A figure without a goal."""
    return Figure(name, value, unit)


def table(figures: Sequence[Figure]) -> str:
    """The rows, and which goals were missed."""
    wide = max((len(each.name) for each in figures), default=0)
    lines = [_line(each, wide) for each in figures]
    missed = [each.name for each in figures if not each.ok]
    goals = sum(1 for each in figures if each.goal)
    lines.append(f"{goals - len(missed)} of {goals} goals reached" + "".join(f"\nMISSED {name}" for name in missed))
    return "\n".join(lines)


def _line(figure: Figure, wide: int) -> str:
    mark = "MISSED" if not figure.ok else "ok" if figure.goal else ""
    return f"{mark:<7}{figure.name:<{wide}}  {_number(figure.value):>9} {figure.unit:<24} {figure.goal}".rstrip()


def _number(value: float) -> str:
    if value == int(value):
        return str(int(value))
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def write(path: Path, figures: Iterable[Figure]) -> None:
    """The JSON file: {machine, python, figures: [{name, value, unit, goal, ok}]}."""
    body = {
        "machine": f"{platform.system()} {platform.machine()}",
        "python": sys.version.split()[0],
        "figures": [asdict(each) for each in figures],
    }
    path.write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n")
