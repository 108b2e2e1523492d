"""`status --watch`: sessions, questions, grants and denials as they are now, until somebody leaves.

Rules
- The daemon is never waited for (feed.py): a key works while it hangs.
- A daemon that goes away is looked for until it is back, and both is said. `--json` is for scripts: it ends with 69.
- On a terminal that can be drawn on, questions are answered where they stand; nothing typed to a code is shown. Esc
  leaves a question, and cancels none. All else (`--plain`, VAULTD_PLAIN, a pipe, TERM=dumb) gets a line a change.
- A key means what was on the screen: a digit the question that it stood beside, and nothing that was typed before a
  question was seen answers it (security.md §4).
"""

from __future__ import annotations

import os
import select
import sys
import time
from contextlib import suppress

from vault_client import ask, changes, panel
from vault_client.errors import UNREACHABLE, Refusal, Stop
from vault_client.feed import EVERY, Feed, rest
from vault_client.link import LOOK, PATIENCE
from vault_client.panel import Board
from vault_client.screen import Screen
from vault_client.tables import Ink, clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from vault_client.cli import Call
    from vault_client.link import Connection, Link

    Body = dict[str, Any]

_LONGEST = 200
_STOPPED = "vaultd has stopped: type `vaultd start`"
_LEAVES = frozenset({"q", "Q", "ctrl-c", "ctrl-d"})
_BACK = frozenset({"esc", "ctrl-c", "ctrl-d", "ctrl-g"})


def watch(call: Call) -> int:
    """Until Ctrl-C or q; 69 when there is no daemon to begin with."""
    if call.flag("json"):
        return _for_scripts(call)
    feed = Feed(call.link)
    drawn = sys.stdout.isatty() and not call.flag("plain")
    screen = Screen.find(call.environ) if drawn else None
    try:
        if screen is None:
            return _in_lines(call, feed)
        with screen:
            return Drawn(call, feed, screen).run()
    finally:
        feed.close()


def _for_scripts(call: Call) -> int:
    """GET /v1/status as a line, whenever it has changed; looked at as often as feed.py does."""
    import json

    last = None
    stream = _stream(call.link)
    try:
        while True:
            since = time.monotonic()
            body = call.link.call("GET", "/v1/status", seconds=LOOK)
            answered = time.monotonic()
            if body != last:
                call.out(json.dumps(body) + "\n")
                last = body
            wait, rested = EVERY, answered + rest(answered - since)
            while stream.pending or select.select([stream], [], [], wait)[0]:
                event = stream.event()
                if event is None:
                    raise Stop(_STOPPED, UNREACHABLE)
                if event.get("event") == "stream.cut":
                    stream.close()
                    stream = _stream(call.link)
                wait = max(0.0, rested - time.monotonic())
    finally:
        stream.close()


def _stream(link: Link) -> Connection:
    stream = link.open("GET", "/v1/events")
    try:
        stream.events()
    except BaseException:
        stream.close()
        raise
    return stream


# ---- what is known ----


def _note(board: Board, kind: str, body: Any, *, at: float) -> str:
    """Take it; a sentence where it is one for a person: gone, or back."""
    if kind == "away":
        first = not board.away
        board.away = clean(body)
        return board.away if first else ""
    if kind == "past":
        board.denials.clear()
        board.denials.extend(changes.denials(body.get("events") or []))
    elif kind == "event":
        board.denials.extend(changes.denials([body]))
    elif kind == "status":
        back, board.away = bool(board.away), ""
        board.take(body, at)
        return f"vaultd is back, pid {body.get('pid')}" if back else ""
    return ""


# ---- lines ----


def _in_lines(call: Call, feed: Feed) -> int:
    from vault_client.show import status_text

    board = Board()
    board.take(feed.first, time.monotonic())
    ink = Ink(sys.stdout, os.environ)
    ink.on = ink.on and not call.flag("plain")
    call.out(status_text(feed.first, ink))
    while True:
        ready, _, _ = select.select(feed.sources, [], [], feed.due)
        for kind, body in feed.turn(ready):
            for said in _lines(board, kind, body):
                call.out(f"{time.strftime('%H:%M:%S')}  {said}\n")


def _lines(board: Board, kind: str, body: Any) -> list[str]:
    before = board.body
    said = _note(board, kind, body, at=time.monotonic())
    lines = [said] if said else []
    if kind == "status":
        # "is back, pid 43" is said already
        lines += changes.between({**before, "pid": body.get("pid")} if said else before, body)
    elif kind == "event" and body.get("event") == "credentials.deny":
        lines.append(changes.denial(body))
    return lines


# ---- drawn ----


class Answering:
    """One question, what is typed to it, and the two connections that it takes: attending, and the answer sent."""

    def __init__(self, link: Link, prompt: Body) -> None:
        self.link, self.prompt = link, prompt
        self.typed = self.said = ""
        self.attending = link.open("GET", f"/v1/prompts/{prompt['id']}?wait&attend", seconds=PATIENCE)
        self.sent: Connection | None = None

    @property
    def sources(self) -> list[Connection]:
        """For select. While an answer is under way its own reply tells how the question ended."""
        return [self.sent] if self.sent else [self.attending]

    @property
    def lines(self) -> list[str]:
        """For the frame's foot."""
        if self.sent:
            return [ask.headline(self.prompt), "vaultd asks AWS …" if not ask.consents(self.prompt) else "…"]
        shown = clean(self.typed) if ask.consents(self.prompt) else ""
        return panel.question(self.prompt, self.said, shown)

    def press(self, key: str) -> None:
        """One more key of the line."""
        if self.sent:
            return
        if key == "enter":
            self._send()
        elif key == "backspace":
            self.typed = self.typed[:-1]
        elif key == "ctrl-u":
            self.typed = ""
        elif len(key) == 1:
            self.typed = (self.typed + key)[:_LONGEST]

    def _send(self) -> None:
        typed, self.typed = self.typed, ""
        if ask.consents(self.prompt):
            answer: Body = {"allow": typed.strip().lower() in {"y", "yes"}}
        elif (code := ask.six_digits(typed)) is not None:
            answer = {"token_code": code}
        else:
            self.said = "a code is six digits, so nothing was sent: type the one that the device shows"
            return
        self.sent = self.link.open("POST", f"/v1/prompts/{self.prompt['id']}", answer, seconds=PATIENCE)

    def hear(self) -> str:
        """What is there to read. The sentence with which the question is over here; empty while it goes on."""
        try:
            if self.sent is None:
                return self._ended(self.attending.reply())
            try:
                self.sent.reply()
            finally:
                self.sent.close()
                self.sent = None
        except Refusal as refusal:
            return self._refused(refusal)
        except Stop as stop:
            return stop.message
        return f"answered: {clean(self.prompt.get('profile') or self.prompt.get('identity'))}"

    def _refused(self, refusal: Refusal) -> str:
        if refusal.status == 404:
            return "answered elsewhere"
        try:
            self.said = ask.once_more(refusal)
        except Refusal as final:
            return final.message
        return ""

    def _ended(self, body: Body) -> str:
        outcome = body.get("reason") or body.get("outcome")
        return "answered elsewhere" if outcome == "answered" else ask.over(self.prompt, outcome).message

    def close(self) -> None:
        """Leave it: as an asker who goes, who cancels nothing."""
        self.attending.close()
        if self.sent is not None:
            self.sent.close()


class Drawn:
    """The board on a screen, and who sits before it."""

    def __init__(self, call: Call, feed: Feed, screen: Screen) -> None:
        self._call, self._feed, self._screen = call, feed, screen
        self._board = Board(utf8=_utf8(call.environ))
        self._board.take(feed.first, time.monotonic())
        self._answering: Answering | None = None
        self._seen: list[Body] = []
        self._ink = screen.ink(call.environ)
        self._ink.on = self._ink.on and not call.flag("plain")

    def run(self) -> int:
        """0 when he leaves by q, 130 by Ctrl-C."""
        try:
            while True:
                self._draw()
                keys, ready = self._screen.wait(self._feed.due, also=self._sources)
                if (status := self._take(keys)) is not None:
                    return status
                for kind, body in self._feed.turn(ready):
                    if said := _note(self._board, kind, body, at=time.monotonic()):
                        self._board.said = said
                self._hear(ready)
        finally:
            self._leave()

    @property
    def _sources(self) -> list[Connection]:
        return [*self._feed.sources, *(self._answering.sources if self._answering else [])]

    def _take(self, keys: Sequence[str]) -> int | None:
        """Before anything is heard, which may put another question where one was."""
        for key in keys:
            before = self._answering
            if (status := self._press(key)) is not None:
                return status
            if self._answering is not None and before is None:
                self._screen.forget()
                return None
        return None

    def _draw(self) -> None:
        self._seen = self._board.questions
        asked = self._answering.lines if self._answering else ()
        lines, cursor = panel.frame(
            self._board, self._screen.size, self._ink, now=time.monotonic(), wall=time.time(), asked=asked
        )
        self._screen.draw(lines, cursor)

    def _hear(self, ready: Sequence[object]) -> None:
        answering = self._answering
        if answering is not None and any(each in ready for each in answering.sources) and (said := answering.hear()):
            self._leave(said)

    def _leave(self, said: str = "") -> None:
        if self._answering is not None:
            self._answering.close()
            self._answering = None
        self._board.said = said

    def _press(self, key: str) -> int | None:
        if key == "ctrl-z":
            self._screen.suspend()
        elif self._answering is not None:
            self._type(key)
        elif key in _LEAVES:
            return 130 if key == "ctrl-c" else 0
        elif key != "resize":
            self._choose(key)
        return None

    def _type(self, key: str) -> None:
        if key in _BACK:
            self._leave()
            return
        assert self._answering is not None
        try:
            self._answering.press(key)
        except Stop as stop:  # the daemon is away just now
            self._leave(stop.message)

    def _choose(self, key: str) -> None:
        """A digit, or Enter for the oldest; an arrow moves the sessions."""
        if self._board.scroll(key):
            return
        questions = self._seen
        number = 1 if key == "enter" else int(key) if key in set("123456789") else 0
        self._board.said = ""
        if 0 < number <= len(questions):
            with suppress(Stop):  # its end, or the daemon's, is on the board in a moment
                self._answering = Answering(self._call.link, questions[number - 1])


def _utf8(environ: Mapping[str, str]) -> bool:
    """Does this terminal show the blocks of a bar?"""
    name = next((environ[each] for each in ("LC_ALL", "LC_CTYPE", "LANG") if environ.get(each)), "")
    return "UTF8" in name.upper().replace("-", "")
