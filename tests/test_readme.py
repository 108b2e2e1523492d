"""README says what the program does: commands, settings and the two commands of its first screen."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from vault_client.commands import COMMANDS
from vaultd.command import usage
from vaultd.config import KeeperProcess, ProfileSettings, Prompt, Store, load_settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_every_client_command_is_told_and_every_told_one_exists() -> None:
    """A command that README does not name is not found by its reader; one that is not there sends him astray."""
    told = set(re.findall(r"vault-client ([a-z-]+)", README))
    named = set(re.findall(r"`([a-z-]+)(?: [A-Z\[\]-]+| -[-a-z]+)*`", README)) | told

    assert set(COMMANDS) <= named
    assert told <= set(COMMANDS)


def test_every_daemon_command_is_told() -> None:
    """The same for `vaultd`."""
    told = set(re.findall(r"vaultd ([a-z]+)(?=[ `|\n])", README))
    text = usage.parser().format_help()

    assert {"start", "check", "logs"} <= told
    for name in ("start", "stop", "restart", "status", "logs", "check"):
        assert name in text


def test_the_settings_shown_are_settings() -> None:
    """What a reader copies into config.toml is taken as it stands."""
    shown = re.search(r"```toml\n(.*?)```", README, re.DOTALL)
    assert shown is not None

    settings = load_settings(shown[1], path="README.md")

    assert settings.listen.port == 9169


@pytest.mark.parametrize("section", [Store, KeeperProcess, Prompt, ProfileSettings])
def test_what_locks_asks_and_lets_in_is_told(section: type[BaseModel]) -> None:
    """A setting of these tables that README does not name is not found by who needs it."""
    assert [name for name in section.model_fields if not re.search(rf"\b{name}\b", README)] == []


def test_the_passphrase_file_and_a_lock() -> None:
    """Where no person is, what a lock needs is another command than what a start needs."""
    told = " ".join(README.split())

    assert "It does not open what was locked: that is `vault-client unlock --stdin < FILE`" in told


def test_service_install_without_a_login(tmp_path: Path) -> None:
    """docs/service.md tells what is said where no systemd of the user's can be: nothing is written there."""
    told = " ".join((ROOT / "docs/service.md").read_text().split())
    assert "without XDG_RUNTIME_DIR (no login of yours: `su`, `sudo`, a container) nothing is written" in told
    command = [sys.executable, "-m", "vaultd", "service", "install"]
    seen = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(command, env=seen, cwd=ROOT, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (78, "")
    assert "XDG_RUNTIME_DIR is not set" in done.stderr
    assert not (tmp_path / ".config/systemd").exists()


def test_the_first_screen() -> None:
    """What it is, the two commands, the story in five lines (issue: Shows)."""
    screen = "\n".join(README.splitlines()[:32])

    assert "make demo" in screen
    assert "make test" in screen
    assert [
        line.split("  ")[0] for line in screen.splitlines() if line.startswith(("vaultd ", "vault-client ", "aws "))
    ]
    for line in (
        "vaultd start",
        "vault-client add identity",
        'eval "$(vault-client use web-admin)"',
        "aws elasticbeanstalk",
    ):
        assert line in screen
