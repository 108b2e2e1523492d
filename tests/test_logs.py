from __future__ import annotations

import asyncio
import errno
import logging
import re
import stat
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vaultd import logs
from vaultd.errors import MfaRequired
from vaultd.files import Files

LINE = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR|CRITICAL) [\w.]+: .*$")


@pytest.fixture
def undo() -> Iterator[None]:
    """Logging is the process's own; each test gives it back."""
    root = logging.getLogger()
    handlers, level, raises = list(root.handlers), root.level, logging.raiseExceptions
    pinned = {name: logging.getLogger(name).level for name in logs.PINNED}
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    show = warnings.showwarning
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raises
    for name, each in pinned.items():
        logging.getLogger(name).setLevel(each)
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    logging.captureWarnings(capture=False)
    warnings.showwarning = show


@pytest.fixture
def path(tmp_path: Path, undo: None) -> Path:
    """A configured log file at DEBUG."""
    found = tmp_path / "vaultd.log"
    logs.configure(level=logging.DEBUG, files=Files(), path=found)
    return found


def text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_a_line_is_time_level_room_and_event(path: Path) -> None:
    """`verb noun key=value` after the time, one line an event, in a file of our own."""
    logging.getLogger("vaultd.engine.audit").info("cut line seq=%d", 7)

    assert LINE.match(text(path).rstrip("\n"))
    assert text(path).endswith("INFO engine.audit: cut line seq=7\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_message_cannot_forge_a_line_nor_drive_a_terminal(path: Path) -> None:
    """Newlines are escaped, control and bidi characters as `?`: names in a message are not ours."""
    logging.getLogger("vaultd").warning("refuse x=%s", "a\n2026-11-22T00:00:00.000Z INFO vaultd: forged\x1b[2J\u202e")
    lines = text(path).splitlines()

    assert len(lines) == 1
    assert r"x=a\n2026-11-22" in lines[0]
    assert "\x1b" not in lines[0]
    assert "\u202e" not in lines[0]


@pytest.mark.parametrize(
    "name", ["botocore.endpoint", "boto3.resources", "urllib3.connectionpool", "aiohttp.access", "x"]
)
def test_only_our_own_loggers_speak_below_warning(path: Path, name: str) -> None:
    """Even in --debug, even when a library sets its own level (security.md item 23); from WARNING on they are heard."""
    foreign = logging.getLogger(name)
    before, level = foreign.level, foreign.getEffectiveLevel()
    foreign.setLevel(logging.DEBUG)
    try:
        foreign.debug("canary")
        foreign.info("canary")
        foreign.warning("heard")
    finally:
        foreign.setLevel(before)
    logging.getLogger("vaultd.x").debug("own")

    assert level >= (logging.WARNING if name.split(".", 1)[0] in logs.PINNED else logging.DEBUG)
    assert "canary" not in text(path)
    assert "heard" in text(path)
    assert "own" in text(path), "positive control: DEBUG is on"


def test_the_level_is_kept(tmp_path: Path, undo: None) -> None:
    """INFO by default; --debug and VAULTD_LOG=debug are the same."""
    path = tmp_path / "log"
    logs.configure(level=logs.level_of("", debug=False), files=Files(), path=path)
    logging.getLogger("vaultd").debug("hidden")
    logging.getLogger("vaultd").info("shown")

    assert "hidden" not in text(path)
    assert "shown" in text(path)
    assert logs.level_of("DEBUG ", debug=False) == logs.level_of("", debug=True) == logging.DEBUG
    assert logs.level_of("nonsense", debug=False) == logging.INFO


def test_without_a_file_it_goes_to_stderr(undo: None, capsys: pytest.CaptureFixture[str]) -> None:
    """--foreground: the service manager's journal; configured twice, it is still one line an event."""
    logs.configure()
    logs.configure()
    logging.getLogger("vaultd").info("serve port=9169")

    assert capsys.readouterr().err.count("serve port=9169") == 1


# ---- exceptions ----


def _raise_value_error(secret: str) -> None:
    int(secret)


def test_a_traceback_is_types_and_frames(path: Path) -> None:
    """No message of a ValueError (it quotes what it was given), no locals, no source; every cause is in it."""
    secret = "canary-passphrase"
    try:
        try:
            _raise_value_error(secret)
        except ValueError as exc:
            raise RuntimeError(f"wrapped {secret}") from exc
    except RuntimeError:
        logging.getLogger("vaultd.web.app").exception("fail request path=/v1/credentials")
    found = text(path)

    assert "canary" not in found
    assert "builtins.RuntimeError\n" in found
    assert "builtins.ValueError\n" in found
    assert re.search(r"test_logs\.py:\d+ _raise_value_error", found)
    assert "int(secret)" not in found


@pytest.mark.parametrize(
    ("exc", "said"),
    [
        (
            MfaRequired("A code is needed: run `vault-client mfa`."),
            "errors.MfaRequired: A code is needed: run `vault-client",
        ),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/canary"), "FileNotFoundError: No such file"),
        (AttributeError("'X' object has no attribute 'y'"), "AttributeError: 'X' object has no attribute 'y'"),
        (KeyError("canary"), "builtins.KeyError\n"),
        (
            ExceptionGroup("canary", [ValueError("canary"), TypeError("f() takes 1")]),
            "|     builtins.TypeError: f() takes 1",
        ),
    ],
)
def test_what_is_said_of_an_exception(path: Path, exc: Exception, said: str) -> None:
    """Ours and Python's own about names say their sentence, the rest its type: enough to mend it, nothing to steal."""
    logging.getLogger("vaultd").error("fail x", exc_info=exc)

    assert said in text(path)
    assert "canary" not in text(path)


def test_a_loop_of_causes_ends(path: Path) -> None:
    """A cause may come round to its effect."""
    one, other = ValueError(), KeyError()
    one.__cause__, other.__cause__ = other, one
    logging.getLogger("vaultd").error("fail x", exc_info=one)

    assert text(path).count("builtins.ValueError") == 1


class _Evil:
    def __str__(self) -> str:
        raise RuntimeError("canary")

    def __repr__(self) -> str:
        raise RuntimeError("canary")


@pytest.mark.parametrize(("template", "value"), [("serve x=%s", _Evil()), ("serve x=%d", "canary")])
def test_a_record_that_cannot_be_formatted_is_one_line(
    path: Path, capsys: pytest.CaptureFixture[str], template: str, value: object
) -> None:
    """The standard way out prints the arguments to stderr."""
    logging.getLogger("vaultd").info(template, value)

    assert re.search(r"skip record at=test_logs.py:\d+ because=\w+Error\n", text(path))
    assert "canary" not in text(path) + capsys.readouterr().err


def test_every_way_out_of_the_interpreter_is_hooked(path: Path) -> None:
    """Main thread, threads and finalizers: type and frames into the log, nothing to stderr (pytest would fail)."""
    try:
        _raise_value_error("canary")
    except ValueError as exc:
        sys.excepthook(type(exc), exc, exc.__traceback__)
    thread = threading.Thread(target=_raise_value_error, args=("canary",), name="canary")
    hook = threading.excepthook
    logs.configure(level=logging.DEBUG, files=Files(), path=path)
    threading.excepthook = logs._on_thread_exception
    thread.start()
    thread.join()
    threading.excepthook = hook
    found = text(path)

    assert found.count("builtins.ValueError\n") == 2
    assert "CRITICAL vaultd: die thread=main" in found
    assert "ERROR vaultd: die thread\n" in found
    assert "canary" not in found


def test_a_finalizer_is_told_by_its_type(path: Path) -> None:
    """Its object's repr may be anything."""

    class Leaky:
        def __repr__(self) -> str:
            return "canary"

        def __del__(self) -> None:
            raise ValueError("canary")

    hook, sys.unraisablehook = sys.unraisablehook, logs._on_unraisable
    leaky = Leaky()
    del leaky
    sys.unraisablehook = hook

    assert "fail finalizer of=function" in text(path)
    assert "builtins.ValueError\n" in text(path)
    assert "canary" not in text(path)


def test_an_interrupt_is_not_an_error(path: Path) -> None:
    """Ctrl-C and SystemExit in a thread are ends, not failures."""
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    logs._on_thread_exception(threading.ExceptHookArgs((SystemExit, SystemExit(), None, None)))

    assert text(path) == ""


# ---- asyncio ----


def _callback(secret: str) -> None:
    raise ValueError(secret)


@pytest.mark.parametrize("loop_name", ["asyncio", "uvloop"])
def test_a_failing_callback_shows_no_argument(path: Path, loop_name: str) -> None:
    """Python before 3.13 prints a callback's arguments (security.md §0.5); ours prints type and frames."""
    loop = asyncio.new_event_loop() if loop_name == "asyncio" else pytest.importorskip("uvloop").new_event_loop()
    logs.hook_loop(loop)
    loop.call_soon(_callback, "canary")
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()

    assert "ERROR loop: fail callback what='a callback failed'" in text(path)
    assert re.search(r"test_logs\.py:\d+ _callback", text(path))
    assert "canary" not in text(path)


def test_without_the_hook_the_argument_would_show(undo: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Positive control: this is what is kept out."""
    root = logging.getLogger()
    root.handlers[:] = [logging.StreamHandler()]
    loop = asyncio.new_event_loop()
    loop.call_soon(_callback, "canary")
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()

    assert "canary" in capsys.readouterr().err


async def test_a_task_is_told_by_its_coroutine(path: Path) -> None:
    """Which task failed is known by the name of its code, and asyncio's constant sentences are kept."""

    async def permanent(secret: str) -> None:
        raise ValueError(secret)

    task = asyncio.ensure_future(permanent("canary"))
    await asyncio.wait({task})
    logs.on_loop_exception(
        asyncio.get_running_loop(),
        {"message": "Task exception was never retrieved", "task": task, "exception": task.exception()},
    )

    assert "what='Task exception was never retrieved' coroutine=" in text(path)
    assert "permanent" in text(path)
    assert "canary" not in text(path)


@pytest.mark.parametrize(
    ("message", "arguments", "said"),
    [
        ("Executing %s took %.3f seconds", ("<Handle canary>", 1.0), "Executing %s took %.3f seconds"),
        ("Exception in callback canary()", (), "asyncio reported an error"),
    ],
)
def test_asyncios_own_logger_says_its_template_only(
    path: Path, message: str, arguments: tuple[object, ...], said: str
) -> None:
    """Its arguments are handles with callbacks' arguments, in 3.13 too."""
    logging.getLogger("asyncio").warning(message, *arguments)

    assert said in text(path)
    assert "canary" not in text(path)


# ---- redaction ----

KEPT = [
    "the passphrase: type `vault-client unlock`",
    "wrong token code, type another one",
    "serve port=9169 profile=web-admin code=InvalidToken account=123456789012",
    "assume role arn=arn:aws:iam::123456789012:role/WebAdmin serial=arn:aws:iam::123456789012:mfa/franklin",
    "renew session seconds=123456 left=1234567",
    "frame /usr/lib/python3.11/site-packages/botocore/credentials.py:123 fetch",
    "digest 0123456789abcdef0123456789abcdef01234567 0000000000000000000000000000000000000000",
]
CUT = {
    "id AKIAIOSFODNN7EXAMPLE used": "id …MPLE used",
    "{'SecretAccessKey': 'short/secret+'}": "{'SecretAccessKey': '[redacted]'}",
    '{"secret_access_key":"horse battery"}': '{"secret_access_key":"[redacted]"}',
    "<SecretAccessKey>wJalrXUtnFEMI/K7MDENG</SecretAccessKey>": "<SecretAccessKey>[redacted]</SecretAccessKey>",
    "AWS_SESSION_TOKEN=abcdef next": "AWS_SESSION_TOKEN=[redacted] next",
    "Authorization: Bearer abcdefghijklmnopq": "Authorization: Bearer [redacted]",
    "(b'Authorization', b'xyzzy12')": "(b'Authorization', b'[redacted]')",
    "token IQoJb3JpZ2luX2VjEXAMPLE+/=": "token [redacted]",
    "key wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKE9 end": "key [redacted] end",
    "MFA code 123456 was refused": "MFA code [redacted] was refused",
    "123456 is not the code": "[redacted] is not the code",
    "TokenCode=123456&Version": "TokenCode=[redacted]&Version",
}


@pytest.mark.parametrize("said", KEPT)
def test_prose_and_names_are_left_alone(said: str) -> None:
    """A log that redacts its own sentences helps nobody."""
    assert logs.redacted(said) == said


@pytest.mark.parametrize("said", CUT)
def test_what_looks_like_a_secret_is_cut(said: str) -> None:
    """The patterns of security.md item 23."""
    assert logs.redacted(said) == CUT[said]


def test_what_another_process_carries_is_redacted_there() -> None:
    """The keeper's lines leave it without what looks like a secret, in text and frames: never as they were said."""
    for exc in (None, MfaRequired("TokenCode=123456&Version was refused")):
        trace = None if exc is None else (type(exc), exc, None)
        record = logging.LogRecord("vaultd.keeper", logging.INFO, "", 0, "MFA code %s", ("123456",), trace)
        text, frames = logs.carried(record)

        assert text == "MFA code [redacted]"
        assert "123456" not in frames
        assert ("TokenCode=[redacted]" in frames) is (exc is not None), "control: the frames are told"


def test_redaction_is_linear() -> None:
    """Hostile text must not stall the loop: a megabyte of near-misses comes back."""
    for unit in ("A", "token=", "Aa1", "mfa 12345 ", "'", "AKIA"):
        assert logs.redacted(unit * 20_000)


# ---- the file ----


def test_a_full_disk_costs_lines_only(tmp_path: Path, undo: None) -> None:
    """Nothing is raised, nothing printed; when there is room again the log goes on."""
    full = [True]

    def fault(operation: str, path: Path) -> None:
        if operation == "write" and full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "vaultd.log"
    destination = logs.configure(files=Files(fault=fault), path=path)
    logging.getLogger("vaultd").info("one")
    full[0] = False
    logging.getLogger("vaultd").info("two")

    assert isinstance(destination, logs.FileLog)
    assert destination.lost == 1
    assert "one" not in text(path)
    assert "two" in text(path)


def test_the_log_is_rotated_by_size(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One predecessor is kept: a daemon that runs for months does not fill the disk."""
    monkeypatch.setattr(logs, "MAX_BYTES", 200)
    for number in range(20):
        logging.getLogger("vaultd").info("serve number=%d", number)

    assert sorted(each.name for each in path.parent.iterdir()) == ["vaultd.log", "vaultd.log.1"]
    assert "number=19" in text(path)
    assert path.stat().st_size < 300


def test_warnings_go_into_the_log(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Python's warnings would be the one thing on stderr."""
    logging.getLogger("py.warnings").warning("%s", "deprecated thing")
    warn: Callable[..., None] = warnings.showwarning
    warn("shown thing", UserWarning, "f.py", 1)

    assert "deprecated thing" in text(path)
    assert "shown thing" in text(path)
    assert capsys.readouterr().err == ""


def test_a_listener_without_descriptors_is_one_line_a_minute(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop reports each try to accept: thousands of them are one line, until a minute has passed; what else it
    reports is not lost.
    """
    loop, later = asyncio.new_event_loop(), time.time() + logs.RARELY + 60
    try:
        for _ in range(1000):
            logs.on_loop_exception(loop, {"message": "socket.accept() out of system resource"})
        logs.on_loop_exception(loop, {"message": "Task was destroyed but it is pending!"})
        monkeypatch.setattr(time, "time", lambda: later)
        logs.on_loop_exception(loop, {"message": "socket.accept() out of system resource"})
    finally:
        loop.close()
    said = [line.partition("loop: ")[2].split()[0] for line in text(path).splitlines()]
    assert said == ["refuse", "fail", "refuse"]
