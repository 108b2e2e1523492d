"""169.254.169.254 and 169.254.170.2 in a network of their own: units, hand-over, SDKs, strangers (issue 4 Build 2)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.link_local.conftest import Starter, curl, install, served
from tests.link_local.manager import SYSTEMD, groups
from tests.link_local.network import Neighbour, ip
from tests.process.harness import PROFILES, Emulator, Home, Ran, free_port, until, variables

pytestmark = [pytest.mark.process, pytest.mark.needs("linux", "root", "ip", "unshare", "setpriv", "curl")]

IMDS, ECS = "http://169.254.169.254", "http://169.254.170.2"
ROLES = f"{IMDS}/latest/meta-data/iam/security-credentials/"
TTL = "X-aws-ec2-metadata-token-ttl-seconds: 600"
#: What an SDK of the customer's would use with nothing set at all, and from where.
SHOW = """\
import json, boto3
keys = boto3.Session().get_credentials()
print(json.dumps(keys and {"key": keys.get_frozen_credentials().access_key, "from": keys.method}))
"""


def token() -> str:
    status, body = curl("-X", "PUT", "-H", TTL, f"{IMDS}/latest/api/token")
    assert status == "200", body
    return body


def get(url: str, metadata_token: str) -> tuple[str, str]:
    return curl("-H", f"X-aws-ec2-metadata-token: {metadata_token}", url)


def boto3(home: Home, **environment: str) -> Ran:
    """Stock boto3 in a container that knows no vaultd: no endpoint override, no config file."""
    plain = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **environment}
    done = subprocess.run(
        [sys.executable, "-I", "-c", SHOW], env=plain, capture_output=True, text=True, cwd="/", check=False, timeout=60
    )
    home.ran.append(Ran(done.returncode, done.stdout, done.stderr))
    return home.ran[-1]


def boto3_row(home: Home, **environment: str) -> dict[str, Any]:
    """What `doctor --sdk` says of botocore in that environment."""
    ran = home.client("doctor", "--sdk", "--json", environment=environment)
    found: dict[str, Any] = ran.json()["sdk"][0]
    assert found.pop("family") == "botocore"
    return found


def grants(home: Home) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = home.link("GET", "/v1/grants")["grants"]
    return found


# ---- 169.254.169.254 ----


def test_the_metadata_address_by_curl_and_by_boto3(home: Home, starts: Starter) -> None:
    """401 without a token, the profile's name with one; boto3 without any override gets keys; a stop takes it away."""
    before = groups()
    with starts(home, "imds", "web-admin") as unit:
        assert curl(ROLES)[0] == "401"
        found = token()
        assert get(ROLES, found) == ("200", "web-admin")
        status, body = get(ROLES + "web-admin", found)
        assert (status, json.loads(body)["Code"]) == ("200", "Success")

        ran = boto3(home)
        assert ran.json() == {"key": json.loads(body)["AccessKeyId"], "from": "iam-role"}, ran

        [grant] = grants(home)
        assert {name: grant[name] for name in ("profile", "kind", "imds")} == {
            "profile": "web-admin",
            "kind": "lease",
            "imds": True,
        }
        assert "169.254.169.254" in ip("address")
        assert grant["door"] == {"address": "169.254.169.254", "port": 80}
        assert home.link("GET", "/v1/status")["link_local"] == [{**grant["door"], "grant": grant["id"]}]
        assert boto3_row(home) == {"source": "metadata", "where": "169.254.169.254", "vaultd": True}

        unit.stop()
        until(lambda: not served(home, "imds"), "the daemon has left it")
        assert boto3_row(home)["vaultd"] is False
        assert curl(ROLES)[0] == "000"
    assert groups() == before  # a test's systemd moves nobody


def test_a_stopped_unit_takes_its_address_off_lo(home: Home, starts: Starter, request: pytest.FixtureRequest) -> None:
    """The unit's own ExecStopPost; after it the address is that of nobody (a positive control stands before)."""
    with starts(home, "imds", "web-admin") as unit:
        assert "169.254.169.254" in ip("address")
        unit.stop()
        if "systemd" in request.node.callspec.id:
            assert "169.254.169.254" not in ip("address")


def test_a_metadata_token_lives_through_a_restart_of_the_daemon(home: Home, starts: Starter) -> None:
    """The same grant and key: Rust, Kotlin and opendal never ask for another token; also after kill -9."""
    with starts(home, "imds", "web-admin"):
        found = token()
        [before] = grants(home)

        assert home.run("vaultd", "restart").status == 0
        until(lambda: get(ROLES, found) == ("200", "web-admin"), "the address is served again")
        home.kill()
        assert home.run("vaultd", "start").status == 0
        until(lambda: get(ROLES, found) == ("200", "web-admin"), "the address is served again")

        assert get(ROLES + "web-admin", found)[0] == "200"
        assert [each["id"] for each in grants(home)] == [before["id"]]


def test_the_unit_may_be_started_long_before_the_daemon(home: Home, activates: Starter) -> None:
    """Boot order does not matter, and the store may still be locked: the role list is there, and keys once it opens."""
    home.stop()
    with activates(home, "imds", "web-admin", waits=False) as unit:
        until(lambda: "waits for vaultd" in unit.journal(), "it waits")
        passphrase = home.extra.pop("VAULTD_PASSPHRASE_FILE")
        with home.daemon():
            until(lambda: served(home, "imds"), "it is handed over")
            found = token()
            assert get(ROLES, found) == ("200", "web-admin")
            assert get(ROLES + "web-admin", found)[0] == "403"
            assert home.client("unlock", "--stdin", stdin=Path(passphrase).read_text()).status == 0
            assert get(ROLES + "web-admin", found)[0] == "200"


def test_a_revoked_grant_stays_revoked_until_the_unit_is_started_again(home: Home, starts: Starter) -> None:
    """Not even a restart of the daemon brings it back; who connects is closed at once instead of left waiting."""
    with starts(home, "imds", "web-admin") as unit:
        found = token()
        [grant] = grants(home)
        assert home.client("revoke", grant["id"]).status == 0
        until(lambda: "no longer served (revoked)" in unit.journal(), "the unit is told")
        assert curl(ROLES)[0] == "000"
        assert home.run("vaultd", "restart").status == 0
        assert grants(home) == []
        assert curl(ROLES)[0] == "000"

        unit.restart()
        until(lambda: served(home, "imds"), "it is handed over again")
        assert get(ROLES, found)[0] == "401"  # another grant, another key
        assert get(ROLES, token()) == ("200", "web-admin")


def test_another_uid_and_another_machine_get_nothing(home: Home, activates: Starter) -> None:
    """0 bytes for another user; a neighbour on the wire reaches nothing, although lo's address answers ARP."""
    with activates(home, "imds", "web-admin"), Neighbour.connected() as neighbour:
        assert token()  # positive control: the same request by this user
        asked = ["curl", "-s", "-m", "2", "-X", "PUT", "-H", TTL, f"{IMDS}/latest/api/token"]
        bob = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *asked], capture_output=True, check=False
        )
        assert (bob.stdout, bob.returncode == 0) == (b"", False)

        until(lambda: neighbour.run("ping", "-c1", "-W1", "10.99.0.1").returncode in {0, 127}, "the wire is up")
        neighbour.run("ip", "route", "add", "169.254.169.254/32", "dev", "wire1")
        theirs = neighbour.run(*asked)
        assert (theirs.stdout, theirs.returncode == 0) == ("", False)
        # Positive control: the wire carries TCP to a listener that is not bound to lo.
        port = free_port()
        serve = [sys.executable, "-m", "http.server", str(port), "--bind", "0.0.0.0", "--directory", "/nonexistent"]
        with subprocess.Popen(serve, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                until(
                    lambda: neighbour.run("curl", "-s", "-m", "2", f"http://10.99.0.1:{port}/").returncode == 0, "TCP"
                )
                assert neighbour.run("curl", "-s", "-m", "2", f"http://169.254.169.254:{port}/").returncode == 0
            finally:
                process.terminate()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "localhost", "169.254.170.2", "169.254.169.254:81"])
def test_a_foreign_host_is_refused(home: Home, activates: Starter, host: str) -> None:
    """A DNS-rebound page brings its own Host: 400 on PUT, 403 on GET (interface.md §5)."""
    with activates(home, "imds", "web-admin"):
        found = token()
        assert curl("-X", "PUT", "-H", TTL, "-H", f"Host: {host}", f"{IMDS}/latest/api/token")[0] == "400"
        assert curl("-H", f"X-aws-ec2-metadata-token: {found}", "-H", f"Host: {host}", ROLES)[0] == "403"
        assert curl("-H", f"X-aws-ec2-metadata-token: {found}", "-H", "Host: 169.254.169.254:80", ROLES)[0] == "200"


def test_an_unknown_profile_and_a_second_daemon(home: Home, emulator: Emulator, activates: Starter) -> None:
    """A profile that is not there is told in the journal; a second home's daemon takes the address when it is free."""
    with activates(home, "imds", "web-admni", waits=False) as unit:
        until(lambda: "Did you mean web-admin?" in unit.journal(), "the journal names the nearest")
    second = Home.make(home.directory / "second", emulator, profiles=PROFILES)
    with second.daemon():
        assert second.add(emulator).status == 0
        with activates(home, "imds", "web-admin"):
            assert get(ROLES, token())[0] == "200"
            assert (len(grants(home)), len(grants(second))) == (1, 0)
        with activates(second, "imds", "audit"):
            assert get(ROLES, token()) == ("200", "audit")


def test_another_profile_in_the_unit_ends_the_grant_of_the_first(home: Home, activates: Starter) -> None:
    """One address, one profile: the other's grant does not lie about."""
    with activates(home, "imds", "web-admin"):
        first = token()
    with activates(home, "imds", "audit"):
        assert get(ROLES, first)[0] == "401"
        assert get(ROLES, token()) == ("200", "audit")
        assert [each["profile"] for each in grants(home)] == ["audit"]


# ---- 169.254.170.2 ----


def test_the_container_address_serves_who_sends_a_token(home: Home, emulator: Emulator, starts: Starter) -> None:
    """A client that knows the relative URI only: keys with a token, 401 without one, and Host is that address."""
    used = home.client("use", "web-admin", "--shell", "sh")
    assert used.status == 0, used
    secret = variables(used.out)["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
    path = "/v1/credentials/web-admin"
    with starts(home, "ecs"):
        relative = {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": path, "AWS_EC2_METADATA_DISABLED": "true"}
        ran = boto3(home, **relative, AWS_CONTAINER_AUTHORIZATION_TOKEN=secret)
        assert ran.json()["from"] == "container-role", ran
        row = boto3_row(home, **relative, AWS_CONTAINER_AUTHORIZATION_TOKEN=secret)
        assert (row["source"], row["vaultd"]) == ("container", True)
        assert boto3_row(home, **relative, AWS_CONTAINER_AUTHORIZATION_TOKEN="x")["vaultd"] is False

        authorized = ("-H", f"Authorization: {secret}")
        assert curl(*authorized, ECS + path)[0] == "200"
        assert curl(*authorized, "-H", "Host: 169.254.170.2:80", ECS + path)[0] == "200"
        assert curl(ECS + path)[0] == "401"
        for host in ("127.0.0.1", "localhost", "169.254.169.254", "evil.example"):
            assert curl(*authorized, "-H", f"Host: {host}", ECS + path)[0] == "403"
        assert boto3(home, **relative).status != 0  # no token, no keys

        assert home.run("vaultd", "restart").status == 0
        until(lambda: curl(*authorized, ECS + path)[0] == "200", "it is handed over again")


# ---- what is installed ----


@pytest.mark.needs("systemd-analyze")
def test_the_filled_units_are_what_systemd_takes(home: Home, directory: Path) -> None:
    """`systemd-analyze verify` says nothing about them, with a blank, a percent sign and quotes in profile and home."""
    odd = directory / 'a b%h "q" \'s'
    odd.mkdir()
    made = Home.make(odd, profiles='[profile "team prod"]\nregion = us-east-1\n[profile "50%u"]\nregion = us-east-1\n')
    status, said = install(made, "team prod", "--ecs", root=directory / "machine")
    units = made.state / "units"

    assert (status, sorted(each.name for each in units.iterdir())) == (
        0,
        ["vaultd-ecs.service", "vaultd-ecs.socket", "vaultd-imds.service", "vaultd-imds.socket"],
    )
    assert "sudo systemctl enable vaultd-imds.socket vaultd-imds.service vaultd-ecs.socket vaultd-ecs.service" in said
    assert units.stat().st_mode & 0o777 == 0o700
    verify = ["systemd-analyze", "verify", *(str(each) for each in units.iterdir())]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if "vaultd-" in line] == [], done

    broken = units / "vaultd-imds.service"
    broken.write_text(broken.read_text().replace("Type=notify", "Type=no-such"))
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert "vaultd-imds.service" in done.stderr  # positive control


@pytest.mark.skipif(not SYSTEMD.exists(), reason="systemd is not installed: run `make system` as root")
def test_what_is_escaped_is_what_the_program_gets(cold: Home, directory: Path, starts: Starter) -> None:
    """By systemd itself: a profile and a home with blanks, `%`, `$` and quotes arrive as they were written."""
    name = "a b %h $HOME ${X} 'q' \"d\" \\n"
    odd = directory / 'o o%h "$q"'
    odd.mkdir()
    made = Home.make(odd, profiles=f"[profile '{name.replace(chr(39), '')}']\nregion = us-east-1\n")
    profile = name.replace("'", "")
    with starts(made, "imds", profile, waits=False) as unit:
        until(lambda: "waits for vaultd" in unit.journal(), "it runs")
        found = [
            words
            for each in Path("/proc").glob("[0-9]*/cmdline")
            if (words := each.read_bytes().split(b"\0"))[4:6] == [b"link-local", b"imds"]
        ]
        assert [each[-2].decode() for each in found] == [profile]
