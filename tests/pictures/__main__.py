"""`python -m tests.pictures [DIRECTORY]`: the picker and `status --watch`, as they look at 80 by 24, from real runs.

Rule: what is drawn is what the real client drew for a real daemon on a terminal; nothing is put in or taken out. The
profiles are made up, AWS is the emulator. From one making to the next times, pids and ports change, and no more.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyte

from tests.client.emulated import Watched
from tests.client.terminal import start
from tests.pictures.svg import Screen, drawn
from tests.process.harness import BIN, DEADLINE, ROOT, SERIAL, Emulator, Home, short_directory, until

_COLUMNS, _LINES = 80, 24
#: name, account and role: four that the emulator knows, others to be chosen among.
_PROFILES = (
    ("web-admin", "234567890123:role/WebAdmin"),
    ("audit", "345678901234:role/Audit"),
    ("long-ops", "234567890123:role/LongOps"),
    ("no-such-role", "234567890123:role/Removed"),
    ("shop-prod-admin", "456789012345:role/Administrator"),
    ("shop-prod-readonly", "456789012345:role/ReadOnly"),
    ("shop-staging", "567890123456:role/Developer"),
    ("data-prod-etl", "678901234567:role/EtlOperator"),
    ("data-sandbox", "789012345678:role/Developer"),
    ("payments-prod", "890123456789:role/BreakGlass"),
    ("team prod", "901234567890:role/PowerUser"),
    ("dns", "901234567890:role/Route53"),
    ("deploy", "234567890123:role/LongOps"),
)
#: An SDK that asks for its keys and goes on working; one that asks and is told why not.
_WORKS = "import boto3, time; boto3.Session().get_credentials().get_frozen_credentials(); time.sleep(600)"
_FAILS = "import boto3; boto3.Session().get_credentials()"
#: The client needs no environment of ours: by the system's interpreter it is shown as it is where it was installed.
_SYSTEM = Path("/usr/bin/python3")


def _config() -> str:
    ends = {"deploy": "duration_seconds = 7200\n"}  # which takes a code of its own (aws-facts §1.2)
    return "".join(
        f'[profile "{name}"]\nsource_profile = identity\nrole_arn = arn:aws:iam::{role}\nmfa_serial = {SERIAL}\n'
        f"role_session_name = {name.replace(' ', '-')}\n{ends.get(name, '')}\n"
        for name, role in _PROFILES
    )


@contextmanager
def lived_in() -> Iterator[Home]:
    """A daemon that has been used: sessions, two programs at work, two that were refused, and an open question."""
    with short_directory() as directory, Emulator.running() as emulator, ExitStack() as stack:
        home = stack.enter_context(Home.make(directory, emulator, profiles=_config()).daemon())
        assert home.add(emulator).status == 0
        assert home.client("mfa", "--token-code", emulator.code()).status == 0
        _used(home, emulator)
        for profile in ("web-admin", "audit"):
            stack.enter_context(home.terminal("vault-client", "exec", profile, "--", f"{BIN}/python", "-c", _WORKS))
        until(lambda: home.events("credentials.serve") >= 2, "both programs have their keys")
        _refused(home, emulator)
        asking = stack.enter_context(home.terminal(*_client(), "exec", "deploy", "--", "true", environment=_PATH))
        asking.expect("MFA code: ")
        yield home


def _used(home: Home, emulator: Emulator) -> None:
    """How often each was used, and a session that is older than the others."""
    older = {
        "match": {"op": "AssumeRole", "session_name": "audit"},
        "kind": "past_expiration",
        "times": 1,
        "arg": -2290,
    }
    emulator.ctl("fault", older)
    for profile, times in (("web-admin", 3), ("audit", 2), ("long-ops", 1)):
        for _ in range(times):
            assert home.client("exec", profile, "--", "true").status == 0


def _refused(home: Home, emulator: Emulator) -> None:
    """A role that AWS does not give, and a token that is used for another profile than its own."""
    home.client("exec", "no-such-role", "--", "true")
    held = home.use("audit", emulator)
    held["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = f"http://127.0.0.1:{home.port}/v1/credentials/web-admin"
    home.run(f"{BIN}/python", "-c", _FAILS, environment=held)
    assert home.client("revoke", held["VAULTD_GRANT"]).status == 0


def _client() -> list[str]:
    return [*([str(_SYSTEM)] if _SYSTEM.exists() else []), str(BIN / "vault-client")]


_PATH = {"PYTHONPATH": str(ROOT / "client")}


@contextmanager
def _watched(home: Home, *arguments: str) -> Iterator[Watched]:
    terminal = {"TERM": "xterm-256color", "LANG": "C.UTF-8"}
    running = start([str(BIN / "vault-client"), *arguments], env={**home.env, **terminal}, columns=_COLUMNS)
    try:
        yield Watched(running, _COLUMNS, _LINES)
    finally:
        running.close()


def _picture(watched: Watched, title: str) -> str:
    screen = Screen(_COLUMNS, _LINES)
    pyte.ByteStream(screen).feed(watched.raw)
    assert screen.text == watched.lines, "the picture is not what was on the terminal"
    return drawn(screen, title)


def _shows(watched: Watched, texts: tuple[str, ...], *, without: str = "\0") -> None:
    """Read until all of that is on the screen. What redraws itself never falls silent: this has an end of its own."""
    end = time.monotonic() + DEADLINE

    def holds(lines: list[str]) -> bool:
        assert time.monotonic() < end, f"it never came: {lines}"
        text = "\n".join(lines)
        return all(each in text for each in texts) and without not in text

    watched.until(holds)


def picker(home: Home) -> str:
    """`vault-client use`, after `prod` was typed."""
    with _watched(home, "use") as watched:
        _shows(watched, ("web-admin", "team prod", "dns"))
        watched.type("prod")
        _shows(watched, ("payments-prod",), without="dns")
        picture = _picture(watched, "vault-client use: the profiles that fit what was typed, prod")
        watched.type("\x03")
        assert watched.end().status == 130
    return picture


def watch(home: Home) -> str:
    """`vault-client status --watch`, once it has heard of everything."""
    with _watched(home, "status", "--watch") as watched:
        _shows(watched, ("web-admin", "deploy", "python", "ProfileMismatch"))
        picture = _picture(watched, "vault-client status --watch: sessions, an open question, grants and denials")
        watched.type("q")
        assert watched.end().status == 0
    return picture


def main(arguments: list[str]) -> int:
    """Writes picker.svg and watch.svg."""
    directory = Path(arguments[0]) if arguments else ROOT / "docs/pictures"
    directory.mkdir(parents=True, exist_ok=True)
    with lived_in() as home:
        for name, take in (("picker", picker), ("watch", watch)):
            file = directory / f"{name}.svg"
            file.write_text(take(home))
            print(f"{file.stat().st_size:6} bytes  {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
