"""What may be typed after `vaultd` (interface.md §2)."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from vaultd import __version__

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 (its name in the type stubs)


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
    checked.add_argument("--audit", action="store_true", help="only the audit log: every breach of its chain, by line")
    _service_options(commands)
    _link_local_options(commands)
    return made


def _service_options(commands: Commands) -> None:
    service = commands.add_parser(
        "service",
        help="have systemd or launchd hold the sockets and run vaultd; units of the link-local addresses",
        description=(
            "Install the systemd user units (or launchd agent) that hold vaultd's sockets while it is down, start it "
            "on first use and again after a crash. It shows what it writes, below your own configuration directory. "
            "With --link-local: the units of 169.254.169.254 and 169.254.170.2 and the sudo commands for them are "
            "shown, and nothing is run as root."
        ),
        epilog="Once installed, vaultd start, stop and restart go through the units.",
    )
    service.add_argument("action", nargs="?", choices=("install", "uninstall", "status"))
    service.add_argument(
        "--link-local", nargs="?", const="", metavar="PROFILE", help="install: the profile of 169.254.169.254"
    )
    service.add_argument("--config", type=Path, metavar="FILE", help="install: settings from FILE, not config.toml")
    service.add_argument("--strict", action="store_true", help="install: with the sandbox drop-in (systemd)")
    service.add_argument("--ecs", action="store_true", help="with --link-local: 169.254.170.2, too")


def out_of_place(options: argparse.Namespace) -> str:
    """The option of `service` that would be ignored, and what to type; empty: none."""
    linked, installs = options.link_local is not None, options.action in {None, "install"}
    own, theirs = "an install", "an install with --link-local"
    wanted = (
        ("--strict", options.strict, installs and not linked, own, "--strict"),
        ("--config", options.config, installs and not linked, own, "--config FILE"),
        ("--ecs", options.ecs, installs and linked, theirs, "--link-local PROFILE --ecs"),
    )
    for name, given, counts, where, typed in wanted:
        if given and not counts:
            return f"{name} counts for {where} only: leave it out, or type `vaultd service install {typed}`"
    return ""


def _link_local_options(commands: Commands) -> None:
    said = "hand a service manager's socket over to vaultd (the units run this)"
    command = commands.add_parser("link-local", help=said, description=said.capitalize() + ".")
    dialects = command.add_subparsers(dest="dialect", required=True, metavar="imds|ecs")
    imds = dialects.add_parser("imds", help="169.254.169.254:80 for one profile")
    imds.add_argument("profile", metavar="PROFILE")
    dialects.add_parser("ecs", help="169.254.170.2:80 for whoever has a token").set_defaults(profile=None)


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
