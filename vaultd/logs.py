"""Logging: one destination, one line an event, and nothing secret in any of them (security.md §2.2 item 23).

Rules
- Only loggers of `vaultd` may speak below WARNING, even in `--debug`: botocore's DEBUG shows the session token, the MFA
  code and the whole AssumeRole reply (security.md §0.5).
- An exception is its type and its frames (file, line, function; no locals, no source). Its message is shown for errors
  of ours and for those whose text Python itself makes of names; a ValueError quotes what it was given.
- asyncio's own messages carry the callback's arguments: they are replaced by what failed, never printed.
- Whatever text is left goes through `redacted`, the last net, not the first.
- A log that cannot be written is counted, never raised.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import threading
import traceback
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from vaultd.errors import VaultdError
from vaultd.files import Files

OWN = ("vaultd", "vault_client", "__main__")
#: Pinned by name too, for whoever asks a logger for its level instead of the filter here.
PINNED = (
    "aiohttp",
    "aiohttp.access",
    "aiohttp.client",
    "aiohttp.internal",
    "aiohttp.server",
    "aiohttp.web",
    "asyncio",
    "boto3",
    "botocore",
    "jeepney",
    "keyring",
    "secretstorage",
    "urllib3",
)
#: The log and its predecessor together stay below twice this.
MAX_BYTES = 5 * 1024 * 1024
REDACTED = "[redacted]"

#: Their text is a sentence of ours, or made by Python of names, not of values.
_SAID = (VaultdError, AttributeError, ImportError, NameError, TypeError, RecursionError)
#: Said for each try to accept, thousands of times where others hold connections; one line in so many seconds is enough.
_NO_DESCRIPTOR, RARELY = "socket.accept() out of system resource", 60.0
#: What asyncio says without quoting anything.
_ASYNCIO_SAYS = {
    "Future exception was never retrieved",
    "Task exception was never retrieved",
    "Task was destroyed but it is pending!",
    "unhandled exception during asyncio.run() shutdown",
}

_AFTER = (
    r"(?:secret_?access_?key|metadata_?key|session_?token|security-?_?token|token_?code|signin_?token|passphrase|password|secret"
    r"|authorization(?:_token)?|signature|(?<![a-z_])token)[\"']?\s*"
)
_BARE = r"[^\s\"'<>&,;)\]}]"
_MFA = r"(?:mfa|code|otp|token|authenticator)"
_MIXED = r"(?=[\w/+-]*[A-Z])(?=[\w/+-]*[a-z])"  # not a digit too: one key in a thousand has none
_REDACTIONS = tuple(
    (re.compile(pattern), rf"\1{REDACTED}")
    for pattern in (
        # After a name that holds secrets: in quotes; after = or > (XML); after a colon only what is long, since prose
        # has colons ("the passphrase: type `vault-client unlock`").
        rf"(?i)({_AFTER}[:=>,]{{1,2}}\s*b?[\"'])[^\"'\n]{{4,}}",
        rf"(?i)({_AFTER}[=>]\s*(?:bearer\s+)?){_BARE}{{4,}}",
        rf"(?i)({_AFTER}:\s*(?:bearer\s+)?){_BARE}{{16,}}",
        # A session token by its beginning.
        r"()(?:IQoJ|FwoG|FQoG|AgoJ)[A-Za-z0-9+/=%_-]{12,}",
        # A metadata token (IMDS) by its version and the first bytes of its end, as model/metadata_tokens.py packs them.
        r"(?<![\w/+=-])()AQAAAA[\w-]{50}(?![\w/+=-])",
        # Without a name: a grant token is 32 url-safe bytes (43 characters), a secret access key 40 of base64.
        rf"(?<![\w/+=-])(){_MIXED}[\w-]{{43}}(?![\w/+=-])",
        rf"(?<![\w/+=-])(){_MIXED}[A-Za-z0-9/+]{{40}}(?![\w/+=-])",
        # Six digits near a word of MFA, on either side.
        rf"(?i)({_MFA}[^\d\n]{{0,40}})(?<!\d)\d{{6}}(?!\d)",
        rf"(?i)(?<!\d)()\d{{6}}(?!\d)(?=[^\d\n]{{0,40}}{_MFA})",
    )
)
# An access key id keeps what an audit line shows of it: the last 4. AKIA is long-term, ASIA temporary.
_KEY_ID = re.compile(r"A[KS]IA[A-Z0-9]{12,124}?([A-Z0-9]{4})(?![A-Z0-9])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def configure(
    *,
    level: int = logging.INFO,
    files: Files | None = None,
    path: Path | None = None,
    elsewhere: logging.Handler | None = None,
) -> logging.Handler:
    """Make ours the only destination (`elsewhere`, or `path` through `files`, else stderr), and hook every way out of
    an exception.
    """
    root = logging.getLogger()
    written = FileLog(files, path) if files is not None and path is not None else logging.StreamHandler()
    destination = elsewhere or written
    destination.setFormatter(SafeFormatter())
    destination.addFilter(_own_or_warning)
    destination.addFilter(Rarely())
    root.handlers[:] = [destination]
    root.setLevel(level)
    for name in PINNED:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    logging.raiseExceptions = False  # else a bad log call prints its arguments to stderr
    sys.excepthook = _on_exception
    threading.excepthook = _on_thread_exception
    sys.unraisablehook = _on_unraisable
    return destination


def level_of(environ_value: str, *, debug: bool) -> int:
    """`--debug` and `VAULTD_LOG=debug` are the same (interface.md §2); anything else is INFO."""
    return logging.DEBUG if debug or environ_value.strip().lower() == "debug" else logging.INFO


def hook_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Make `loop` report what failed by type and frames only."""
    loop.set_exception_handler(on_loop_exception)


def on_loop_exception(_loop: asyncio.AbstractEventLoop, report: dict[str, Any]) -> None:
    """The exception hook of asyncio. Never `handle`, never the callback's arguments (security.md §0.5)."""
    said = report.get("message")
    if said == _NO_DESCRIPTOR:
        logging.getLogger("vaultd.loop").error("refuse connections because=no-descriptor", extra={"rarely": True})
        return
    what = said if said in _ASYNCIO_SAYS else "a callback failed"
    task = report.get("task") or report.get("future")
    coroutine = task.get_coro() if isinstance(task, asyncio.Task) else None
    logging.getLogger("vaultd.loop").error(
        "fail callback what=%r coroutine=%s%s",
        what,
        getattr(coroutine, "__qualname__", None),
        _appended(report.get("exception")),
    )


def redacted(text: str) -> str:
    """`text` without what looks like a key, a token or a code. Best effort: the rules above keep secrets out."""
    text = _KEY_ID.sub(r"…\1", text)
    for pattern, replacement in _REDACTIONS:
        text = pattern.sub(replacement, text)
    return text


def frames(exc: BaseException) -> str:
    """An exception and its causes as types and frames, one line each."""
    lines: list[str] = []
    current: BaseException | None = exc
    seen: set[int] = set()
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        lines += [f"{type(current).__module__}.{type(current).__qualname__}{_message(current)}"]
        lines += [f"  {Path(at.filename).name}:{at.lineno} {at.name}" for at in _walk(current.__traceback__)]
        if isinstance(current, BaseExceptionGroup):
            lines += [f"| {line}" for each in current.exceptions for line in frames(each).splitlines()]
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "\n".join(f"    {line}" for line in lines)


def _walk(trace: TracebackType | None) -> list[traceback.FrameSummary]:
    return list(traceback.StackSummary.extract(traceback.walk_tb(trace), lookup_lines=False))


def _message(exc: BaseException) -> str:
    if isinstance(exc, _SAID):
        return f": {_one_line(redacted(str(exc)))}"
    if (
        isinstance(exc, OSError) and exc.strerror
    ):  # never filename, which may be anything: the caller's own words name the path
        return f": {exc.strerror}"
    return ""


def _one_line(text: str) -> str:
    return _CONTROL.sub("?", text).replace("\n", "\\n")


def _appended(exc: object) -> str:
    return "\n" + frames(exc) if isinstance(exc, BaseException) else ""


class SafeFormatter(logging.Formatter):
    """`2026-11-22T12:00:00.123Z INFO engine.audit: verb noun key=value`, then frames, redacted as a whole."""

    def format(self, record: logging.LogRecord) -> str:
        """The text of a record; a record that cannot be formatted says so and no more."""
        moment = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        name = record.name.removeprefix("vaultd.")
        head = f"{moment}.{int(record.msecs):03d}Z {record.levelname} {name}: "
        try:
            text, trace = _words(record)
        except Exception as exc:  # noqa: BLE001 - a __repr__ of anybody's may raise anything, and quote anything
            text, trace = f"skip record at={record.filename}:{record.lineno} because={type(exc).__name__}", ""
        return _CONTROL.sub("?", redacted(head + text.replace("\n", "\\n") + trace))


def carried(record: logging.LogRecord) -> tuple[str, str]:
    """(text, frames) of a record that another process is to write: redacted, never its arguments."""
    try:
        text, trace = _words(record)
    except Exception as exc:  # noqa: BLE001 - as in SafeFormatter
        text, trace = f"skip record at={record.filename}:{record.lineno} because={type(exc).__name__}", ""
    return redacted(text), redacted(trace)


def arrived(level: int, name: str, text: str, trace: str) -> None:
    """Write what another process `carried`, as if it had been said here."""
    record = logging.LogRecord(name, level, "", 0, "%s", (text,), None)
    record.trace_carried = trace
    if record.levelno >= logging.getLogger().level:
        logging.getLogger().handle(record)


def _words(record: logging.LogRecord) -> tuple[str, str]:
    if isinstance(trace := getattr(record, "trace_carried", None), str):
        return record.getMessage(), trace
    exc = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    if record.name == "vaultd.loop":  # its frames are made by on_loop_exception
        text, _, trace = record.getMessage().partition("\n")
        return text, "\n" + trace if trace else ""
    if record.name == "asyncio":
        # Its templates are constant, its arguments are handles; where it has no arguments it has composed the text.
        return (str(record.msg) if record.args else "asyncio reported an error"), _appended(exc)
    return record.getMessage(), _appended(exc)


def _own_or_warning(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or record.name.split(".", 1)[0] in OWN


class Rarely(logging.Filter):
    """Of what is marked `rarely` one record in `RARELY` seconds, by the record's own time."""

    def __init__(self) -> None:
        super().__init__()
        self._until: dict[object, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """False: it was said just now."""
        if not getattr(record, "rarely", False):
            return True
        if record.created < self._until.get(record.msg, 0.0):
            return False
        self._until[record.msg] = record.created + RARELY
        return True


class FileLog(logging.Handler):
    """The log file, 0600, opened for each line: it may be moved, and a full disk is not the end of it."""

    def __init__(self, files: Files, path: Path) -> None:
        super().__init__()
        self.lost = 0
        self._files = files
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        """Append one line; counted in `lost` when the disk refuses."""
        try:
            self._rotate()
            self._files.append(self._path, self.format(record).encode("utf-8", "replace") + b"\n", sync=False)
        except (VaultdError, OSError):
            self.lost += 1

    def _rotate(self) -> None:
        found = self._files.stat_key(self._path)
        if found is not None and found[3] >= MAX_BYTES:
            self._files.rename(self._path, self._path.with_name(f"{self._path.name}.1"))


def _on_exception(kind: type[BaseException], exc: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        logging.getLogger("vaultd").critical("die thread=main", exc_info=(kind, exc, trace))


def _on_thread_exception(args: Any) -> None:
    if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
        logging.getLogger("vaultd").error("die thread", exc_info=args.exc_value)


def _on_unraisable(args: Any) -> None:
    # Not args.object: its repr may be anything. Its type tells which __del__ it was.
    logging.getLogger("vaultd").error("fail finalizer of=%s", type(args.object).__name__, exc_info=args.exc_value)
