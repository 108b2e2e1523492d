"""The picker before the real daemon, and what every command says about a name that is nearly one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.client.emulated import Watched
from tests.client.terminal import start
from tests.process.harness import BIN, PROFILES, Emulator, Home, until

pytestmark = pytest.mark.process


@contextmanager
def watched(home: Home, *arguments: str) -> Iterator[Watched]:
    """A command of the client on a terminal that an emulator shows."""
    env = {**home.env, "TERM": "xterm-256color"}
    shown = Watched(start([str(BIN / "vault-client"), *arguments], env=env, piped=True), 100, 30)
    try:
        yield shown
    finally:
        shown.running.close()


def rewritten(home: Home, text: str) -> None:
    """Another config file, and the daemon has seen it: it looks once a second."""
    before = home.link("GET", "/v1/profiles")
    (home.directory / ".aws/config").write_text(text)
    until(lambda: bool(home.link("GET", "/v1/profiles") != before), "the daemon sees the new config")


def test_chosen_asked_served(home: Home, emulator: Emulator) -> None:
    """The list, then the MFA question on the same terminal, then CMD with the role; the next list has it first."""
    with watched(home, "exec", "--", "sh", "-c", "echo $VAULTD_PROFILE") as shown:
        seen = shown.shows("Enter chooses")
        shown.type("audit\r")
        shown.shows("MFA code:")
        shown.type(emulator.code() + "\n")
        ended = shown.end()
        assert (ended.status, ended.out) == (0, "audit\n"), ended
        assert shown.restored
    with watched(home, "use", "--shell", "sh") as shown:
        again = shown.shows("Enter chooses")
        shown.type("\x1b")
        assert shown.end().status == 130

    assert len(seen) == len(again) == 30
    assert [line for line in seen[1:8] if line.startswith(">")] == [seen[1]]
    assert {line[2:].split()[0] for line in seen[1:8]} == {line[2:].split()[0] for line in again[1:8]} == {
        "web-admin", "audit", "long-ops", "long-ops-2h", "name-lock", "if-exists", "chained",
    }  # fmt: skip
    assert again[1].split()[:4] == [">", "audit", "345678901234", "Audit"]
    assert "fresh" in again[1]


def test_a_config_edited_while_it_is_open(home: Home) -> None:
    """The name that was chosen is no profile any more: refused, with the nearest, and nobody was asked for a code."""
    with watched(home, "use", "--shell", "sh") as shown:
        shown.shows("Enter chooses")
        rewritten(home, PROFILES.replace("[profile audit]", "[profile audits]"))
        shown.type("audit\r")
        ended = shown.end()

    assert ended.status == 1
    said = ended.err.replace("\n", "")
    assert "audit" in said
    assert "Did you mean audits?" in said
    assert ended.out == "false;\n"
    assert home.asked() == 0


def test_without_any_profile(home: Home) -> None:
    """A config that has none: what to write."""
    rewritten(home, "")
    with watched(home, "use", "--shell", "sh") as shown:
        ended = shown.end()

    assert ended.status == 1
    assert "write `[profile NAME]`" in ended.err.replace("\n", "")


NEAR = [
    ("use web-admim --shell sh", "web-admin"),
    ("exec web-admim -- true", "web-admin"),
    ("login web-admim --stdout", "web-admin"),
    ("export web-admim", "web-admin"),
    ("credential-process web-admim", "web-admin"),
    ("explain web-admim", "web-admin"),
    ("refresh web-admim", "web-admin"),
    ("clear web-admim", "web-admin"),
    ("doctor --sdk --profile web-admim", "web-admin"),
    ("mfa identitty", "identity"),
    ("remove identitty", "identity"),
    ("rotate identitty", "identity"),
    ("lst", "list"),
]


@pytest.mark.parametrize(("line", "meant"), NEAR, ids=[line.split()[0] for line, _ in NEAR])
def test_near_misses(home: Home, line: str, meant: str) -> None:
    """A wrong name is refused, and the nearest is named; nothing is done with it."""
    ended = home.client(*line.split())

    assert ended.status in {1, 2}, ended
    assert "id you mean" in ended.err, ended
    assert meant in ended.err.partition("id you mean")[2]
    assert home.link("GET", "/v1/grants")["grants"] == []


def test_a_log_of_nobody(home: Home, emulator: Emulator) -> None:
    """The log of a name that no line and no profile has says so, and the nearest; one that is unused is just silent."""
    home.use("web-admin", emulator)
    wrong, right, unused = (home.client("log", "--profile", name) for name in ("web-admim", "web-admin", "audit"))

    assert (wrong.status, wrong.out) == (0, "")
    assert "no profile has that name. Did you mean web-admin?" in wrong.err
    assert (right.err, unused.err) == ("", "")
    assert "grant.create" in right.out


def test_a_near_grant(home: Home, emulator: Emulator) -> None:
    """Grants are found by their ids alone: a cut one is refused, and the way to the list is named."""
    grant = home.use("web-admin", emulator)["VAULTD_GRANT"]
    ended = home.client("revoke", grant[:-2])

    assert ended.status == 1
    assert "vault-client grants" in ended.err
    assert [each["id"] for each in home.link("GET", "/v1/grants")["grants"]] == [grant]
