"""The tutorial's story against an embedded AWS, in a real shell on a real terminal: `make demo`.

It prints each command before its output. The embedded AWS is the strict STS emulator of the tests with moto behind
it, so nothing leaves this machine, and everything it starts is stopped at the end. `--keep` leaves it up in a subshell.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
SERIAL = "arn:aws:iam::123456789012:mfa/franklin"
PASSPHRASE = "a passphrase for the demo"  # opens a store that this script deletes
READY = "\x1b[0m$ "  # a prompt that no program prints by chance: a reset, then `$ `
WAIT = 60

#: AWS CLI v2, where Debian's package is installed.
DEBIAN_AWS = "/usr/bin/aws"

SCRIPT = """\
import boto3
for app in boto3.client("elasticbeanstalk").describe_applications()["Applications"]:
    print("boto3 sees", app["ApplicationName"])
"""


class Failed(Exception):
    """The story did not end as it must."""


@contextmanager
def embedded_aws() -> Iterator[dict[str, str]]:
    """The emulator as a process; gives the environment that points clients at it, and DEMO_AWS, its address."""
    command = [sys.executable, "-m", "tests.strict_sts", "--port", "0", "--with-moto"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            started = json.loads(process.stdout.readline())
            yield {**started["env"], "DEMO_AWS": started["url"]}
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def ask(aws: str, path: str) -> dict[str, object]:
    """One control request to the emulator (what a phone and CloudTrail would show)."""
    with urllib.request.urlopen(f"{aws}/_ctl/{path}", timeout=10) as reply:
        found: dict[str, object] = json.load(reply)
        return found


def free_port() -> int:
    """A port that nobody holds, so that the demo runs beside a vaultd of your own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def home(directory: Path) -> dict[str, str]:
    """A home of its own: profiles, settings, store and state under one directory."""
    (directory / ".aws").mkdir()
    shutil.copy(ROOT / "examples/tutorial/aws-config", directory / ".aws/config")
    (directory / "vaultd/config").mkdir(parents=True, mode=0o700)
    (directory / "vaultd/config/config.toml").write_text(f"[listen]\nport = {free_port()}\n")
    (directory / "show_apps.py").write_text(SCRIPT)
    return {"HOME": str(directory), "VAULTD_HOME": str(directory / "vaultd"), "VAULTD_STORE": "file"}


class Shell:
    """A bash on a terminal of its own; what happens there is shown as it happens."""

    def __init__(self, environment: dict[str, str], directory: Path) -> None:
        self.process = pexpect.spawn(
            "bash",
            ["--norc", "--noprofile"],
            env=environment,
            cwd=str(directory),
            encoding="utf-8",
            dimensions=(50, 160),
        )
        self.process.expect(r"\$ ")
        self.process.sendline("bind 'set enable-bracketed-paste off' 2>/dev/null; PS1='\\[\\e[0m\\]$ '; clear")
        self.process.expect_exact(READY)

    def run(self, command: str, *answers: tuple[str, str]) -> str:
        """Type `command`, give each answer when its question stands there, and return what was printed."""
        print(f"\n$ {command}")
        self.process.sendline(command)
        self.process.expect_exact(command)
        said = ""
        for question, answer in answers:
            self.process.expect_exact(question, timeout=WAIT)
            said += (self.process.before or "") + question
            self.process.sendline(answer)
        self.process.expect_exact(READY, timeout=WAIT)
        said += self.process.before or ""
        said = said.replace("\r\n", "\n").replace("\r", "")
        print(said.strip("\n"))
        return said

    def status(self) -> int:
        """The exit status of the last command."""
        self.process.sendline('echo "<$?>"')
        self.process.expect(r"\r\n<(\d+)>")
        assert isinstance(self.process.match, re.Match)
        found = int(self.process.match.group(1))
        self.process.expect_exact(READY)
        return found

    def close(self) -> None:
        """End the shell and its terminal."""
        self.process.close(force=True)


def environment(aws: dict[str, str], place: dict[str, str]) -> dict[str, str]:
    """What the demo's shell sees: stock tools first on PATH, and nothing of your own AWS set-up."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TERM", "TZ") if name in os.environ}
    kept.setdefault("TERM", "xterm")
    return {**kept, **aws, **place, "PATH": f"{BIN}:{kept['PATH']}", "PS1": "$ ", "AWS_PAGER": "", "PAGER": "cat"}


def story(shell: Shell, aws: str) -> None:
    """The tutorial, step by step; raises Failed where the product does not keep its word."""
    key = ask(aws, "key?user=franklin")
    shell.run("vaultd start", ("New passphrase", PASSPHRASE), ("again", PASSPHRASE))
    must(shell.status() == 0, "vaultd start exits 0")
    shell.run("cat ~/.aws/config")
    shell.run(
        "vault-client add identity", ("Access key ID: ", str(key["id"])), ("ecret access key: ", str(key["secret"]))
    )
    shell.run("vault-client list")
    since = len(calls(aws))
    shell.run('eval "$(vault-client use web-admin)"', ("code", code(aws)))
    must(shell.status() == 0, "use exits 0")
    said = shell.run("aws elasticbeanstalk describe-applications")
    must("prod-app" in said, "the stock AWS CLI names the production account's application")
    if Path(DEBIAN_AWS).exists():  # 2.9, which knows no AWS_ENDPOINT_URL: only where to send the call is told to it
        said = shell.run(f"{DEBIAN_AWS} --endpoint-url $AWS_ENDPOINT_URL elasticbeanstalk describe-applications")
        must("prod-app" in said, "AWS CLI v2 does, too")
    said = shell.run("vault-client exec web-admin -- python show_apps.py")
    must("boto3 sees prod-app" in said, "boto3 does, too, in a command of its own")
    shell.run("vault-client status")
    said = shell.run("vault-client log")
    must(said.count("mfa.answer") == 1, "the audit log shows one answered question")
    served = [line for line in said.splitlines() if "credentials.serve" in line]
    must(any(" aws (" in line for line in served), "the audit log names the AWS CLI as the process that asked")
    must(any(" show_apps.py (" in line for line in served), "and the script that boto3 ran in")
    made = [call["op"] for call in calls(aws)[since:]]
    codes, roles = made.count("GetSessionToken"), made.count("AssumeRole")
    print(f"\nThe embedded AWS counted: {codes} GetSessionToken, {roles} AssumeRole")
    must(codes == 1, "one MFA session was made")
    must(roles == 1, "one role session was made")


def ending(shell: Shell) -> None:
    """Lock, and stop."""
    shell.run("vault-client lock")
    shell.run("aws elasticbeanstalk describe-applications")
    must(shell.status() != 0, "nothing is served while locked")
    shell.run("vaultd stop")
    must(shell.status() == 0, "vaultd stop exits 0")


def calls(aws: str) -> list[dict[str, object]]:
    """The emulator's call log."""
    found = ask(aws, "calls")["calls"]
    assert isinstance(found, list)
    return found


def code(aws: str) -> str:
    """What the phone shows now: made from the device's seed, as a phone would."""
    return str(ask(aws, f"totp?serial={SERIAL}")["code"])


def must(kept: bool, what: str) -> None:
    """One promise of the story."""
    if not kept:
        raise Failed(what)


def play(shell_environment: dict[str, str], directory: Path, aws: str) -> None:
    """`KEEP=1`: a subshell to play in; daemon and emulator go on until it ends."""
    print(f"\nDaemon and embedded AWS stay up. A code: curl -s '{aws}/_ctl/totp?serial={SERIAL}'.")
    print(f"The store's passphrase, after a lock: {PASSPHRASE}\nLeave with `exit`.", flush=True)
    subprocess.run(["bash", "--norc"], env={**shell_environment, "PS1": "(vaultd demo) $ "}, cwd=directory, check=False)


def main() -> int:
    """Run the story; 0 when every promise was kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave everything up in a subshell to play in")
    keep = parser.parse_args().keep
    with tempfile.TemporaryDirectory(prefix="vaultd-demo-") as name, embedded_aws() as aws:
        directory = Path(name)
        seen = environment(aws, home(directory))
        shell = Shell(seen, directory)
        try:
            story(shell, aws["DEMO_AWS"])
            if keep:
                play(seen, directory, aws["DEMO_AWS"])
            ending(shell)
        except (Failed, pexpect.ExceptionPexpect) as exc:
            print(f"\ndemo: failed: {exc}", file=sys.stderr)
            return 1
        finally:
            subprocess.run([BIN / "vaultd", "stop"], env=seen, capture_output=True, check=False)
            shell.close()
    print(CLOSING)
    return 0


CLOSING = f"""
That was the whole story, with a store that is deleted now (its passphrase: {PASSPHRASE}). With a real account:
  1. deploy the two stacks:          examples/tutorial/README.md has one command for each
  2. start the daemon:               vaultd start
  3. store your access key:          vault-client add identity
  4. point this shell at a profile:  eval "$(vault-client use web-admin)"
"""

if __name__ == "__main__":
    sys.exit(main())
