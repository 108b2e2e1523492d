"""What may be typed after `vaultd` (interface.md §2)."""

from __future__ import annotations

import argparse
from pathlib import Path

from vaultd import __version__


def parser() -> argparse.ArgumentParser:
    """Every command and option of `vaultd`."""
    made = argparse.ArgumentParser(
        prog="vaultd",
        description="The credential daemon: keeps AWS keys, asks for MFA codes once, serves sessions on localhost.",
        epilog="Exit status: 0 ok, 1 refused, 2 usage, 69 not running, 78 a file needs mending. See also vault-client.",
    )
    made.add_argument("--version", action="version", version=f"vaultd {__version__}")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, said in (("start", "start in the background; returns when it serves"), ("restart", "stop, then start")):
        _start_options(commands.add_parser(name, help=said, description=said.capitalize() + "."))
    commands.add_parser("stop", help="stop it; exit 0 when it was not running")
    told = commands.add_parser("status", help="is it running, and where; exit 69 when not")
    told.add_argument("--json", action="store_true", help="{running, pid, port, version, locked}")
    shown = commands.add_parser("logs", help="print the log")
    shown.add_argument("-f", "--follow", action="store_true", help="go on with what is written from now on")
    checked = commands.add_parser("check", help="diagnose config, store, port, clock and permissions without starting")
    checked.add_argument("--json", action="store_true", help='{"checks": [{name, ok, message, remedy}]}')
    later = commands.add_parser("service", help="systemd unit or launchd agent (not there yet)")
    later.add_argument("action", nargs="?", help=argparse.SUPPRESS)
    return made


def _start_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--foreground", action="store_true", help="stay, for service managers (sd_notify, sockets)")
    command.add_argument("--port", type=port, metavar="N", help="listen on 127.0.0.1:N instead of [listen] port")
    command.add_argument("--config", type=Path, metavar="FILE", help="read settings from FILE instead of config.toml")
    command.add_argument(
        "--debug", action="store_true", help="log more (never a secret); VAULTD_LOG=debug does the same"
    )
    command.add_argument("--accept-rollback", action="store_true", help="take a store older than the one last seen")
    command.add_argument("--ready-fd", type=int, help=argparse.SUPPRESS)  # the background child tells its parent here


def port(text: str) -> int:
    """A TCP port as a person types it."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: give a number from 1 to 65535")
    return int(text)
