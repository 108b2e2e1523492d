"""The terminal as a screen: keys in, whole frames out, and the terminal as it was afterwards. The picker and
`status --watch` draw on it:

    screen = Screen.find(environ)
    if screen is None:                        # no terminal, a dumb one, or VAULTD_PLAIN: lines of text instead
        return plain()
    with screen:
        while True:
            columns, rows = screen.size
            screen.draw(lines, cursor=(0, 5))         # strings with colours and `column(n)` in them; no newline
            keys, ready = screen.wait(1.0, also=[connection])
            for key in keys:                          # keyboard.py's, or resize
                ...
            with screen.paused():                     # the terminal as it was, e.g. for a question of ask.py
                ...

Rules
- stdout belongs to eval: what is drawn goes to /dev/tty, else to stderr.
- However it ends (a key, an exception, SIGTERM, SIGHUP, Ctrl-Z, a suspend from elsewhere) modes and settings are put
  back; only SIGKILL and SIGSTOP leave them, and SIGCONT after the latter draws anew.
- Only ECMA-48 terminals are drawn on, as terminfo tells; all else is plain.
- A frame is one write of the lines that changed. Nothing wraps: a line that is too long is cut by the terminal.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
from contextlib import suppress

from vault_client.keyboard import Keys
from vault_client.tables import Ink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import FrameType
    from typing import Any, Self

_CSI = "\x1b["
_SHOW, _HIDE = _CSI + "?25h", _CSI + "?25l"
#: No wrapping; a paste is told from typing, so that a newline in it is no Enter.
_ENTER, _LEAVE = _CSI + "?7l" + _CSI + "?2004h", _CSI + "?2004l" + _CSI + "?7h" + _CSI + "0m" + _SHOW
_WIPE = _CSI + "0m" + _CSI + "H" + _CSI + "2J"
_IFLAG, _LFLAG, _CC = 0, 3, 6
_LEFT = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_TOLD = (signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)


def column(number: int) -> str:
    """Go on at this column of the line, from 0: columns stay straight however wide a terminal takes an emoji for."""
    return f"{_CSI}{number + 1}G"


class Screen:
    """A terminal that can be drawn on. Use `find`, then `with`."""

    def __init__(self, source: int, target: int, *, owned: bool, modes: tuple[str, str, bool], escape: float) -> None:
        self._source, self._target, self._owned = source, target, owned
        self._enter, self._leave, self.colours = modes
        self._escape = escape
        self._saved = termios.tcgetattr(source)
        self._keys = Keys()
        self._shown: list[str] | None = None
        self._cursor: tuple[int, int] | None = None
        self._previous: dict[int, Any] = {}
        self._awake, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._waker_before = -1

    @classmethod
    def find(cls, environ: Mapping[str, str]) -> Screen | None:
        """None where there is no terminal to draw on, or none that should be."""
        modes = drawable(environ)
        if modes is None:
            return None
        try:
            device, owned = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC), True
        except OSError:
            device, owned = 0, False
        try:
            if owned or (os.isatty(0) and os.isatty(2)):
                return cls(device, device if owned else 2, owned=owned, modes=modes, escape=_escape_delay(environ))
        except termios.error:  # hung up between the two calls
            if owned:
                os.close(device)
        return None

    # ---- what is seen ----

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows, now."""
        try:
            columns, rows = os.get_terminal_size(self._target)
        except OSError:
            columns = rows = 0
        return columns or 80, rows or 24

    def ink(self, environ: Mapping[str, str]) -> Ink:
        """The colours of tables.py, as this terminal and its user take them."""
        ink = Ink(self, environ)
        ink.on = ink.on and self.colours
        return ink

    def draw(self, lines: Sequence[str], cursor: tuple[int, int] | None = None) -> None:
        """Show these lines and nothing else; `cursor` is (row, column) from 0, or hidden. At most one write."""
        lines = list(lines[: self.size[1]])
        if lines == self._shown and cursor == self._cursor:
            return
        before = self._shown or []
        parts = [_HIDE] if self._shown is not None else [_HIDE, _WIPE]
        for at in range(max(len(lines), len(before))):
            line = lines[at] if at < len(lines) else ""
            if at >= len(before) or before[at] != line:
                parts.append(f"{_CSI}{at + 1};1H{_CSI}0m{_CSI}2K{line}")
        if cursor is not None:
            parts.append(f"{_CSI}0m{_CSI}{cursor[0] + 1};{cursor[1] + 1}H{_SHOW}")
        self._shown, self._cursor = lines, cursor
        self._write("".join(parts))

    def _write(self, text: str) -> None:
        raw = text.encode("utf-8", "replace")
        try:
            while raw:
                raw = raw[os.write(self._target, raw) :]
        except OSError as exc:
            raise _gone() from exc

    # ---- what is typed ----

    def wait(self, seconds: float | None = None, *, also: Sequence[Any] = ()) -> tuple[list[str], list[Any]]:
        """The keys that were typed, and what of `also` can be read; neither, when the time is over, or before. `resize`
        stands for a frame that is to be drawn anew. Raises SystemExit for a terminal that is gone.
        """
        patience = self._keys.patience
        if patience is not None:
            seconds = max(patience, self._escape)
        ready, _, _ = select.select([self._source, self._awake, *also], [], [], seconds)
        keys = self._signalled() if self._awake in ready else []
        if self._source in ready:
            keys += self._keys.feed(self._read())
        elif not ready and patience is not None:
            keys += self._keys.flush()
        return keys, [each for each in also if each in ready]

    def forget(self) -> None:
        """What was typed until now was for what was on the screen until now."""
        with suppress(termios.error):  # it is gone: `wait` says so
            termios.tcflush(self._source, termios.TCIFLUSH)
        self._keys = Keys()

    def _read(self) -> bytes:
        try:
            raw = os.read(self._source, 4096)
        except OSError as exc:
            raise _gone() from exc
        if not raw:
            raise _gone()
        return raw

    def _signalled(self) -> list[str]:
        told = os.read(self._awake, 4096)
        if signal.SIGTSTP in told:
            self.suspend()
        elif signal.SIGCONT in told:  # after a SIGSTOP, which left the shell on our other screen
            self._write(self._leave)
            self._begin()
        self._shown = None  # terminals arrange lines anew when they are resized
        return ["resize"]

    def suspend(self) -> None:
        """Ctrl-Z, where somebody could say `fg`: not in `$(…)`, whose shell waits for us and ignores SIGTSTP."""
        if not sys.stdout.isatty() or self._previous.get(signal.SIGTSTP) == signal.SIG_IGN:
            return
        with self.paused():
            ours = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            os.kill(0, signal.SIGTSTP)  # the whole job, as the terminal driver does: a script around us, too
            signal.signal(signal.SIGTSTP, ours)

    # ---- the terminal as it was ----

    def __enter__(self) -> Self:
        for number in (*_LEFT, *_TOLD):
            before = self._previous[number] = signal.getsignal(number)
            if before != signal.SIG_IGN:
                signal.signal(number, _leave if number in _LEFT else _noted)
        self._waker_before = signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        try:
            self._begin()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Put everything back; a signal that comes meanwhile takes effect afterwards."""
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT)
        finally:
            self._end()
            signal.set_wakeup_fd(self._waker_before)
            for number, before in self._previous.items():
                signal.signal(number, before)
            for each in (self._awake, self._waker, *([self._source] if self._owned else [])):
                os.close(each)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _LEFT)

    def paused(self) -> _Paused:
        """A `with` in which the terminal is as it was."""
        return _Paused(self)

    def _begin(self) -> None:
        raw = termios.tcgetattr(self._source)
        raw[_IFLAG] &= ~(termios.ICRNL | termios.INLCR | termios.IGNCR | termios.IXON | termios.ISTRIP)
        raw[_LFLAG] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        raw[_CC][termios.VMIN], raw[_CC][termios.VTIME] = 1, 0
        try:
            # What was typed before this screen was seen chooses nothing on it.
            termios.tcsetattr(self._source, termios.TCSAFLUSH, raw)
        except termios.error as exc:
            raise _gone() from exc
        with suppress(BlockingIOError):  # what was told until now is seen to by this
            os.read(self._awake, 4096)
        self._keys = Keys()
        self._shown = None
        self._write(self._enter + _ENTER)

    def _end(self) -> None:
        with suppress(SystemExit):
            # A terminal that takes nothing any more must not keep a process that was told to end.
            if select.select([], [self._target], [], 1.0)[1]:
                self._write((_WIPE if not self._leave else "") + _LEAVE + self._leave)
        with suppress(termios.error):  # it is gone, and so are its settings
            termios.tcsetattr(self._source, termios.TCSANOW, self._saved)

    def fileno(self) -> int:
        """For its size."""
        return self._target

    @staticmethod
    def isatty() -> bool:
        """It is one."""
        return True


class _Paused:
    __slots__ = ("_screen",)

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def __enter__(self) -> None:
        self._screen._end()  # noqa: SLF001 - the two are one

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not SystemExit:
            self._screen._begin()  # noqa: SLF001


def drawable(environ: Mapping[str, str]) -> tuple[str, str, bool] | None:
    """What enters and leaves the other screen of this terminal, and whether it has colours; None where lines of text
    are wanted (VAULTD_PLAIN, for screen readers) or all that is known to work.
    """
    name = environ.get("TERM", "")
    if environ.get("VAULTD_PLAIN", "0") not in {"", "0"} or name in {"", "dumb", "unknown"}:
        return None
    try:
        import _curses  # 0.6 ms; the package around it loads more
    except ImportError:
        return None
    try:
        _curses.setupterm(name, 2)
    except _curses.error:  # no terminfo
        return None
    if not all((_curses.tigetstr(each) or b"").startswith(b"\x1b[") for each in ("el", "cup", "clear")):
        return None
    enter, leave = (_curses.tigetstr(each) or b"" for each in ("smcup", "rmcup"))
    if not (enter and leave) or b"$<" in enter + leave:  # padding: a terminal of another age
        enter = leave = b""
    return enter.decode("latin-1"), leave.decode("latin-1"), _curses.tigetnum("colors") >= 8


def _escape_delay(environ: Mapping[str, str]) -> float:
    """ESCDELAY in milliseconds, for lines on which an arrow key comes in pieces."""
    given = environ.get("ESCDELAY", "")
    return min(int(given), 5000) / 1000 if given.isascii() and given.isdigit() and len(given) < 6 else 0.0


def _leave(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)  # through `close`, so that the shell gets its terminal back


def _noted(_number: int, _frame: FrameType | None) -> None:
    """The wakeup descriptor tells `wait`."""


def _gone() -> SystemExit:
    return SystemExit(128 + signal.SIGHUP)
