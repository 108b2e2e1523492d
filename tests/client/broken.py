"""Broken set-ups, each with the one line of remedy that `doctor` has for it, and what `--fix` does about it.

    python -m tests.client.broken     # prints them all, as doctor finds them in a real process

Each breaks a home that is well in one way. The daemon's own side is the stub's, in the words of vaultd/checks.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.client.stub import CHECK, GRANT_ROW, STATUS, TOKEN, Stub, environment

CLIENT = [sys.executable, "-m", "vault_client"]
Environ = dict[str, str]


@dataclass(frozen=True)
class Broken:
    """`name` is the row's, `remedy` a part of its remedy. `safe`: `--fix` mends it; `unset`: by a line for eval."""

    title: str
    name: str
    remedy: str
    breaks: Callable[[Stub, Environ], Environ]
    safe: bool = False
    unset: str = ""


def well(stub: Stub) -> Environ:
    """A shell as `use` left it, and a home as the daemon made it."""
    home = stub.home.parent / "home"
    home.mkdir(exist_ok=True)
    grants = stub.run / "grants"
    grants.mkdir(0o700)
    file = grants / "g1.token"
    file.write_text(TOKEN)
    file.chmod(0o600)
    stub.answers["GET", "/v1/status"] = (200, {**STATUS, "port": stub.port})
    return {**stub.grant()["set"], "VAULTD_SHELL": "1", "HOME": str(home), "SHELL": "/bin/bash"}


def unpointed(environ: Environ) -> Environ:
    """The shell before `use`."""
    return {name: environ[name] for name in ("HOME", "SHELL")}


def with_check(name: str, message: str, remedy: str) -> Callable[[Stub, Environ], Environ]:
    """The daemon's own diagnosis."""

    def breaks(stub: Stub, environ: Environ) -> Environ:
        row = {"name": name, "ok": False, "message": message, "remedy": remedy}
        stub.answers["GET", "/v1/checks"] = (200, {"checks": [CHECK, row]})
        return environ

    return breaks


def keys(stub: Stub, environ: Environ) -> Environ:
    return {**environ, "AWS_ACCESS_KEY_ID": "AKIACANARY", "AWS_SECRET_ACCESS_KEY": "canary"}


def profile(stub: Stub, environ: Environ) -> Environ:
    return {**environ, "AWS_PROFILE": "old"}


def default_section(stub: Stub, environ: Environ) -> Environ:
    folder = Path(environ["HOME"]) / ".aws"
    folder.mkdir()
    (folder / "credentials").write_text("[default]\naws_access_key_id = AKIACANARY\naws_secret_access_key = canary\n")
    return environ


def proxied(stub: Stub, environ: Environ) -> Environ:
    return {**environ, "HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "corp", "no_proxy": "corp"}


def other_version(stub: Stub, environ: Environ) -> Environ:
    stub.answers["GET", "/v1/status"] = (200, {**STATUS, "port": stub.port, "version": "0.0.9"})
    return environ


def open_directory(stub: Stub, environ: Environ) -> Environ:
    (stub.home / "state").chmod(0o755)
    return environ


def open_file(stub: Stub, environ: Environ) -> Environ:
    file = stub.home / "state" / "sessions.sealed"
    file.write_bytes(b"sealed")
    file.chmod(0o644)
    return environ


def revoked(stub: Stub, environ: Environ) -> Environ:
    return {**environ, "VAULTD_GRANT": "g2"}


def lost_token(stub: Stub, environ: Environ) -> Environ:
    (stub.run / "grants" / "g1.token").unlink()
    return environ


def old_token(stub: Stub, environ: Environ) -> Environ:
    file = stub.run / "grants" / "gone.token"
    file.write_text("canary")
    file.chmod(0o600)
    return environ


def moved(stub: Stub, environ: Environ) -> Environ:
    stub.answers["GET", "/v1/status"] = (200, {**STATUS, "port": 9170})
    return environ


def untaken(stub: Stub, environ: Environ) -> Environ:
    """`vault-client use web-admin` typed into a pipe: a grant of a process that is gone, and nobody who uses it."""
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    held = {**GRANT_ROW, "kind": "shell", "peer": {"pid": gone.pid, "exe": "/usr/bin/python3.11"}}
    stub.answers["GET", "/v1/grants"] = (200, {"grants": [held]})
    return unpointed(environ)


def left_over(stub: Stub, environ: Environ) -> Environ:
    """A shell in which `use --imds` was undone by hand, and half of it."""
    return {**unpointed(environ), "AWS_EC2_METADATA_V1_DISABLED": "true", "VAULTD_PROFILE": "web-admin"}


def squatted(stub: Stub, environ: Environ) -> Environ:
    """No daemon, and a program of this user on the port that it had."""
    home = stub.home.parent / "away"
    (home / "run").mkdir(0o700, parents=True)
    endpoint = home / "run" / "endpoint.json"
    endpoint.write_text(json.dumps({"port": stub.port, "pid": 1}))
    endpoint.chmod(0o600)
    return {**unpointed(environ), "VAULTD_HOME": str(home)}


CASES = (
    Broken("keys in the environment", "variables", "unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY", keys, safe=True,
           unset="AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY"),
    Broken("AWS_PROFILE is set", "variables", "unset AWS_PROFILE", profile, safe=True, unset="AWS_PROFILE"),
    Broken("a [default] with keys in the credentials file", "credentials file", "rename that section", default_section),
    Broken("a proxy without an exception for 127.0.0.1", "proxy", "add 127.0.0.1,localhost to NO_PROXY", proxied),
    Broken("a clock that is 7 minutes behind", "clock", "timedatectl set-ntp true",
           with_check("clock", "clock is 7 minutes behind AWS", "set the clock, or type `timedatectl set-ntp true`")),
    Broken("a keyring that is not there", "store", "VAULTD_STORE=file vaultd start",
           with_check("store", "no OS keyring is reachable here", "type `VAULTD_STORE=file vaultd start`")),
    Broken("a daemon of another version", "version", "vaultd restart", other_version),
    Broken("a state directory that others may read", "permissions", "chmod 700", open_directory, safe=True),
    Broken("a sessions.sealed that others may read", "permissions", "chmod 600", open_file, safe=True),
    Broken("a grant that was revoked", "grant", 'eval "$(vault-client use web-admin)"', revoked),
    Broken("a token file that is gone", "token", 'eval "$(vault-client use web-admin)"', lost_token),
    Broken("a token file of a grant that has ended", "tokens", "rm ", old_token, safe=True),
    Broken("a daemon that serves on another port now", "endpoint", 'eval "$(vault-client use web-admin)"', moved),
    Broken("`use` typed without shell integration", "integration", "vault-client shell-init bash", untaken),
    Broken("left-overs of --imds without an endpoint", "variables", "unset AWS_EC2_METADATA_V1_DISABLED", left_over,
           safe=True, unset="AWS_EC2_METADATA_V1_DISABLED VAULTD_PROFILE"),
    Broken("another program on the port while vaultd is away", "port", "vaultd check", squatted),
)  # fmt: skip


def doctor(stub: Stub, environ: Environ, *options: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, without a terminal."""
    env = {**environment(stub), **environ}
    return subprocess.run([*CLIENT, "doctor", *options], env=env, capture_output=True, text=True, check=False,
                          start_new_session=True, stdin=subprocess.DEVNULL, timeout=60)  # fmt: skip


def bad(stub: Stub, environ: Environ) -> list[dict[str, Any]]:
    """The rows that are not well, but for the daemon that a set-up leaves out."""
    found = json.loads(doctor(stub, environ, "--json").stdout)["checks"]
    return [each for each in found if not each["ok"] and "is not running" not in each["message"]]


def _show(case: Broken, number: int) -> None:
    with tempfile.TemporaryDirectory(prefix="vaultd-broken-") as name:
        stub = Stub(Path(name) / "v")
        try:
            environ = case.breaks(stub, well(stub))
            (row,) = bad(stub, environ)
            mended = doctor(stub, environ, "--fix", "--yes") if case.safe else None
        finally:
            stub.close()
    home = str(Path(name))
    print(f"{number:2}. {case.title}\n    {row['name']}: {row['message'].replace(home, '~')}")
    print(f"    → {row['remedy'].replace(home, '~')}")
    if mended is not None:
        done = [line for line in mended.stderr.splitlines() if line.startswith("done: ")] or [mended.stdout.strip()]
        print(f"    --fix: {done[0].replace(home, '~')}")
    else:
        print("    --fix: left to the person")


def main() -> int:
    """All of them, one after the other."""
    os.umask(0o077)
    for number, case in enumerate(CASES, 1):
        _show(case, number)
    print(f"{len(CASES)} broken set-ups, one remedy each; {sum(each.safe for each in CASES)} mended by --fix")
    return 0


if __name__ == "__main__":
    sys.exit(main())
