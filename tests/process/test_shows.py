"""Issue 3, "Shows", by real processes: the empty home, kill -9, disks, the keyring, three hours, proxy and CA."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.aws.test_proxy import HOST, ca, proxied
from tests.process.gnome import gnome_keyring
from tests.process.harness import Emulator, Home, MovedClock, free_port, until
from tests.process.mounts import Mounts
from tests.process.wire import talk

__all__ = ["ca"]  # a fixture, used here by its name

pytestmark = pytest.mark.process


def listed(home: Home) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = home.client("grants", "--json").json()["grants"]
    return found


# ---- the empty home ----


def test_an_empty_home(directory: Path) -> None:
    """No AWS config, keyring, bus, terminal: serves, exit 0, says the next step; nothing of the caller is held."""
    port = free_port()
    env = {"PATH": Home(directory, port).env["PATH"], "HOME": str(directory)}
    script = f'exec 7>{directory}/held; said="$(vaultd start --port {port})"; echo "<$?> $said"'
    try:
        ran = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, timeout=90, check=False)
        told = subprocess.run(["vaultd", "status", "--json"], env=env, capture_output=True, text=True, check=False)
        running = json.loads(told.stdout)
        held = [str(each.readlink()) for each in Path(f"/proc/{running['pid']}/fd").iterdir()]
        healthy = talk(port, "GET /healthz")
    finally:
        subprocess.run(["vaultd", "stop"], env=env, capture_output=True, check=True)

    first, *rest = ran.stdout.splitlines()
    assert first == f"<0> vaultd {running['version']} serves on http://127.0.0.1:{port} (pid {running['pid']})"
    assert rest[0] == f"store: the encrypted file {directory}/.local/share/vaultd/secrets.sealed, locked"
    assert rest[-1].startswith("next: ")
    assert rest[-1].endswith("`vault-client unlock`")
    assert ran.stderr == ""
    assert (healthy.status, healthy.body) == (200, b"ok")
    assert f"{directory}/held" not in held
    assert not [each for each in held if each.startswith("/dev/pts")]


# ---- kill -9 ----


def test_kill_9_loses_nothing(home: Home, emulator: Emulator) -> None:
    """After SIGKILL and a start: the key, the MFA session without a second code, the open shell's token."""
    token = home.use("web-admin", emulator)["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
    before = home.get(token)
    home.kill()
    dead = home.client("list")
    assert home.run("vaultd", "start").status == 0
    after = home.get(token)
    other = home.client("exec", "audit", "--", "true")

    assert dead.status == 69
    assert after.status == 200
    assert after.body == before.body
    assert other.status == 0, other
    assert [each["name"] for each in home.client("identities", "--json").json()["identities"]] == ["identity"]
    assert (emulator.count("GetSessionToken"), home.asked()) == (1, 1)
    assert home.client("refresh", "web-admin").status == 0
    assert emulator.count("GetSessionToken") == 1


def test_an_exec_grant_ends_with_its_process(home: Home, emulator: Emulator) -> None:
    """SIGKILL of CMD: the grant is gone in 5 s, also when the daemon was dead at that moment; control: CMD lives."""
    home.client("mfa", "--token-code", emulator.code())
    with _sleeping(home) as first, _sleeping(home) as second:
        until(lambda: len(listed(home)) == 2, "both have their grants")
        tokens = {path.read_text() for path in (home.directory / "vaultd/run/grants").iterdir()}
        first.kill()
        first.wait()
        until(lambda: len(listed(home)) == 1, "the grant of the first is gone", seconds=5)
        home.kill()
        second.kill()
        second.wait()
        assert home.run("vaultd", "start").status == 0
        until(lambda: listed(home) == [], "the grant of the second is gone", seconds=5)

    assert len(tokens) == 2
    assert [home.get(token).status for token in tokens] == [401, 401]
    assert list((home.directory / "vaultd/run/grants").iterdir()) == []


@contextmanager
def _sleeping(home: Home) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["vault-client", "exec", "web-admin", "--", "sleep", "600"], env=home.env) as child:
        try:
            yield child
        finally:
            child.kill()


# ---- disks ----


@pytest.fixture
def on_small_disk(directory: Path, emulator: Emulator) -> Iterator[tuple[Home, Mounts]]:
    """A running daemon whose state directory is a disk of a megabyte."""
    with Mounts.private() as mounts:
        home = Home.make(directory, emulator)
        home.inside = mounts.inside
        home.state.mkdir(mode=0o700)
        mounts.run("mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(home.state))
        with home.daemon():
            assert home.add(emulator).status == 0
            yield home, mounts


def test_a_full_disk(on_small_disk: tuple[Home, Mounts], emulator: Emulator) -> None:
    """Valid sessions are served, lost lines are counted and told, a revoke holds; with room again all is well."""
    home, mounts = on_small_disk
    token = home.use("web-admin", emulator)["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
    grant = listed(home)[0]["id"]
    mounts.run("sh", "-c", f"dd if=/dev/zero of={home.state}/filler bs=1k 2>/dev/null || true")
    served = home.get(token)
    for _ in range(10):  # more than the log's last page has room for
        home.link("GET", "/v1/profiles/web-admin/credentials")
    status = home.client("status", "--json").json()
    told = home.client("status")
    checked = {each["name"]: each for each in home.run("vaultd", "check", "--json").json()["checks"]}
    revoked = home.client("revoke", grant)
    after = home.get(token)
    refused = home.client("exec", "web-admin", "--", "true")
    home.run("vaultd", "stop")
    full = home.run("vaultd", "start")
    mounts.run("rm", f"{home.state}/filler")
    restarted = home.run("vaultd", "start")
    again = home.client("revoke", grant)

    assert served.status == 200
    assert status["lost_audit_lines"] > 0
    assert "could not be written" in told.out + told.err
    assert (checked["audit"]["ok"], checked["audit"]["remedy"]) == (False, f"free space for {home.state}/audit.jsonl")
    assert revoked.status == 1
    assert revoked.err == (
        f"vault-client: The grant is revoked, but {home.state}/grants.json could not be written and a restart would "
        "bring it back: make room on the disk, then type the same `vault-client revoke` again.\n"
    )
    assert after.status == 401
    assert refused.status == 1
    assert "no space left on device" in refused.err
    assert (full.status, full.out) == (1, "")
    assert full.err == (
        f"vaultd: {home.state}/sessions.sealed cannot be written (no space left on device): make room, see "
        f"`df -h {home.state}`, and try again.\n"
    )
    assert restarted.status == 0, restarted
    assert again.status == 0, again
    assert home.client("exec", "web-admin", "--", "true").status == 0


def test_a_read_only_home(on_small_disk: tuple[Home, Mounts], emulator: Emulator) -> None:
    """The same for a home that became read-only; a start in one says so in one sentence, exit 1."""
    home, mounts = on_small_disk
    token = home.use("web-admin", emulator)["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
    mounts.run("mount", "-o", "remount,ro", str(home.state))
    served = home.get(token)
    home.link("GET", "/v1/profiles/web-admin/credentials")
    status = home.client("status", "--json").json()
    revoked = home.client("revoke", "--all")
    after = home.get(token)
    home.run("vaultd", "stop")
    started = home.run("vaultd", "start")

    assert served.status == 200
    assert status["lost_audit_lines"] > 0
    assert revoked.status == 1
    assert after.status == 401
    assert (started.status, started.out) == (1, "")
    assert started.err == (
        f"vaultd: {home.state}/sessions.sealed cannot be written (read-only file system): set VAULTD_HOME to a "
        "writable directory and run `vaultd start` again.\n"
    )


# ---- the OS keyring ----

KEYRING = pytest.mark.needs("gnome-keyring-daemon", "dbus-daemon", "dbus-send")


@KEYRING
def test_a_real_keyring(directory: Path, emulator: Emulator) -> None:
    """add, list, use, restart (no second code), remove; no file store appears."""
    home = Home.make(directory, emulator)
    with gnome_keyring(home.env) as keyring:
        home.extra = {**emulator.env, **keyring.env}
        with home.daemon():
            added = home.add(emulator)
            names = home.client("identities", "--json").json()["identities"]
            token = home.use("web-admin", emulator)["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
            restarted = home.run("vaultd", "restart")
            served = home.get(token)
            other = home.client("exec", "audit", "--", "true")
            removed = home.client("remove", "identity")
            gone = home.get(token)
            left = home.client("exec", "web-admin", "--", "true")

    assert added.status == 0, added
    assert [each["name"] for each in names] == ["identity"]
    assert "store: the OS keyring\n" in restarted.out
    assert (served.status, other.status) == (200, 0), other
    assert emulator.count("GetSessionToken") == 1
    assert (removed.status, gone.status, left.status) == (0, 401, 1)
    assert left.err.endswith("`vault-client add identity`\n") or "vault-client add identity" in left.err
    assert not (directory / "vaultd/data/secrets.sealed").exists()


@KEYRING
def test_a_locked_keyring(directory: Path, emulator: Emulator) -> None:
    """Nobody is there to unlock it: starts locked at once, and says what to unlock. Another store is named only while
    no key is in this one.
    """
    home = Home.make(directory, emulator)
    with gnome_keyring(home.env) as keyring:
        home.extra = {**emulator.env, **keyring.env}
        with home.daemon():
            assert home.add(emulator).status == 0
    with gnome_keyring(home.env, unlock=False) as keyring:
        home.extra = {**emulator.env, **keyring.env}
        with home.daemon():
            started, told = home.ran[-1], _reason(home)
            listed, used = home.client("list"), home.client("use", "web-admin")

    assert started.status == 0
    assert "store: the OS keyring, locked\n" in started.out
    assert started.out.endswith(f"next: {told}\n")
    assert told == "The OS keyring is locked: unlock it, then run `vault-client unlock`."
    assert (listed.status, used.status) == (0, 1)
    assert used.err == "vault-client: vaultd is locked: type `vault-client unlock`.\n"


@KEYRING
def test_a_keyring_that_never_answers(directory: Path, emulator: Emulator, clock: MovedClock) -> None:
    """SIGSTOP: start returns, all else serves, the call ends after 30 s; `unlock` mends it once it answers."""
    home = Home.make(directory, emulator)
    with gnome_keyring(home.env) as keyring:
        home.extra = {**emulator.env, **keyring.env, **clock.living}
        with home.daemon():
            assert home.add(emulator).status == 0
            token = home.use("web-admin", emulator)["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
        keyring.daemon.send_signal(signal.SIGSTOP)
        with home.daemon():
            healthy, listing, told = talk(home.port, "GET /healthz"), home.client("list"), home.run("vaultd", "status")
            early = home.client("status", "--json").json()
            refused = home.get(token)
            clock.step(31)
            until(lambda: "30 seconds" in _reason(home), "the call was given up on")
            late, asked = _reason(home), home.client("unlock")
            keyring.daemon.send_signal(signal.SIGCONT)
            clock.step(61)
            until(lambda: home.client("unlock").status == 0, "the keyring is asked again")
            served = home.get(token)

    assert (healthy.status, listing.status, told.status) == (200, 0, 0)
    assert early["locked"]
    assert "still being opened" in early["locked_reason"]
    assert (refused.status, refused.code) == (403, "Locked")
    assert late.startswith("The OS keyring did not answer within 30 seconds")
    assert asked.status == 75, asked
    assert served.status == 200
    assert emulator.count("GetSessionToken") == 1


def _reason(home: Home) -> str:
    return str(home.client("status", "--json").json()["locked_reason"])


# ---- three hours ----

#: A customer's program: one session, one client, a signed call whenever it is told to; botocore does the refreshing.
CALLER = """\
import sys, time, boto3
sts = boto3.Session().client("sts")
for _ in sys.stdin:
    try:
        print("ok", int(time.time()), sts.get_caller_identity()["Arn"], flush=True)
    except Exception as exc:
        print("failed", int(time.time()), exc, flush=True)
"""
STEP, HOURS = 60, 3


def test_three_virtual_hours(directory: Path, emulator: Emulator, clock: MovedClock) -> None:
    """boto3 calls each minute for three hours with a 3,600 s role and MFA-age limit: none fails, 2 codes in all."""
    with Home.make(directory, emulator, **clock.living).daemon() as home:
        home.add(emulator)
        used = home.use("web-admin", emulator)
        with subprocess.Popen(
            [sys.executable, "-c", CALLER],
            env={**home.env, **used, **clock.env, "VAULTD_MOVED_CLOCK_ALL": ""} | {"PATH": home.env["PATH"]},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as caller:
            try:
                answers = list(_hours(caller, home, emulator, clock))
            finally:
                caller.kill()
        asked, answered = home.asked(), home.events("mfa.answer")

    assert [each for each in answers if not each.startswith("ok ")] == []
    assert len(answers) == HOURS * 3600 // STEP
    assert int(answers[-1].split()[1]) - int(answers[0].split()[1]) >= HOURS * 3600 - 2 * STEP
    assert all("assumed-role/WebAdmin/" in each for each in answers)
    assert (asked, answered, emulator.count("GetSessionToken")) == (2, 2, 2)
    assert len({call["akid"] for call in emulator.calls("GetCallerIdentity")}) >= 4


def _hours(caller: subprocess.Popen[str], home: Home, emulator: Emulator, clock: MovedClock) -> Iterator[str]:
    assert caller.stdin is not None
    assert caller.stdout is not None
    for _ in range(HOURS * 3600 // STEP):
        caller.stdin.write("call\n")
        caller.stdin.flush()
        yield caller.stdout.readline().strip()
        clock.step(STEP)
        if home.link("GET", "/v1/prompts")["prompts"]:
            answered = home.client("mfa", "--token-code", emulator.code())
            assert answered.status == 0, answered


def test_the_clock_is_really_moved(clock: MovedClock) -> None:
    """Positive control: the preload moves time(), datetime and nothing else; without it nothing moves."""
    show = "import time, datetime; print(time.time(), datetime.datetime.now().timestamp(), time.monotonic())"
    clock.ahead(7200)
    moved, still, living = (_numbers(show, env) for env in (clock.env, {}, clock.living))

    assert moved[0] - still[0] == pytest.approx(7200, abs=60)
    assert moved[1] - still[1] == pytest.approx(7200, abs=60)
    assert moved[2] - still[2] == pytest.approx(0, abs=60)
    assert living[2] - still[2] == pytest.approx(7200, abs=60)


def _numbers(code: str, env: dict[str, str]) -> list[float]:
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    return [float(each) for each in done.stdout.split()]


# ---- proxy and CA ----


async def test_a_proxy_and_a_private_ca(ca: Path, directory: Path) -> None:
    """HTTPS_PROXY and AWS_CA_BUNDLE in the environment of `vaultd start`; control: without the CA, nothing."""
    tls = ("--tls-cert", str(ca / "server.pem"), "--tls-key", str(ca / "server.key"))
    with Emulator.running(*tls, cafile=str(ca / "ca.pem")) as emulator:
        async with proxied(int(emulator.url.rpartition(":")[2])) as proxy:
            env: Any = dict.fromkeys(emulator.env, f"https://{HOST}")
            allow = f'[aws]\nendpoint_allow = ["{HOST}"]\n'
            home = Home.make(directory, settings=allow, HTTPS_PROXY=proxy.url, AWS_CA_BUNDLE=f"{ca}/ca.pem", **env)
            added, used, counted = await asyncio.to_thread(_through, home, emulator)
            del home.extra["AWS_CA_BUNDLE"]
            tunnels = len(proxy.asked)
            untrusted, _, still = await asyncio.to_thread(_through, home, emulator, "--replace")

    assert (added.status, used.status) == (0, 0), (added, used)
    assert counted["GetSessionToken"] == counted["AssumeRole"] == 1
    assert tunnels == sum(counted.values())
    assert {line.rpartition(" ")[0] for line in proxy.asked} == {f"CONNECT {HOST}:443"}
    assert untrusted.status == 75, untrusted
    assert "TLS certificate is not trusted" in untrusted.err
    assert "ca_bundle" in untrusted.err
    assert still == counted


def _through(home: Home, emulator: Emulator, *options: str) -> tuple[Any, Any, dict[str, int]]:
    with home.daemon():
        added = home.add(emulator, "identity", *options)
        code = ("--token-code", emulator.code()) if not options else ()
        used = home.client("use", "web-admin", "--shell", "sh", *code)
    counts: dict[str, int] = emulator.ctl("calls")["counts"]
    return added, used, counts
