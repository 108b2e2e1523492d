"""T11: a hostile ~/.aws/config or environment: programs it names, endpoints it names, files that are another user's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.adversary import naive
from tests.adversary.case import Attack, Case, once
from tests.adversary.ground import Ground, OwnersHome
from tests.adversary.homes import fresh
from tests.adversary.people import OTHER, OWNER, as_process, command_of
from tests.adversary.t05_network import WE


def runs(key: str, *, by_botocore: bool = False) -> Attack:
    """A program that a profile names: does it run when the profile is explained, used and listed?"""

    def act(ground: Ground) -> bytes:
        with fresh(ground) as home:
            marker = home.directory / "ran"
            config = home.directory / ".aws/config"
            config.write_text(config.read_text() + f"\n[profile evil]\n{key} = /usr/bin/touch {marker}\n")
            if by_botocore:
                script = (
                    "import botocore.session as s\n"
                    "try: s.Session(profile='evil').get_credentials()\n"
                    "except Exception: pass"
                )
                _python(home, script)
            else:
                with home.daemon():
                    assert home.add(ground.emulator).status == 0
                    for words in (
                        ("explain", "evil"),
                        ("use", "evil"),
                        ("export", "evil"),
                        ("list",),
                        ("refresh", "evil"),
                    ):
                        home.client(*words)
            return b"ran" if marker.exists() else b""

    return act


def _python(home: OwnersHome, script: str) -> None:
    subprocess.run(
        [*command_of(OWNER), sys.executable, "-c", script], env=home.env, check=True, cwd="/", capture_output=True
    )


def believes(prepare: Callable[[OwnersHome], None]) -> Attack:
    """b"believed" when the profiles of that file are shown."""

    def act(ground: Ground) -> bytes:
        with fresh(ground) as home:
            prepare(home)
            started = home.run("vaultd", "start")
            said = home.client("list")
            return b"believed" if started.status == 0 and "web-admin" in said.out else b""

    return act


def _plain(_: OwnersHome) -> None:
    """The control."""


def _config(home: OwnersHome) -> Path:
    return home.directory / ".aws/config"


def _his(home: OwnersHome) -> None:
    os.chown(_config(home), OTHER, OTHER)


def _writable(home: OwnersHome) -> None:
    _config(home).chmod(0o666)


def _group_writable(home: OwnersHome) -> None:
    _config(home).chmod(0o664)


def _linked_to_his(home: OwnersHome) -> None:
    his = home.directory / "his"
    his.write_text(_config(home).read_text())
    os.chown(his, OTHER, OTHER)
    _config(home).unlink()
    _config(home).symlink_to(his)


def _a_pipe(home: OwnersHome) -> None:
    """A FIFO would hold the daemon for ever."""
    _config(home).unlink()
    os.mkfifo(_config(home))
    os.chown(_config(home), OWNER, OWNER)


def _named_by_environment(home: OwnersHome) -> None:
    """AWS_CONFIG_FILE of a repository's .env leads to another user's file."""
    his = home.directory / "his"
    his.write_text(_config(home).read_text())
    os.chown(his, OTHER, OTHER)
    home.extra["AWS_CONFIG_FILE"] = str(his)


def key_goes_to(host: str, *, allowed: bool) -> Attack:
    """Requests that an `endpoint_url` on the wire's address saw, signed with the key or with the code in them."""

    def act(ground: Ground) -> bytes:
        seen = ground.directory / "endpoint.seen"
        seen.write_bytes(b"")
        os.chown(seen, OWNER, OWNER)
        with fresh(ground) as home, naive.listen(WE, 0) as sock, as_process(OWNER, lambda: naive.serve(sock, seen)):
            with home.daemon():
                assert home.add(ground.emulator).status == 0
            for name in [each for each in home.extra if each.startswith("AWS_ENDPOINT_URL")]:
                del home.extra[name]
            url = f"http://{host}:{sock.getsockname()[1]}"
            config = _config(home)
            profile = (
                "\n[profile evil]\nsource_profile = identity\nrole_arn = arn:aws:iam::234567890123:role/WebAdmin\n"
            )
            config.write_text(config.read_text() + f"{profile}endpoint_url = {url}\nregion = us-east-1\n")
            if allowed:
                settings = home.root / "config/config.toml"
                settings.write_text(settings.read_text() + f'[aws]\nendpoint_allow = ["{WE}"]\n')
            with home.daemon():
                said = home.client("refresh", "evil", "--token-code", "123456")
                assert said.status != 0
                assert allowed or "endpoint" in said.err, said
        return seen.read_bytes()

    return act


RUNS = "botocore runs it from the same file"
BELIEVED = "the same file, the owner's own and closed, is read"
ALLOWED = "allowed by config.toml, the same endpoint is called"
_READS = once(believes(_plain))
_BY_BOTOCORE = once(runs("credential_process", by_botocore=True))
_CALLED = once(key_goes_to(WE, allowed=True))
_FILES = {
    "another-users": _his,
    "world-writable": _writable,
    "group-writable": _group_writable,
    "linked-to-another-users": _linked_to_his,
    "a-pipe": _a_pipe,
    "named-by-the-environment": _named_by_environment,
}

CASES = (
    Case(
        "T11-credential-process", "T11", "vaultd runs no program that a profile names",
        runs("credential_process"), RUNS, _BY_BOTOCORE,
    ),
    Case(
        "T11-mfa-process", "T11", "vaultd runs no program that a profile names",
        runs("mfa_process"), RUNS, _BY_BOTOCORE,
    ),
    *(
        Case(
            f"T11-config-{name}", "T11", "A config that others could have written is not believed",
            believes(prepare), BELIEVED, _READS,
        )
        for name, prepare in _FILES.items()
    ),
    Case(
        "T11-endpoint-url", "T11", "No key and no code goes to an endpoint that is neither AWS's nor allowed",
        key_goes_to(WE, allowed=False), ALLOWED, _CALLED,
    ),
    Case(
        "T11-endpoint-url-userinfo", "T11", "A user name in a URL does not hide its host",
        key_goes_to(f"sts.amazonaws.com@{WE}", allowed=False), ALLOWED, _CALLED,
    ),
)  # fmt: skip
