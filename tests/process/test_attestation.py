"""Who may call, by real programs: copies of curl, a real socat, scripts under Python; a real daemon, real questions."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.process.harness import DEADLINE, Emulator, Home, free_port, refused_yet, until
from tests.process.wire import Reply, talk

pytestmark = pytest.mark.process

SCRIPT = """\
import sys, urllib.request, urllib.error
request = urllib.request.Request(sys.argv[1], headers={"Authorization": sys.argv[2]})
try:
    print(urllib.request.urlopen(request).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


@pytest.fixture
def programs(directory: Path) -> Path:
    """A directory of programs, copied and named by the tests."""
    made = directory / "programs"
    made.mkdir()
    for name in ("fetch", "listed", "ngrok"):
        shutil.copy("/usr/bin/curl", made / name)
    for name in ("listed.py", "other.py", "socat"):
        (made / name).write_text(SCRIPT)
    return made


@pytest.fixture
def house(directory: Path, programs: Path, emulator: Emulator) -> Iterator[Home]:
    """web-admin as it comes; audit behind socat; long-ops for two programs; if-exists protected."""
    settings = f"""
[profiles.audit]
relays = ["socat"]
[profiles.long-ops]
allow_executables = ["{programs}/listed", "{programs}/listed.py"]
[profiles.if-exists]
protected = true
"""
    home = Home.make(directory, emulator, settings=settings)
    with home.daemon():
        assert home.add(emulator).status == 0
        assert home.client("mfa", "--token-code", emulator.code()).status == 0
        yield home


def token_of(home: Home, profile: str) -> str:
    made = home.link("POST", "/v1/grants", {"profile": profile, "kind": "lease"})
    return str(made["set"]["AWS_CONTAINER_AUTHORIZATION_TOKEN"])


def fetched(home: Home, program: Path, profile: str, token: str) -> tuple[int, dict[str, Any]]:
    """What a copy of curl is answered: status and body."""
    url = f"http://127.0.0.1:{home.port}/v1/credentials/{profile}"
    command = [str(program), "-s", "-w", "\n%{http_code}", "-H", f"Authorization: {token}", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=True, env={})
    body, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(body)


def scripted(home: Home, script: Path, profile: str, token: str) -> int:
    """What a script under Python is answered."""
    url = f"http://127.0.0.1:{home.port}/v1/credentials/{profile}"
    command = [sys.executable, str(script), url, token]
    return int(subprocess.run(command, capture_output=True, timeout=DEADLINE, check=True, env={}).stdout)


@contextmanager
def relay(target: int) -> Iterator[int]:
    """A real socat from a port of its own to `target`."""
    port = free_port()
    command = ["socat", f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork", f"TCP:127.0.0.1:{target}"]
    with subprocess.Popen(command) as process:
        try:
            until(lambda: not refused_yet(port), "socat listens")
            yield port
        finally:
            process.terminate()
            process.wait(DEADLINE)


def through(port: int, profile: str, token: str) -> Reply:
    """By a relay; the Host is one that the endpoint takes, so that nothing but the relay can be the reason."""
    return talk(port, f"GET /v1/credentials/{profile}", "Host: 127.0.0.1", f"Authorization: {token}")


def test_relays_are_refused_unless_a_profile_allows_one(house: Home, programs: Path) -> None:
    """Socat and whatever has a relay's name gets 403 and no key; controls: the same request without it, another name,
    and the profile that allows socat.
    """
    web, audit = token_of(house, "web-admin"), token_of(house, "audit")
    assert house.get(web).status == 200
    assert fetched(house, programs / "fetch", "web-admin", web)[0] == 200
    assert scripted(house, programs / "other.py", "web-admin", web) == 200
    with relay(house.port) as port:
        for _ in range(3):
            denied = through(port, "web-admin", web)
            assert (denied.status, denied.code) == (403, "ForbiddenPeer")
            assert b"AccessKeyId" not in denied.body
        assert denied.message == (
            "Profile web-admin is not given to socat, a relay that others may stand behind: to allow it write "
            '`relays = ["socat"]` under [profiles.web-admin] in config.toml, then type `vaultd restart`.'
        )
        assert through(port, "audit", audit).status == 200
    status, body = fetched(house, programs / "ngrok", "web-admin", web)
    assert (status, body.get("code")) == (403, "ForbiddenPeer")
    assert scripted(house, programs / "socat", "web-admin", web) == 403  # by its script's name
    told = house.link("GET", "/v1/audit")["events"]
    denials = [line["peer"]["exe"] for line in told if line["event"] == "credentials.deny"]
    assert "/usr/bin/socat" in denials[0]


def test_a_door_refuses_relays_where_keys_are(house: Home) -> None:
    """IMDS behind socat: token and role list as ever (an SDK must not take 403 there for an answer), the keys are 403;
    control: the same request without it.
    """
    made = house.link("POST", "/v1/grants", {"profile": "web-admin", "kind": "lease", "imds": True})
    door = int(made["set"]["AWS_EC2_METADATA_SERVICE_ENDPOINT"].rstrip("/").rpartition(":")[2])
    keys = "GET /latest/meta-data/iam/security-credentials/"
    with relay(door) as port:
        put = talk(port, "PUT /latest/api/token", "Host: 127.0.0.1", "X-aws-ec2-metadata-token-ttl-seconds: 60")
        assert put.status == 200
        token = f"X-aws-ec2-metadata-token: {put.body.decode()}"
        assert talk(port, keys, "Host: 127.0.0.1", token).body == b"web-admin"
        assert talk(port, f"{keys}web-admin", "Host: 127.0.0.1", token).status == 403
    assert talk(door, f"{keys}web-admin", token).status == 200


def test_listed_programs_alone(house: Home, programs: Path) -> None:
    """`allow_executables`: an executable by its file, a script by its path; nothing else, and no `export` around it."""
    token = token_of(house, "long-ops")
    assert fetched(house, programs / "listed", "long-ops", token)[0] == 200
    assert scripted(house, programs / "listed.py", "long-ops", token) == 200
    assert scripted(house, programs / "other.py", "long-ops", token) == 403
    status, body = fetched(house, programs / "fetch", "long-ops", token)
    assert (status, body.get("code")) == (403, "ForbiddenPeer")
    assert body["message"] == (
        f"Profile long-ops is not given to {programs}/fetch: to allow it add that path to allow_executables under "
        "[profiles.long-ops] in config.toml, then type `vaultd restart`."
    )
    (programs / "elsewhere").mkdir()
    for name, content in (("listed", programs / "listed"), ("listed.py", programs / "listed.py")):
        (programs / "elsewhere" / name).write_bytes(content.read_bytes())
        (programs / "elsewhere" / name).chmod(0o755)
    assert fetched(house, programs / "elsewhere/listed", "long-ops", token)[0] == 403  # a file's name is not its path
    assert scripted(house, programs / "elsewhere/listed.py", "long-ops", token) == 403
    exported = house.client("export", "long-ops")
    assert (exported.status, exported.out) == (1, "")
    assert "allow_executables" in exported.err
    (programs / "replaced").write_bytes((programs / "fetch").read_bytes())
    (programs / "replaced").chmod(0o755)
    (programs / "replaced").replace(programs / "listed")  # what is at the path now is what the entry means
    assert fetched(house, programs / "listed", "long-ops", token)[0] == 200


def test_a_person_confirms_each_program_once(house: Home, programs: Path) -> None:
    """`protected`: 403 that names the command; y on a terminal lets that program in, and no other; empty is a no; a
    lock ends it.
    """
    token, shown = token_of(house, "if-exists"), programs / "fetch"
    status, body = fetched(house, shown, "if-exists", token)
    assert (status, body.get("code")) == (403, "MfaRequired")
    assert body["message"] == (
        f"Profile if-exists is protected and waits for a person to allow {shown}: type `vault-client mfa identity`."
    )
    (prompt,) = house.link("GET", "/v1/prompts")["prompts"]
    assert (prompt["kind"], prompt["profile"]) == ("consent", "if-exists")
    assert str(shown) in prompt["requester"]
    assert "is wanted" in house.client("status").out
    with house.terminal("vault-client", "mfa") as terminal:
        terminal.expect_exact("[y/N] ")
        terminal.sendline("y")
        terminal.expect_exact("if-exists is allowed")
        terminal.expect_exact("")
        terminal.wait()
        assert terminal.exitstatus == 0
    for _ in range(2):
        assert fetched(house, shown, "if-exists", token)[0] == 200
    listed = next(each for each in house.link("GET", "/v1/grants")["grants"] if each["profile"] == "if-exists")
    assert listed["peer"]["exe"] == str(shown)
    assert fetched(house, programs / "listed", "if-exists", token)[0] == 403
    with house.terminal("vault-client", "mfa") as terminal:
        terminal.expect_exact("[y/N] ")
        terminal.sendline("")
        terminal.expect_exact("was not given to")
        terminal.wait()
        assert terminal.exitstatus == 1
    status, body = fetched(house, programs / "listed", "if-exists", token)
    assert (status, body.get("code")) == (403, "ForbiddenPeer")  # in its cool-down nobody is asked
    assert house.link("GET", "/v1/prompts")["prompts"] == []
    assert house.client("lock").status == 0
    assert house.client("unlock", "--stdin", stdin="process tests' passphrase\n").status == 0
    assert fetched(house, shown, "if-exists", token)[0] == 403
    asked = [(line["event"], line.get("decision")) for line in house.audit() if line["event"].startswith("consent")]
    assert asked == [
        ("consent.ask", None),
        ("consent.answer", "allow"),
        ("consent.ask", None),
        ("consent.answer", "deny"),
        ("consent.ask", None),
    ]
    peers = [line["peer"] for line in house.audit() if line["event"].startswith("consent")]
    assert (peers[0], peers[2]) == (peers[1], peers[3]), "an answer names whom it was for"
    assert None not in peers


def test_export_of_a_protected_profile_asks(house: Home) -> None:
    """Keys on stdout are a use as well: asked on the terminal it was typed on; without one 3, and nothing printed."""
    alone = house.client("export", "if-exists")
    assert (alone.status, alone.out) == (3, "")
    assert "type `vault-client mfa identity` in one" in alone.err
    with house.terminal("vault-client", "export", "if-exists") as terminal:
        terminal.expect_exact("[y/N] ")
        terminal.sendline("yes")
        terminal.expect_exact("AWS_SESSION_TOKEN")
        terminal.wait()
        assert terminal.exitstatus == 0
