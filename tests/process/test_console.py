"""`login` against the real daemon, its keeper in a process of its own, the strict STS, and a real browser."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.process.harness import Emulator, Home, until

pytestmark = pytest.mark.process
#: A browser that follows where it is led, after a look at every argv of the machine.
SURF = """
import glob, json, os, sys, urllib.request
seen = b""
for path in glob.glob("/proc/[0-9]*/cmdline"):
    try:
        seen += open(path, "rb").read() + b"\\n"
    except OSError:
        pass
with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(sys.argv[1], timeout=20) as answer:
    found = {"address": sys.argv[1], "url": answer.url, "page": answer.read().decode(), "seen": seen.decode("latin-1")}
with open(os.environ["REPORT"] + ".new", "w") as file:
    json.dump(found, file)
os.rename(os.environ["REPORT"] + ".new", os.environ["REPORT"])
"""


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator.running() as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, emulator: Emulator) -> Iterator[Home]:
    """A daemon that logs all it can, with franklin's key."""
    emulator.ctl("reset", {})
    with Home.make(tmp_path, emulator, VAULTD_LOG="debug").daemon("--debug") as running:
        assert running.add(emulator).status == 0
        yield running


def written(home: Home) -> bytes:
    """All that daemon, keeper and client wrote in this home, and all that was printed but by --stdout."""
    files = (each for each in home.directory.joinpath("vaultd").rglob("*") if each.is_file())
    printed = "".join(ran.err for ran in home.ran)
    return b"".join(each.read_bytes() for each in files) + printed.encode()


def processes(home: Home) -> bytes:
    """The command lines and environments of the daemon and its keeper."""
    daemon = home.pid()
    (keeper,) = Path(f"/proc/{daemon}/task/{daemon}/children").read_text().split()
    pids = (daemon, keeper)
    return b"".join(Path(f"/proc/{pid}/{part}").read_bytes() for pid in pids for part in ("cmdline", "environ"))


def test_a_browser_is_signed_in(home: Home, emulator: Emulator, tmp_path: Path) -> None:
    """From the code to the console's page; URL and sign-in token are on no argv, in no log, audit line or output."""
    surf, report = tmp_path / "surf", tmp_path / "report"
    surf.write_text(f"#!{sys.executable}\n{SURF}")
    surf.chmod(0o755)
    environ = {"BROWSER": str(surf), "REPORT": str(report)}
    ran = home.client("login", "web-admin", "--service", "s3", "--token-code", emulator.code(), environment=environ)
    assert (ran.status, ran.out) == (0, ""), ran
    assert "opened the console of web-admin, account 234567890123" in ran.err

    until(report.exists, "the browser reports")
    found = json.loads(report.read_text())
    token = parse_qs(urlsplit(found["url"]).query)["SigninToken"][0]
    assert "signed in as arn:aws:sts::234567890123:assumed-role/WebAdmin/franklin" in found["page"]
    assert "/s3/home?region=" in found["page"]
    assert found["address"] in found["seen"]  # control: every argv was seen
    for place in (found["seen"].encode("latin-1"), written(home), processes(home)):
        assert token[:24].encode() not in place
        assert b"SigninToken=" not in place
    assert [call["params"] for call in emulator.calls("getSigninToken")] == [{}]  # via M: no SessionDuration
    (line,) = [each for each in home.audit() if each.get("reason") == "console sign-in"]
    assert (line["event"], line["profile"]) == ("credentials.serve", "web-admin")


def test_stdout_and_what_fails(home: Home, emulator: Emulator) -> None:
    """The URL on stdout alone; a federation endpoint that is away or talks nonsense is exit 75, without a secret."""
    first = home.client("login", "web-admin", "--stdout", "--logout-first", "--token-code", emulator.code())
    assert first.status == 0, first
    assert first.out.startswith(f"{emulator.url}/oauth?Action=logout&redirect_uri=http")
    token = parse_qs(urlsplit(parse_qs(urlsplit(first.out.strip()).query)["redirect_uri"][0]).query)["SigninToken"][0]

    emulator.fault("http", op="getSigninToken", arg=503, times=3)
    away = home.client("login", "web-admin", "--stdout")
    emulator.fault("html200", op="getSigninToken", times=3)
    portal = home.client("login", "web-admin", "--stdout")
    assert [(each.status, each.out) for each in (away, portal)] == [(75, ""), (75, "")]
    assert "GetSigninToken answered 503; try again, or run `vaultd check`" in away.err
    issued = [call["issued"] for call in emulator.calls("AssumeRole")]
    keys = emulator.ctl(f"token?akid={issued[-1]}")
    for secret in (token, keys["token"], keys["secret"]):
        assert secret[:24].encode() not in written(home).replace(first.out.encode(), b"")
        assert secret[:24].encode() not in processes(home)


@pytest.mark.needs("chromium")
def test_a_real_chromium_follows(home: Home, emulator: Emulator, tmp_path: Path) -> None:
    """Headless Chromium is started with our address, is led to the sign-in, and shows the emulator's console page."""
    wrapper, page = tmp_path / "surf", tmp_path / "page"
    options = (
        "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --disable-component-update "
        f"--disable-background-networking --disable-extensions --timeout=20000 --user-data-dir={tmp_path}/chromium"
    )
    wrapper.write_text(f'#!/bin/sh\nchromium {options} --dump-dom "$1" > {page}.new && mv {page}.new {page}\n')
    wrapper.chmod(0o755)
    ran = home.client("login", "web-admin", "--token-code", emulator.code(), environment={"BROWSER": str(wrapper)})
    assert (ran.status, ran.out) == (0, ""), ran

    until(page.exists, "chromium shows its page", seconds=60)
    assert "signed in as arn:aws:sts::234567890123:assumed-role/WebAdmin/franklin" in page.read_text()
    (login,) = emulator.calls("login")
    assert (login["status"], bool(re.search("HeadlessChrome|Chrome", login["user_agent"]))) == (200, True)
