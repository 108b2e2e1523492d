"""The watch sees what it is there for: each invariant broken on purpose, in the product where that can be done."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.fuzz.__main__ import finding_of
from tests.fuzz.files import CANARY, AuditFile, FileTarget, GrantsFile, MetadataTokens
from tests.fuzz.foreign import AwsVaultFiles
from tests.fuzz.listeners import ControlSocket, DoorsSocket, Endpoint
from tests.fuzz.target import GROWTH_KIB, MARK, Finding, Target, Watch
from tests.store.aws_vault.craft import item
from vaultd.engine import audit_chain
from vaultd.engine.seams import ForeignKey
from vaultd.errors import BadRequest, VaultdError
from vaultd.model import metadata_tokens
from vaultd.store import aws_vault
from vaultd.web import app, guard, handover
from vaultd.web.connection import Connection
from vaultd.web.control import Control
from vaultd.web.ecs import Credentials
from vaultd.web.replies import Reply

_HEAD = b"\x00GET /v1/credentials/web-admin HTTP/1.1\r\nHost: 127.0.0.1:%PORT%\r\n"
_GOOD = _HEAD + b"Authorization: %TOKEN%\r\n\r\n"


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Breaks one thing of the product, and then sees that an input of a target is a finding."""
    made: list[Target] = []

    def expects(reader: type[Any], data: bytes, said: str, where: object, name: str, instead: object) -> None:
        target = reader()
        made.append(target)
        target.one(data)
        monkeypatch.setattr(where, name, instead)
        with pytest.raises(Finding, match=said):
            target.one(data)
        monkeypatch.undo()

    yield expects
    for each in made:
        each.close()


def _raises(*_: object, **__: object) -> Any:
    raise RuntimeError("planted")


def test_a_500_is_a_finding(broken: Callable[..., None]) -> None:
    """An exception in the product reaches the client as 500, and the log as a traceback."""
    broken(Endpoint, _GOOD, "status 500", app.SdkSide, "_granted", _raises)
    broken(ControlSocket, b"\x00GET /v1/nothing HTTP/1.1\r\nHost: v\r\n\r\n", "status 500", Control, "_heard", _raises)


def test_reflected_bytes_are_a_finding(broken: Callable[..., None]) -> None:
    """A path in the answer, and a header in the log."""
    asked = b"\x00GET /" + MARK + b" HTTP/1.1\r\nHost: localhost\r\nX: " + MARK + b"\r\n\r\n"

    def echo(self: app.SdkSide, message: Any, sighting: object) -> Reply:
        return Reply(b"HTTP/1.1 404 Not Found\r\nContent-Length: 12\r\n\r\n" + message.path.encode())

    def tell(self: guard.Guard, message: Any) -> None:
        logging.getLogger("vaultd").debug("see headers=%s", message.raw_headers)

    broken(Endpoint, asked, "in what was said", app.SdkSide, "_decided", echo)
    broken(Endpoint, asked, "in the log", guard.Guard, "refusal", tell)


def test_keys_without_the_token_are_a_finding(broken: Callable[..., None]) -> None:
    """Whatever token comes opens the first grant."""

    def any_token(self: Credentials, token: bytes) -> object:
        return self._grants.list()[0]

    broken(Endpoint, _HEAD + b"Authorization: x\r\n\r\n", "canary-secret", Credentials, "grant", any_token)


def test_a_secret_of_a_foreign_store_is_a_finding(broken: Callable[..., None]) -> None:
    """In the line that says what is wrong with a key."""
    sealed = b"\x02" + item("mine", SecretAccessKey=CANARY, SessionToken="t")

    def tell(name: str, exc: Exception) -> ForeignKey:
        return ForeignKey(name, wrong=CANARY)

    broken(AwsVaultFiles, sealed, "a secret is in what was said", aws_vault, "_unfit", tell)


def test_a_connection_that_is_left_is_a_finding(broken: Callable[..., None]) -> None:
    """The crowd is not told of its loss."""

    def lost(self: Connection, exc: BaseException | None) -> None:
        self._close = True
        if self._timer is not None:
            self._timer.cancel()

    broken(Endpoint, _GOOD, "connection was left", Connection, "connection_lost", lost)


def test_a_descriptor_that_is_left_is_a_finding(broken: Callable[..., None]) -> None:
    """One that was refused is not closed."""

    def refuse(descriptor: int, *, place: object) -> Any:
        raise BadRequest("planted")

    line = b'\x02{"protocol": 1, "dialect": "imds", "profile": "web-admin"}\n'
    target = DoorsSocket()
    try:
        target.one(line)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(handover, "given_listener", refuse)
            with pytest.raises(Finding, match=r"descriptor|hand-over"):
                target.one(line)
    finally:
        target.close()


def test_a_token_that_nobody_made_is_a_finding(broken: Callable[..., None]) -> None:
    """The check is gone."""
    broken(MetadataTokens, b"x" * 56, "accepted", metadata_tokens, "check", lambda *_: True)


def test_a_lost_line_is_a_finding(broken: Callable[..., None]) -> None:
    """The chain cannot be written, and the audit log says nothing of it but a number."""

    def unwritten(*_: object, **__: object) -> bytes:
        raise VaultdError("planted")

    broken(AuditFile, b"", "line was lost", audit_chain, "line_of", unwritten)


def test_an_exception_that_is_not_ours_goes_through() -> None:
    """What a reader lets out ends the run, whatever its type."""

    class Careless(FileTarget):
        def read(self, data: bytes) -> None:
            raise RecursionError

    target = Careless()
    with pytest.raises(RecursionError):
        target.one(b"")
    target.close()


def test_an_internal_error_is_no_typed_error() -> None:
    """The base class of our errors is 500."""

    class Vague(FileTarget):
        def read(self, data: bytes) -> None:
            raise VaultdError("planted")

    target = Vague()
    with pytest.raises(Finding, match="internal"):
        target.one(b"")
    target.close()


def test_seeds_of_a_file_are_read_as_something() -> None:
    """The seeds are files of ours, so that mutations begin behind the first check."""
    target = GrantsFile()
    for seed in target.seeds():
        target.read(seed)
    target.close()


def test_a_canary_in_an_error_or_a_log_is_a_finding() -> None:
    """Both places are looked at, and nothing of the time before."""
    with Watch() as watch:
        watch.check("nothing of it", (MARK,))
        with pytest.raises(Finding, match="said"):
            watch.check(f"field {MARK.decode()}", (MARK,))
        logging.getLogger("vaultd.some").debug("see %s", MARK.decode())
        with pytest.raises(Finding, match="log"):
            watch.check("", (MARK,))
        watch.clear()
        logging.getLogger("vaultd.some").error("planted")
        with pytest.raises(Finding, match="error was logged"):
            watch.check("", ())
        watch.clear()
        watch.check("", (MARK,))


def test_growth_and_an_end_of_its_own_are_findings() -> None:
    """What no input can be blamed for: memory, a run that was killed, and one that did nothing."""
    quiet = {"execs": 9, "rss_start": 80_000, "rss_end": 90_000, "finding": None}
    assert finding_of(quiet, 0) is None
    assert finding_of({**quiet, "rss_end": 80_000 + GROWTH_KIB}, 0)
    assert finding_of(quiet, 77)
    assert finding_of({**quiet, "execs": 0}, 0)
    assert finding_of({**quiet, "finding": "x"}, 77) == "x"
