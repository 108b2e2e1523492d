"""README says what the program does: commands, settings and the two commands of its first screen."""

from __future__ import annotations

import re
from pathlib import Path

from vault_client.commands import COMMANDS
from vaultd.command import usage
from vaultd.config import load_settings

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
