"""How fresh what is served has to be: `python -m tests.sdk.freshness [--write FILE]`, or `make freshness`.

Three measurements, of stock SDKs against the real daemon:
- **Hours**: the clients that the preload clock moves make a call a virtual minute for three virtual hours. Told: GETs
  and AssumeRole calls an hour, failed calls, the least life that was ever served.
- **Windows**: keys with a chosen life left are served to every client; told is whether its next calls ask again. What
  no clock moves (Go) is judged by this alone.
- **Idle**: how much life is left in what a client gets that has not asked for a while.

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
PIECE, TURNS = 5, 2
#: Life left at the GET, longest first: around each threshold of sdk-facts §4 and §10.10.
LEFT = (1500, 960, 840, 600, 360, 240, 60, 25)
#: The calls that follow the one which asked first: more than one, since JS v3 renews in the background.
AGAIN, APART = 3, 0.5
#: How long nobody asks for keys of an hour: the refresher leaves a grant alone after 30 minutes (architecture.md §6.2).
IDLE_MINUTES = (25, 45, 60, 70, 80, 100)
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
        _live(clock, step)  # so that no renewal is due at the very end of the 30 minutes after its grant's last use
        for _ in range(int(count * 3600 / step)):
            for player, answer in zip(players, asked([each.program for each in players], "call"), strict=True):
                answers[player.part.profile].append(answer)
            _live(clock, step)
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


def _live(clock: MovedClock, seconds: int, *, piece: int = PIECE) -> None:
    """The daemon lives through it in short pieces: a step over a renewal would make that late by as much."""
    for _ in range(seconds // piece):
        clock.step(piece, turns=TURNS)


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


# ---- idle ----


@dataclass(frozen=True)
class Idle:
    """What the next reply has `left` when nobody has asked for `minutes`."""

    minutes: int
    left: float


def idle(directory: Path, clock: MovedClock, *, minutes: Sequence[int] = IDLE_MINUTES) -> list[Idle]:
    """One plain GET of keys of an hour, nothing for so long, and another one."""
    part = Part("nobody", "ecs", HOUR)
    found: list[Idle] = []
    with staged(directory, [part], clock=clock, where={part.client: directory}) as stage:
        token = stage.pointed(part.profile, part.dialect)["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
        for each in minutes:
            stage.refresh(part)
            _live(clock, STEP_SECONDS)  # else the renewal is due as the grant's 30 minutes end
            fresh = stage.home.get(token, part.profile)
            assert fresh.status == 200, fresh
            _live(clock, each * 60, piece=STEP_SECONDS // 2)
            after = stage.home.get(token, part.profile)
            assert after.status == 200, after
            found.append(Idle(each, stage.serves()[-1].left))
            _live(clock, STEP_SECONDS)  # what it found due is renewed
    return found


# ---- docs/sdk-freshness.md ----

#: What stands above it is written by hand, and kept.
MARK = "<!-- What follows is written by `make freshness`. -->"


def hours_table(rows: Iterable[Hours]) -> str:
    """Markdown; lives in minutes, rounded down."""
    head = "| client | version | dialect | role | failed | GETs/h | AssumeRole/h | least life served |"
    lines = [
        f"| {row.part.client} | {row.version} | {row.part.dialect} | {row.part.life} s "
        f"| {len(row.failed)} of {row.calls} | {row.gets_an_hour:.1f} | {row.assumed_an_hour:.1f} "
        f"| {row.least / 60:.0f} min |"
        for row in rows
    ]
    return "\n".join([head, "|" + " --- |" * 8, *lines, ""])


def windows_table(rows: Sequence[Window], lefts: Sequence[int] = LEFT) -> str:
    """Markdown: how many of the `AGAIN` next calls asked again."""
    by_part: dict[Part, dict[int, Window]] = defaultdict(dict)
    for row in rows:
        by_part[row.part][row.left] = row
    head = "| client | dialect | " + " | ".join(_life(each) for each in lefts) + " |"
    lines = [
        f"| {part.client} | {part.dialect} | " + " | ".join(_cell(found[each]) for each in lefts) + " |"
        for part, found in by_part.items()
    ]
    return "\n".join([head, "| --- | --- |" + " --- |" * len(lefts), *lines, ""])


def idle_table(rows: Iterable[Idle]) -> str:
    """Markdown."""
    lines = [f"| {row.minutes} min | {row.left / 60:.0f} min |" for row in rows]
    return "\n".join(["| nobody asked for | then served with |", "| --- | --- |", *lines, ""])


def _life(seconds: int) -> str:
    return f"{seconds // 60} min" if seconds >= 120 else f"{seconds} s"


def _cell(window: Window) -> str:
    return f"{len(window.failed)} failed" if window.failed else str(window.again) if window.asks else "–"


def write(path: Path, measured: str) -> None:
    """Everything below the mark is replaced."""
    kept = path.read_text().partition(MARK)[0] if path.exists() else "# Freshness, measured\n\n"
    path.write_text(f"{kept}{MARK}\n\n{measured}")


def main() -> int:
    """Measures all, prints it; 1 when a call failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.sdk.freshness", description="How often SDKs ask again.")
    parser.add_argument("--hours", type=float, default=HOURS, help="virtual hours")
    parser.add_argument("--write", type=Path, metavar="FILE", help="the tables, too")
    given = parser.parse_args()
    with short_directory() as first, short_directory() as second, short_directory() as third:
        clock = MovedClock.build(first)
        lived, codes = hours(first, clock, count=given.hours)
        clock.ahead(0)
        quiet = idle(second, clock)
        seen = windows(third)
    measured = (
        f"## Virtual hours: a call a minute for {given.hours:g} hours, {codes} code\n\n{hours_table(lived)}\n"
        f"## Windows: of {AGAIN} calls after the first, how many asked again with so much left\n\n"
        f"{windows_table(seen)}\n## Idle: keys of an hour, one GET, nothing, one GET\n\n{idle_table(quiet)}"
    )
    print(measured)
    if given.write:
        write(given.write, measured)
    rows: list[Hours | Window] = [*lived, *seen]
    failed = [(row.part.profile, row.failed[0]) for row in rows if row.failed]
    for who, text in failed:
        print(f"failed: {who}: {text}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
