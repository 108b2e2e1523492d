"""The keeper as a real second process: what it holds, what dies with it, what comes back, and what ends the daemon."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.process.harness import PASSPHRASE, SERIAL, Emulator, Home, Ran, alive, stop, until
from vaultd.files import Files
from vaultd.host.clock import SystemClock
from vaultd.host.hardening import KEPT
from vaultd.keeper.codec import data_key_of
from vaultd.layout import Layout
from vaultd.model.secret import Secret
from vaultd.store.sealed_file import SealedFile

SPLIT = "[keeper]\nprocess = true\n"
TOGETHER = "[keeper]\nprocess = false\n"
#: A profile without a role: its MFA session is what is served, by the contract.
OWN = f"\n[profile own]\nsource_profile = identity\nmfa_serial = {SERIAL}\nregion = us-east-1\n"


@pytest.fixture
def apart(directory: Path, emulator: Emulator) -> Iterator[Home]:
    """A running daemon with a keeper of its own, and franklin's key in it."""
    made = Home.make(directory, emulator, settings=SPLIT)
    with made.daemon():
        assert made.add(emulator).status == 0
        yield made


def keeper_of(home: Home) -> int:
    return int(home.link("GET", "/v1/status")["keeper_pid"])


def die(home: Home, number: int = signal.SIGKILL) -> int:
    """Kill the keeper; the pid of the one that came in its place."""
    old = keeper_of(home)
    os.kill(old, number)
    until(lambda: not alive(old) and keeper_of(home) != old, "another keeper is there")
    return keeper_of(home)


def opened(home: Home) -> None:
    """The new keeper opened its store."""
    until(lambda: home.events("unlock") > 0, "the store is open again")


def reasons(home: Home, event: str) -> list[str | None]:
    return [line.get("reason") for line in home.audit() if line["event"] == event]


def memory(pid: int) -> Iterator[bytes]:
    """Every readable page of a process, as root."""
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", buffering=0) as mem:
        for line in maps:
            found = re.match(r"([0-9a-f]+)-([0-9a-f]+) r.[^ ]* [^ ]+ [^ ]+ [^ ]+ *(.*)", line)
            if found is None or found[3].startswith(("[vvar", "[vsyscall")):
                continue
            begin, end = int(found[1], 16), int(found[2], 16)
            try:
                mem.seek(begin)
                yield mem.read(end - begin)
            except (OSError, OverflowError, ValueError):
                continue


def held(pid: int, wanted: dict[str, bytes]) -> set[str]:
    """Which of these stand in the memory of a process, as they are or as the wire and the keyring write them."""
    forms = {name: (value, base64.b64encode(value)) for name, value in wanted.items()}
    hits: set[str] = set()
    for part in memory(pid):
        hits |= {name for name, each in forms.items() if any(form in part for form in each)}
    return hits


# ---- one that dies ----


def test_an_idle_one_is_replaced_and_nobody_notices(apart: Home, emulator: Emulator) -> None:
    """SIGKILL while nothing runs: what is at hand is served on, and what is new needs no code and no command."""
    token = apart.use("web-admin", emulator)["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
    before = apart.get(token).body

    die(apart)
    during = apart.get(token)
    opened(apart)
    refreshed = apart.client("refresh", "web-admin")
    other = apart.client("use", "audit", "--shell", "sh")

    assert (during.status, during.body) == (200, before)
    assert (refreshed.status, other.status) == (0, 0), (refreshed, other)
    assert apart.asked() == 1
    assert reasons(apart, "unlock") == ["the keeper process was killed by SIGKILL and opened again"]
    assert [each["name"] for each in apart.link("GET", "/v1/identities")["identities"]] == ["identity"]


def test_one_that_dies_while_it_mints_is_asked_again(apart: Home, emulator: Emulator) -> None:
    """A role session without a code: the renewal fails typed, is repeated with the next keeper, and comes."""
    apart.use("web-admin", emulator)
    emulator.fault("hang", op="AssumeRole")
    before = emulator.count("AssumeRole")
    with _running(apart, "vault-client", "refresh", "web-admin") as refresh:
        until(lambda: emulator.count("AssumeRole") > before, "the call is at AWS")
        die(apart)
        ran = _over(refresh)

    assert ran.status == 0, ran
    assert apart.asked() == 1


def test_a_code_in_flight_counts_as_sent(apart: Home, emulator: Emulator) -> None:
    """SIGKILL between the code's leaving and AWS's answer: the command says what to do, the code never goes again."""
    code = emulator.code()
    emulator.fault("hang", op="GetSessionToken")
    with _running(apart, "vault-client", "use", "web-admin", "--shell", "sh", "--token-code", code) as use:
        until(lambda: emulator.count("GetSessionToken") == 1, "the code is at AWS")
        die(apart)
        ran = _over(use)
    opened(apart)
    again = apart.client("use", "web-admin", "--shell", "sh", "--token-code", code)

    assert ran.status != 0
    assert "vault-client" in ran.err
    assert again.status == 1
    assert "was sent before" in again.err
    assert emulator.count("GetSessionToken") == 1
    assert apart.client("use", "web-admin", "--shell", "sh", "--token-code", emulator.code(step=1)).status == 0


def test_without_a_passphrase_on_file_it_stays_shut_and_says_so(apart: Home, emulator: Emulator) -> None:
    """The store was opened by a typed passphrase: what is at hand is served on, nothing is made until `unlock`."""
    token = apart.use("web-admin", emulator)["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
    (apart.directory / "passphrase").rename(apart.directory / "typed")

    die(apart)
    until(lambda: apart.link("GET", "/v1/status")["locked"], "the daemon says that it is locked")
    status = apart.link("GET", "/v1/status")
    served = apart.get(token)
    refused = apart.client("refresh", "web-admin")
    new = apart.client("use", "audit", "--shell", "sh")

    assert "the keeper process was killed by SIGKILL, what is at hand is served on, and " in status["locked_reason"]
    assert "vault-client unlock" in status["locked_reason"]
    assert served.status == 200
    assert (refused.status, new.status) == (1, 1)
    assert "type `vault-client unlock`" in refused.err
    assert reasons(apart, "lock") == ["the keeper process was killed by SIGKILL"]

    unlocked = apart.client("unlock", "--stdin", stdin=PASSPHRASE + "\n")
    assert unlocked.status == 0, unlocked
    assert apart.client("refresh", "web-admin").status == 0
    assert not apart.link("GET", "/v1/status")["locked"]
    assert apart.asked() == 1


def test_one_that_a_person_locked_stays_locked(apart: Home, emulator: Emulator) -> None:
    """The marker is there: the next keeper opens nothing, passphrase file or not, and nothing is served."""
    token = apart.use("web-admin", emulator)["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
    assert apart.client("lock").status == 0

    die(apart)

    assert apart.get(token).status == 403
    status = apart.link("GET", "/v1/status")
    assert status["locked"]
    assert "vault-client lock" in status["locked_reason"]
    assert apart.client("unlock", "--stdin", stdin=PASSPHRASE + "\n").status == 0
    assert apart.client("refresh", "web-admin").status == 0
    assert apart.asked() == 1


def test_nothing_that_was_made_is_lost(apart: Home, emulator: Emulator) -> None:
    """After a keeper's death and a restart of the daemon the same session is served: it was sealed, or sealed again."""
    token = apart.use("web-admin", emulator)["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
    os.kill(keeper_of(apart), signal.SIGKILL)
    before = json.loads(apart.get(token).body)["AccessKeyId"]
    opened(apart)
    calls = emulator.count("AssumeRole")
    assert apart.run("vaultd", "restart").status == 0

    assert json.loads(apart.get(token).body)["AccessKeyId"] == before
    assert emulator.count("AssumeRole") == calls


def test_five_deaths_in_a_minute_end_the_daemon_with_a_reason(apart: Home) -> None:
    """A keeper that cannot live is no keeper: the daemon ends, and audit and log say why."""
    daemon = apart.pid()
    for _ in range(5):
        old = keeper_of(apart) if alive(daemon) else None
        if old is None:
            break
        os.kill(old, signal.SIGSEGV)
        until(lambda old=old: not alive(daemon) or _another(apart, old), "another keeper, or the end")  # type: ignore[misc]
    until(lambda: not alive(daemon), "the daemon has ended")

    said = "vaultd's keeper process ended 5 times within a minute, at last killed by SIGSEGV"
    assert (reasons(apart, "stop")[-1] or "").startswith(said)
    assert said in (apart.state / "vaultd.log").read_text()
    assert apart.run("vaultd", "start").status == 0


def _another(home: Home, old: int) -> bool:
    try:
        return keeper_of(home) != old
    except Exception:  # noqa: BLE001 - it is just ending: whatever the client says then
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_the_daemons(apart: Home, number: int) -> None:
    """None of them does anything to the keeper: the daemon locks it, and closes it, last (architecture.md §6.7)."""
    keeper = keeper_of(apart)
    os.kill(keeper, number)
    assert apart.client("status").status == 0
    assert keeper_of(apart) == keeper


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_the_daemon(apart: Home, number: int) -> None:
    """However the daemon ends, no keeper stays, and the next daemon has one of its own."""
    keeper = keeper_of(apart)
    apart.kill(number)
    until(lambda: not alive(keeper), "the keeper has ended too")
    assert apart.run("vaultd", "start").status == 0
    assert keeper_of(apart) != keeper


# ---- what each process is ----


@pytest.mark.needs("root")
@pytest.mark.parametrize("settings", [SPLIT, TOGETHER], ids=["apart", "control-together"])
def test_no_key_is_in_the_memory_of_the_process_that_listens(
    directory: Path, emulator: Emulator, settings: str
) -> None:
    """Neither the identity's secret key nor the MFA session nor the data key is in the daemon's memory, though it has
    served by them; they are found in the keeper's. Control: in one process they are found in that.

    The daemon was started anew: what `add` brought went through it once, and is not kept, but not wiped either.
    """
    home = Home.make(directory, emulator, settings=settings)
    with home.daemon():
        assert home.add(emulator).status == 0
        assert home.run("vaultd", "stop").status == 0
        data_key = asyncio.run(_data_key(home))
        assert home.run("vaultd", "start").status == 0
        token = home.use("web-admin", emulator)["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
        served = json.loads(home.get(token).body)
        secret, session = _mfa_session(emulator)
        wanted = {
            "identity key": emulator.key()[1].encode(),
            "data key": data_key,
            "MFA session's secret": secret,
            "MFA session's token": session,
            "role session": served["Token"].encode()[:48],
        }
        daemon, keeper = home.pid(), keeper_of(home)
        found = {"daemon": held(daemon, wanted), "keeper": held(keeper, wanted)}

    assert (daemon == keeper) == (settings == TOGETHER)
    assert found["keeper"] >= set(wanted) - {"role session"}
    assert found["daemon"] == (set(wanted) if settings == TOGETHER else {"role session"})


def _mfa_session(emulator: Emulator) -> tuple[bytes, bytes]:
    """Secret key and session token (its beginning) that GetSessionToken gave."""
    (call,) = emulator.calls("GetSessionToken")
    found = emulator.ctl(f"token?akid={call['issued']}")
    return str(found["secret"]).encode(), str(found["token"]).encode()[:48]


async def _data_key(home: Home) -> bytes:
    """What the store holds under the passphrase, read by the product's own hand."""
    layout = Layout.find(home.env)
    store = SealedFile(Files(), layout.secrets_sealed, seen=layout.secrets_seen, clock=SystemClock())
    await store.open(Secret(PASSPHRASE))
    item = await store.load("data-key")
    assert item is not None
    return data_key_of(item).reveal_bytes()


@pytest.mark.needs("root")
def test_neither_may_be_read_and_neither_leaves_a_core(apart: Home) -> None:
    """Both are non-dumpable (their /proc entries belong to root, which a daemon of root cannot show: asked of itself),
    with no core allowed; SIGSEGV leaves none.
    """
    checks = {each["name"]: each for each in apart.link("GET", "/v1/checks")["checks"]}
    keeper = keeper_of(apart)
    assert checks["keeper"]["ok"]
    assert checks["keeper"]["message"] == f"vaultd is pid {apart.pid()}; keys are held by its keeper, pid {keeper}"
    assert f"keeper pid {keeper}" in apart.run("vaultd", "status").out
    assert "dumpable=False" in (apart.state / "vaultd.log").read_text()
    for pid in (apart.pid(), keeper):
        assert "Max core file size        0                    0" in Path(f"/proc/{pid}/limits").read_text()
    before = set(Path("/").glob("core*"))
    die(apart, signal.SIGSEGV)
    assert set(Path("/").glob("core*")) == before


def test_it_gets_nothing_but_its_socket_and_what_it_needs(apart: Home) -> None:
    """Argv names no file and no secret; environ is an allow-list without AWS_*, proxies and the passphrase file; no
    descriptor of the daemon's but one end of a socketpair; no listener.
    """
    keeper = keeper_of(apart)
    place = Path(f"/proc/{keeper}")
    argv = place.joinpath("cmdline").read_bytes().split(b"\0")
    environ = dict(each.partition("=")[::2] for each in place.joinpath("environ").read_text().split("\0") if each)
    targets = [str(each.readlink()) for each in place.joinpath("fd").iterdir() if each.exists() or each.is_symlink()]

    assert re.fullmatch(rb"[0-9]+", argv[4])
    assert argv[1:4] == [b"-I", b"-m", b"vaultd.keeper"]
    assert set(environ) <= KEPT | {"VAULTD_HOME", "VAULTD_STORE"}
    assert "AWS_ENDPOINT_URL" in Path(f"/proc/{apart.pid()}/environ").read_text()  # the contract's, in the daemon's
    files = [each for each in targets if each.startswith("/") and each != "/dev/null"]
    assert [Path(each).name for each in files] == ["keeper.lock"]
    listening = {
        line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"
    }
    unix = {
        line.split()[6] for line in Path("/proc/net/unix").read_text().splitlines()[1:] if line.split()[3] == "00010000"
    }
    inodes = {each.removeprefix("socket:[").rstrip("]") for each in targets if each.startswith("socket:")}
    daemons = {str(each.readlink()) for each in Path(f"/proc/{apart.pid()}/fd").iterdir() if each.is_symlink()}
    assert not inodes & (listening | unix)
    assert {f"socket:[{each}]" for each in listening | unix} & daemons  # control: the daemon's are seen so


_FOREIGN = ("boto3", "botocore", "cryptography", "keyring", "secretstorage", "jeepney", "urllib3")


@pytest.mark.parametrize("settings", [SPLIT, TOGETHER], ids=["apart", "control-together"])
def test_the_process_that_listens_imports_no_store_and_no_sdk(
    directory: Path, emulator: Emulator, settings: str
) -> None:
    """By the interpreter's own trace: after add, use, refresh, check and unlock nothing of boto3, botocore,
    cryptography or keyring was imported by the daemon. Control: in one process they are.
    """
    home = Home.make(directory, emulator, settings=settings)
    trace = directory / "imports"
    with trace.open("wb") as errors, _foreground(home, errors):
        assert home.add(emulator).status == 0
        home.use("web-admin", emulator)
        assert home.client("refresh", "web-admin").status == 0
        assert home.client("lock").status == 0
        assert home.client("unlock", "--stdin", stdin=PASSPHRASE + "\n").status == 0
        assert home.run("vaultd", "check").status == 0
    lines = trace.read_text().splitlines()
    names = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines if line.startswith("import time:")}

    assert "aiohttp" in names
    foreign = names & set(_FOREIGN)
    assert foreign == set() if settings == SPLIT else {"botocore", "cryptography"} <= foreign


def test_the_keeper_imports_no_http_server(tmp_path: Path) -> None:
    """What the keeper's process loads holds no aiohttp, no web room and no listener of ours."""
    code = (
        "import sys, vaultd.keeper.process, vaultd.lifecycle.keeping, vaultd.store.os_keyring; "
        "print([name for name in sys.modules if name.split('.')[0] in ('aiohttp', 'uvloop') or "
        "name.startswith(('vaultd.web', 'vaultd.daemon', 'vaultd.engine.broker'))])"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"


# ---- what is typed while it starts ----


def test_two_homes_have_two_keepers(directory: Path, emulator: Emulator, apart: Home) -> None:
    """A keeper's lock is its home's."""
    (directory / "other").mkdir()
    other = Home.make(directory / "other", emulator, settings=SPLIT)
    with other.daemon():
        assert keeper_of(other) != keeper_of(apart)


def test_what_the_keeper_logs_is_in_the_daemons_log(apart: Home) -> None:
    """One log, one writer, and no secret in it, whatever is asked at --debug."""
    log = (apart.state / "vaultd.log").read_text()
    assert re.search(r" INFO keeper\.keeper: open store kind=file", log)
    assert PASSPHRASE not in log


# ---- ways ----


@contextmanager
def _running(home: Home, *command: str) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=home.env, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True) as one:
        try:
            yield one
        finally:
            stop(one)


def _over(process: subprocess.Popen[str]) -> Ran:
    out, err = process.communicate(timeout=60)
    return Ran(process.returncode, out, err)


@contextmanager
def _foreground(home: Home, errors: object) -> Iterator[None]:
    command = [sys.executable, "-I", "-X", "importtime", "-m", "vaultd", "start", "--foreground"]
    with subprocess.Popen(command, env=home.env, stdout=subprocess.DEVNULL, stderr=errors, text=True) as process:  # type: ignore[call-overload]
        try:
            until(lambda: home.run("vaultd", "status").status == 0, "the daemon in the foreground serves")
            yield
        finally:
            stop(process)
