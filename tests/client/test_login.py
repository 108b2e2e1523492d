"""`login`: what is sent, which browser is started, and that the sign-in URL reaches it and nobody else."""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.client.conftest import Run
from tests.client.stub import Stub, environment, error, mfa_required
from tests.client.terminal import OnTerminal
from vault_client.browser import Browser, contained, find
from vaultd.host.hardening import dumpable

ROUTE = "/v1/profiles/web-admin/signin"
TOKEN = "canary-signin-token-QUJD"
URL = f"https://signin.aws.amazon.com/federation?Action=login&Issuer=vaultd&SigninToken={TOKEN}"
MADE = {
    "url": URL,
    "expires_at": "2099-11-22T20:00:00Z",
    "console_until": "2099-11-22T21:00:00Z",
    "destination": "https://us-east-1.console.aws.amazon.com/console/home?region=us-east-1",
    "account_id": "234567890123",
    "doubt": "",
}
#: Soft and hard limit of a core.
FREE = (1 << 24, 1 << 24)
#: A browser: looks at every argv of the machine as it starts, then follows the address as browsers do.
COMES = """
import glob, http.client, json, os, sys, urllib.parse
seen = b""
for path in glob.glob("/proc/[0-9]*/cmdline"):
    try:
        seen += open(path, "rb").read() + b"\\n"
    except OSError:
        pass
there = urllib.parse.urlsplit(sys.argv[-1].rpartition("url=")[2])
ahead = http.client.HTTPConnection(there.hostname, there.port); ahead.connect()
asks = http.client.HTTPConnection(there.hostname, there.port, timeout=20)
asks.request("GET", "/favicon.ico"); nothing = asks.getresponse(); nothing.read()
asks.request("GET", there.path); answer = asks.getresponse()
try:
    http.client.HTTPConnection(there.hostname, there.port, timeout=5).connect(); again = "open"
except OSError:
    again = "closed"
json.dump({"argv": sys.argv[1:], "cmdlines": seen.decode("latin-1"), "status": answer.status, "icon": nothing.status,
           "fields": dict(answer.getheaders()), "again": again,
           "own": os.getsid(0) == os.getpid(), "null": os.readlink("/proc/self/fd/0") == os.devnull,
           "aws": [n for n in os.environ if n[:4] == "AWS_"]},
          open(os.environ["REPORT"] + ".new", "w"))
os.rename(os.environ["REPORT"] + ".new", os.environ["REPORT"])
"""


@pytest.fixture
def place(tmp_path: Path, stub: Stub) -> Path:
    """Where browsers are; the daemon gives a URL."""
    stub.answers["POST", ROUTE] = (200, MADE)
    made = tmp_path / "bin"
    made.mkdir()
    return made


@pytest.fixture(autouse=True)
def _dumpable() -> Iterator[None]:
    """The client ran in this process, which goes on to other tests."""
    yield
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # linux/prctl.h PR_SET_DUMPABLE


def browser(place: Path, text: str, name: str = "surf") -> Path:
    """A program of that name."""
    made = place / name
    made.write_text(f"#!{sys.executable}\n{text}")
    made.chmod(made.stat().st_mode | stat.S_IXUSR)
    return made


def waited(report: Path) -> dict[str, object]:
    """The browser writes it after the client has gone on."""
    found: dict[str, object] = json.loads(written(report))
    return found


def written(report: Path) -> str:
    """What is in it, once it is."""
    for _ in range(4000):
        if report.exists() and (text := report.read_text()):
            return text
        os.sched_yield()
        signal.sigtimedwait((), 0.005)
    raise AssertionError("the browser wrote no report")


def test_the_url_reaches_the_browser_and_no_argv(process: Run, place: Path, tmp_path: Path) -> None:
    """An address of ours on argv, the URL by a redirect that is given once; no AWS variable goes along."""
    report = tmp_path / "report"
    ran = process(
        "login",
        "web-admin",
        BROWSER=str(browser(place, COMES)),
        REPORT=str(report),
        AWS_CONTAINER_X="y",
        SSH_CONNECTION="x",
    )

    assert (ran.status, ran.out) == (0, "")
    assert re.fullmatch(
        r"vault-client: opened the console of web-admin, account 234567890123: it is signed in until \S+( \S+)?\n",
        ran.err,
    )
    seen = waited(report)
    argv = seen["argv"]
    assert isinstance(argv, list)
    address = str(argv[0])
    assert len(argv) == 1
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{43}", address)
    assert (seen["status"], seen["icon"], seen["again"], seen["aws"]) == (303, 404, "closed", [])
    assert (seen["own"], seen["null"]) == (True, True)  # a session of its own, and no terminal
    fields = seen["fields"]
    assert isinstance(fields, dict)
    assert (fields["Location"], fields["Cache-Control"], fields["Referrer-Policy"]) == (URL, "no-store", "no-referrer")
    cmdlines = str(seen["cmdlines"])
    assert address in cmdlines  # control: the look at every argv sees what is there
    assert TOKEN not in cmdlines
    assert "SigninToken" not in cmdlines


@pytest.mark.parametrize(
    ("line", "sent"),
    [
        ("", {}),
        ("--service s3 --region eu-west-1", {"service": "s3", "region": "eu-west-1"}),
        ("--duration 8h --logout-first", {"duration_seconds": 28800, "logout_first": True}),
        ("--token-code 123456", {"token_code": "123456"}),
    ],
)
def test_what_is_asked(run: Run, stub: Stub, place: Path, line: str, sent: dict[str, object]) -> None:
    """Each option is one field; --stdout prints the URL alone on stdout, and says on stderr what it is."""
    ran = run("login", "web-admin", "--stdout", *line.split())

    assert (ran.status, ran.out) == (0, f"{URL}\n")
    assert stub.asked("POST", ROUTE) == [sent]
    assert ran.err.startswith("vault-client: this signs in whoever opens it; it is a credential until ")
    assert TOKEN not in ran.err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--service s3/x", "--service s3/x is no page of the console: give one such as s3 or ec2"),
        ("--region Mars", "--region Mars is no region: give one such as eu-west-1"),
        ("--duration 13h", "--duration 13h is not what AWS allows: choose from 15m to 12h"),
        ("--stdout --container", "login: --stdout opens no browser, so --container has nothing to do: choose one"),
        (
            "--token-code hunter2",
            "--token-code is not six digits, so nothing was sent: give the code that the device shows",
        ),
    ],
)
def test_what_cannot_be_meant(run: Run, stub: Stub, place: Path, line: str, said: str) -> None:
    """Nothing was asked of the daemon."""
    ran = run("login", "web-admin", *line.split())
    assert (ran.out, ran.err) == ("", f"vault-client: {said}\n")
    assert ran.status in {1, 2}
    assert stub.asked("POST", ROUTE) == []


def test_without_a_name(process: Run, stub: Stub) -> None:
    """No terminal: usage. On one the picker asks (tests/client/test_picker.py)."""
    ran = process("login")
    assert (ran.status, ran.err) == (2, "vault-client: login: PROFILE is missing: type `vault-client login --help`\n")


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        ({}, "no browser can be opened here"),
        ({"DISPLAY": ":0", "SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22"}, "no browser can be opened here"),
        ({"WSL_DISTRO_NAME": "Debian"}, "no browser can be opened here"),
        ({"BROWSER": "/nowhere/surf"}, "surf cannot be started"),
        ({"BROWSER": "FAILS"}, "fails failed"),
        ({"BROWSER": "FAILS:/nowhere/surf"}, "surf cannot be started"),
        ({"BROWSER": "'"}, "no browser can be opened here"),
    ],
)
def test_no_browser(process: Run, place: Path, environ: dict[str, str], why: str) -> None:
    """The URL is printed, with why and what it is; exit 0."""
    fails = browser(place, "raise SystemExit(1)", "fails")
    environ = {name: value.replace("FAILS", str(fails)) for name, value in environ.items()}
    ran = process("login", "web-admin", **{"PATH": str(place), **environ})

    assert (ran.status, ran.out) == (0, f"{URL}\n")
    assert ran.err.startswith(f"vault-client: {why}, so open this yourself; it is a credential until ")


def test_a_browser_that_hangs(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody comes: the address is closed, and the URL printed. The browser is left to its owner."""
    monkeypatch.setattr("vault_client.login.SECONDS", 0.05)
    monkeypatch.setattr("vault_client.login.SILENT", 0.01)
    hangs = Browser([str(browser(place, "import signal; signal.pause()"))])
    monkeypatch.setattr("vault_client.browser.find", lambda _: [hangs])
    ran = run("login", "web-admin")

    assert hangs._process is not None
    assert hangs._process.poll() is None
    hangs._process.kill()
    hangs._process.wait()
    assert (ran.status, ran.out) == (0, f"{URL}\n")
    waits, over = ran.err.splitlines()
    assert waits == "vault-client: waiting up to 0 s for surf to open the console", "nothing waits silently"
    assert "surf did not come for it within 0 s, so open this yourself" in over


def test_a_login_is_a_use(run: Run, stub: Stub, place: Path) -> None:
    """The picker shows first what is used; one that was refused is none."""
    stub.answers["POST", ROUTE] = [error(403, "RoleDenied", "AWS refused: run it again", 1), (200, MADE)]
    counted = stub.home / "state" / "habits.json"
    refused = run("login", "web-admin", "--stdout")
    before = counted.exists()
    done = run("login", "web-admin", "--stdout")

    assert (refused.status, before, done.status) == (1, False, 0)
    assert list(json.loads(counted.read_text())) == ["web-admin"]


def test_ctrl_c_before_the_browser_comes(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """130, the address is closed, nothing is printed that signs in, and the sentence says what was not done."""

    def interrupted(*_: object, **__: object) -> bool:
        raise KeyboardInterrupt

    comes = Browser([str(browser(place, "import signal; signal.pause()"))])
    monkeypatch.setattr("vault_client.browser.find", lambda _: [comes])
    monkeypatch.setattr("vault_client.redirect.Redirect.given", interrupted)
    ran = run("login", "web-admin")

    assert comes._process is not None
    comes._process.kill()
    comes._process.wait()
    assert (ran.status, ran.out) == (130, "")
    assert ran.err == (
        "vault-client: stopped before surf came for it, so it is not signed in: type `vault-client login web-admin`, "
        "or with --stdout for the URL\n"
    )


def test_the_next_browser_comes(process: Run, place: Path, tmp_path: Path) -> None:
    """$BROWSER is a list: one that fails is followed by the next, with an address of its own."""
    fails, comes = browser(place, "raise SystemExit(3)", "fails"), browser(place, COMES)
    ran = process("login", "web-admin", BROWSER=f"{fails}:{comes} --new %s", REPORT=str(tmp_path / "report"))
    assert (ran.status, ran.out) == (0, "")
    argv = waited(tmp_path / "report")["argv"]
    assert isinstance(argv, list)
    assert argv[0] == "--new"


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("firefox", [r"ext\+container:name=web-admin&url=http://127\.0\.0\.1:\d+/[\w-]{43}"]),
        ("chromium", ["--profile-directory=vaultd-web-admin", r"http://127\.0\.0\.1:\d+/[\w-]{43}"]),
    ],
)
def test_container(process: Run, place: Path, tmp_path: Path, name: str, shape: list[str]) -> None:
    """Cookies of its own for each profile, as Firefox's add-on and Chrome take it."""
    browser(place, COMES, name)
    environ = {"PATH": str(place), "DISPLAY": ":0", "REPORT": str(tmp_path / "report")}
    assert process("login", "web-admin", "--container", **environ).out == ""

    argv = waited(tmp_path / "report")["argv"]
    assert isinstance(argv, list)
    assert len(argv) == len(shape)
    assert all(re.fullmatch(want, have) for want, have in zip(shape, argv, strict=True))


def test_two_profiles_have_two_directories(place: Path) -> None:
    """However a name is spelt or long: with the cookies of another profile a browser is signed in as that one."""
    browser(place, "", "chromium")
    names = ["team prod", "team_prod", "team/prod", "é", "ü", "x" * 500, "x" * 501, "web-admin"]
    environ = {"PATH": str(place), "DISPLAY": ":0"}
    made = [contained(environ, name)[0]._command[1] for name in names]

    assert len(set(made)) == len(names)
    assert made[-1] == "--profile-directory=vaultd-web-admin"
    assert all(re.fullmatch(r"--profile-directory=vaultd-[\w.-]{1,120}", each, re.ASCII) for each in made)


def test_windows_browsers_are_outside() -> None:
    """From WSL, also where $BROWSER names it: its requests come by a relay that is root's. Control: elsewhere, and
    what runs in WSL itself, is of this user.
    """
    for named, wsl, outside in (("wslview", "Debian", True), ("/mnt/c/x/firefox.exe", "Debian", True),
                                ("firefox", "Debian", False), ("wslview", "", False)):  # fmt: skip
        environ = {"BROWSER": named, "WSL_DISTRO_NAME": wsl}
        assert [each.outside for each in find(environ)] == [outside]
    (made,) = contained({"BROWSER": "/mnt/c/x/firefox.exe", "WSL_DISTRO_NAME": "Debian"}, "web-admin")
    assert made.outside


@pytest.mark.needs("linux")
def test_the_limit_of_a_core(stub: Stub, place: Path) -> None:
    """0 before the URL is there: with --stdout nothing else keeps it from a core file. The hard one stays. Control: a
    command that holds no URL keeps what it was given.
    """
    started: list[subprocess.Popen[str]] = []
    seen: list[tuple[int, int]] = []
    asked = threading.Event()

    def looked(_: object) -> tuple[int, dict[str, str]]:
        assert asked.wait(20)
        seen.append(resource.prlimit(started[-1].pid, resource.RLIMIT_CORE))
        return 200, MADE

    stub.answers["POST", ROUTE] = stub.answers["POST", "/v1/lock"] = looked
    for line in (["login", "web-admin", "--stdout"], ["lock"]):
        asked.clear()
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "vault_client", *line], env=environment(stub), stdout=subprocess.PIPE, text=True,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, FREE),  # noqa: PLW1509 - it execs at once
            )
        )  # fmt: skip
        asked.set()
        out, _ = started[-1].communicate(timeout=30)
        assert started[-1].returncode == 0, out

    assert seen == [(0, FREE[1]), FREE]


@pytest.mark.needs("linux")
@pytest.mark.parametrize("limited", [True, False])
def test_no_core_holds_the_url(stub: Stub, place: Path, tmp_path: Path, *, limited: bool) -> None:
    """SIGQUIT while a browser does not come. A core_pattern that is a pipe does not ask for the limit, which is taken
    away here to show that. Control: a process with the same limits leaves a core.
    """
    stub.answers["POST", ROUTE] = (200, MADE)
    text = "import os, signal; print(os.getpid(), file=open(os.environ['REPORT'], 'w')); signal.pause()"
    env = environment(stub, BROWSER=str(browser(place, text)), REPORT=str(tmp_path / "report"))

    def ended(*command: str) -> int:
        with subprocess.Popen(
            [sys.executable, *command],
            env=env,
            cwd=tmp_path,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, FREE),  # noqa: PLW1509 - it execs at once
        ) as child:
            other = int(written(tmp_path / "report"))
            if not limited:
                resource.prlimit(child.pid, resource.RLIMIT_CORE, FREE)
            child.send_signal(signal.SIGQUIT)
            found = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        if other != child.pid:
            os.kill(other, signal.SIGKILL)
        (tmp_path / "report").unlink()
        assert found is not None
        return found.si_code

    assert ended("-c", text) == os.CLD_DUMPED
    assert ended("-m", "vault_client", "login", "web-admin") == os.CLD_KILLED


def test_container_without_such_a_browser(process: Run, stub: Stub, place: Path) -> None:
    """Said before anything is asked of the daemon."""
    browser(place, "", "xdg-open")
    ran = process("login", "web-admin", "--container", PATH=str(place), DISPLAY=":0")
    assert ran.status == 1
    assert ran.err.startswith("vault-client: neither Firefox nor a Chrome is here")
    assert stub.asked("POST", ROUTE) == []


def test_what_the_daemon_refuses(run: Run, stub: Stub) -> None:
    """Its sentence and its exit status; nothing on stdout."""
    stub.answers["POST", ROUTE] = error(400, "BadRequest", "the profile identity has no role_arn: type `it`", 1)
    assert run("login", "web-admin", "--stdout").__dict__ == {
        "status": 1, "out": "", "err": "vault-client: the profile identity has no role_arn: type `it`\n",
    }  # fmt: skip


def test_a_doubt_is_told(run: Run, stub: Stub) -> None:
    """What nobody could verify of a partition."""
    stub.answers["POST", ROUTE] = (200, {**MADE, "doubt": "nobody here could try one"})
    assert "vault-client: note: nobody here could try one\n" in run("login", "web-admin", "--stdout").err


def test_a_shorter_console_is_told(run: Run, stub: Stub) -> None:
    """The role gives less than --duration asked for: why, and when the console ends, beside the URL, too."""
    said = "AWS gives web-admin 3600 s at most, not the asked 28800 s: leave out or lower --duration."
    stub.answers["POST", ROUTE] = (200, {**MADE, "warnings": [said]})
    ran = run("login", "web-admin", "--stdout", "--duration", "8h")

    assert (ran.status, ran.out) == (0, f"{URL}\n")
    assert f"vault-client: warning: {said}\n" in ran.err
    assert re.search(r"; the console ends at 2099-11-2\d \d\d:00\n$", ran.err)
    stub.answers["POST", ROUTE] = (200, MADE)
    assert "warning" not in run("login", "web-admin", "--stdout").err  # control


def test_the_code_is_asked_for(terminal: Callable[..., OnTerminal], stub: Stub) -> None:
    """409: the question on the terminal, then the same call again; Ctrl-C leaves nothing."""
    stub.answers["POST", ROUTE] = [mfa_required(), (200, MADE)]
    ran = terminal("login", "web-admin", "--stdout", piped=True)
    ran.until("MFA code: ")
    ran.type("123456\n")
    ended = ran.end()
    assert (ended.status, ended.out) == (0, f"{URL}\n")
    assert len(stub.asked("POST", ROUTE)) == 2


def test_the_picker_chooses(terminal: Callable[..., OnTerminal], stub: Stub, place: Path) -> None:
    """Without a name on a terminal: what is chosen there signs in."""
    ran = terminal("login", "--stdout", "--service", "s3", piped=True)
    ran.until("sign in to")
    ran.until("web-admin")
    ran.type("\r")
    ended = ran.end()
    assert (ended.status, ended.out) == (0, f"{URL}\n")
    assert stub.asked("POST", ROUTE) == [{"service": "s3"}]


@pytest.mark.needs("linux")
@pytest.mark.parametrize("option", ["--stdout", "--region=eu-west-1"])
def test_memory_with_the_url_is_in_no_core(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    """Printed or opened: once it is held, this process is not dumpable, whatever core_pattern is."""
    monkeypatch.setattr("vault_client.browser.find", lambda _: [])
    before = dumpable()
    ran = run("login", "web-admin", option)

    assert (ran.status, before, dumpable()) == (0, True, False)
