"""The person at this terminal: a question, and one silent line in answer to it; codes, keys, passphrases, yes or no.

Rules
- Nothing typed is echoed, and what was typed before the question is thrown away (security.md §4, terminal driver).
- `y` and `yes` alone are a yes: nothing typed is a no (ssh-agent's askpass takes an empty reply for a yes).
- However it ends (an answer, an exception, SIGTERM) the terminal gets its echo back.
"""

from __future__ import annotations

import os
import signal
import sys
import termios
from contextlib import suppress

from vault_client.errors import NEEDS_PERSON, Stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Self

_YES = frozenset({"y", "yes"})
_LINE_LIMIT = 64 * 1024
_LOCAL_FLAGS = 3


class Terminal:
    """The controlling terminal, else stdin and stderr when both are one; silent while it is open."""

    def __init__(self, source: int, target: int, *, owned: bool, again: str) -> None:
        self._source = source
        self._target = target
        self._again = again
        self._owned = owned
        self._saved = termios.tcgetattr(source)
        self._previous = signal.signal(signal.SIGTERM, _leave)
        quiet = termios.tcgetattr(source)
        quiet[_LOCAL_FLAGS] = quiet[_LOCAL_FLAGS] & ~termios.ECHO | termios.ICANON | termios.ISIG
        termios.tcsetattr(source, termios.TCSAFLUSH, quiet)

    @classmethod
    def find(cls, again: str) -> Terminal | None:
        """None where there is no person to ask. `again` is what to type when he leaves the question unanswered."""
        try:
            device = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            device = None
        try:
            if device is not None:
                return cls(device, device, owned=True, again=again)
            if os.isatty(0) and os.isatty(2):
                return cls(0, 2, owned=False, again=again)
        except termios.error:  # hung up between the two calls
            if device is not None:
                os.close(device)
        return None

    def fileno(self) -> int:
        """For select."""
        return self._source

    def write(self, text: str) -> None:
        """Show `text`; a terminal that is gone shows nothing."""
        try:
            os.write(self._target, text.encode("utf-8", "replace"))
        except OSError as exc:
            raise self._gone() from exc

    def line(self) -> str:
        """What was typed up to Enter; raises Stop for Ctrl-D and for a terminal that is gone."""
        typed = bytearray()
        while not typed.endswith(b"\n"):
            try:
                piece = os.read(self._source, 4096)
            except OSError:
                piece = b""
            if not piece or len(typed) > _LINE_LIMIT:
                raise self._gone()
            typed += piece
        try:
            return typed.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise Stop("what was typed is not UTF-8 text: type the command again") from None

    def ask(self, question: str, *, cancelled: str = "") -> str:
        """One silent line. After Ctrl-C the next sentence begins on a line of its own; `cancelled` is the state that it
        leaves, for a caller who has nothing to tidy up: it is then a Stop of 130.
        """
        answer = self._answer(question, cancelled)
        self.write("\n")
        return answer

    def agrees(self, question: str, *, cancelled: str = "") -> bool:
        """A question of yes or no; `cancelled` as for `ask`."""
        return self.understood(self._answer(question, cancelled))

    def understood(self, line: str) -> bool:
        """Is it a yes? Shown, as nothing typed is."""
        yes = line.strip().lower() in _YES
        self.write("yes\n" if yes else "no\n")
        return yes

    def _answer(self, question: str, cancelled: str) -> str:
        try:
            self.write(question)
            return self.line()
        except KeyboardInterrupt:
            self.write("\n")
            if not cancelled:
                raise
            raise Stop(f"cancelled, and {cancelled}: type {self._again}", 130) from None

    def _gone(self) -> Stop:
        return Stop(f"the question was left unanswered: type {self._again}", NEEDS_PERSON)

    def close(self) -> None:
        """The terminal as it was."""
        with suppress(termios.error):  # it is gone, and so is its state
            termios.tcsetattr(self._source, termios.TCSAFLUSH, self._saved)
        signal.signal(signal.SIGTERM, self._previous)
        if self._owned:
            os.close(self._source)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _leave(signum: int, _frame: FrameType | None) -> None:
    sys.exit(128 + signum)  # through `close`, so that the shell gets its echo back
