"""How fresh what is served has to be: `python -m tests.sdk.freshness [--write docs/sdk-freshness.md]`, or `make freshness`.

Two measurements, both of stock SDKs against the real daemon:
- **Hours**: the clients that the preload clock moves make a call a virtual minute for three virtual hours. Told: GETs
  and AssumeRole calls an hour, failed calls, the least life that was ever served.
- **Windows**: keys with a chosen life left are served to every client; told is whether its next calls ask again. What
  no clock moves (Go) is judged by this alone.

Rule: GETs come from the daemon's audit log, STS calls from the emulator's log, no number from a client's own word.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.process.harness import MovedClock, short_directory
from tests.sdk.programs import DIALECTS, Answer, Dialect, asked
from tests.sdk.stage import Part, Player, Stage, staged

#: Whose wall clock the preload moves; Go reads the kernel's page itself, and each command of the CLI is a new process.
MOVED = ("boto3", "aiobotocore", "js-v3", "js-v2", "java-v2", "rust", "awscrt", "pyarrow", "obstore")
#: Who makes no clock of its own, and whose windows say all there is.
UNMOVED = ("go-v2", "go-v1")
HOUR, QUARTER = 3600, 900
STEP_SECONDS, HOURS = 60, 3
#: Life left at the GET, longest first: around each threshold of sdk-facts §4 and §10.10.
LEFT = (1500, 960, 840, 600, 360, 240, 60, 25)
#: The calls that follow the one which asked first: more than one, since JS v3 renews in the background.
AGAIN, APART = 3, 0.5
#: A session of less is renewed before it could be measured: keys with less left are those of one of this life, aged
#: while STS is away.
YOUNGEST = 60


@dataclass(frozen=True)
class Hours:
    """One client's virtual hours."""

    part: Part
    version: str
    calls: int
    failed: Sequence[str]
    gets: int
    assumed: int
    least: float
    longest: float
    hours: float

    @property
    def gets_an_hour(self) -> float:
        return self.gets / self.hours

    @property
    def assumed_an_hour(self) -> float:
        return self.assumed / self.hours


@dataclass(frozen=True)
class Window:
    """What one client did with keys of which `left` seconds were left: `gets` by the `AGAIN` calls after the first."""

    part: Part
    left: int
    first: bool
    again: int
    failed: Sequence[str]

    @property
    def asks(self) -> bool:
        """It is within its window: it asked again although nothing has changed."""
        return self.again > 0


# ---- hours ----


def hours(
    directory: Path,
    clock: MovedClock,
    *,
    clients: Sequence[str] = MOVED,
    dialects: Sequence[Dialect] = DIALECTS,
    lives: Sequence[int] = (HOUR, QUARTER),
    count: float = HOURS,
    step: int = STEP_SECONDS,
    where: Mapping[str, Path] | None = None,
) -> tuple[list[Hours], int]:
    """The virtual hours of each; and how many codes they cost together."""
    parts = [Part(client, dialect, life) for client in clients for dialect in dialects for life in lives]
    answers: dict[str, list[Answer]] = defaultdict(list)
    with staged(directory, parts, clock=clock, where=where) as stage:
        players = [stage.enlist(part) for part in parts]
        for _ in range(int(count * 3600 / step)):
            for player, answer in zip(players, asked([each.program for each in players], "call"), strict=True):
                answers[player.part.profile].append(answer)
            clock.step(step)
        return [_hours(stage, player, answers[player.part.profile], count) for player in players], stage.codes()


def _hours(stage: Stage, player: Player, answers: Sequence[Answer], count: float) -> Hours:
    served = [each for each in stage.serves() if each.grant == player.grant]
    return Hours(
        part=player.part,
        version=player.program.version,
        calls=len(answers),
        failed=[each.shown for each in answers if not each.ok],
        gets=sum(each.count for each in served),
        assumed=stage.assumed()[player.part.profile],
        least=min((each.left for each in served), default=0.0),
        longest=max((each.left for each in served), default=0.0),
        hours=count,
    )


# ---- windows ----


def windows(
    directory: Path,
    *,
    clients: Sequence[str] = (*MOVED, *UNMOVED),
    dialects: Sequence[Dialect] = DIALECTS,
    lefts: Sequence[int] = LEFT,
    where: Mapping[str, Path] | None = None,
) -> list[Window]:
    """What each client does with keys of which so much is left."""
    parts = [Part(client, dialect, HOUR) for client in clients for dialect in dialects]
    with staged(directory, parts, where=where) as stage:
        players = [stage.enlist(part) for part in parts]
        return [window for left in sorted(lefts, reverse=True) for window in _windows(stage, players, left)]


def _windows(stage: Stage, players: Sequence[Player], left: int) -> list[Window]:
    """All of them at once: one renewal each, then a new client, then `AGAIN` calls of that client."""
    for player in players:
        stage.live(player.part, max(left, YOUNGEST), times=1)
        stage.refresh(player.part)
        if left < YOUNGEST:
            stage.away(player.part)
    time.sleep(max(0, YOUNGEST - left))  # real time: these clients have no other
    before = stage.gets()
    programs = [player.program for player in players]
    answers = [asked(programs, "fresh")]
    first = stage.gets()
    for _ in range(AGAIN):
        time.sleep(APART)  # object_store asks at most every 0.1 s, in its window or not
        answers.append(asked(programs, "call"))
    after = stage.gets()
    return [
        Window(
            part=player.part,
            left=left,
            first=first[player.grant] > before[player.grant],
            again=after[player.grant] - first[player.grant],
            failed=[each.shown for each in mine if not each.ok],
        )
        for player, mine in zip(players, zip(*answers, strict=True), strict=True)
    ]
