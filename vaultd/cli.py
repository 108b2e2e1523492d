"""`vaultd`: which command was typed, what is said when it fails, and the exit status it ends with.

Rules: this and command/ are the only places of the daemon that print or exit. What is slow to import is imported where
it is needed: `status` and `stop` load no pydantic, no aiohttp and no keyring.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from typing import Final

from vault_client.errors import USAGE, Stop
from vaultd.command import checking, following, starting, state, stdio, stopping, usage
from vaultd.errors import VaultdError

#: Exit status after a reader that left, as shells count SIGPIPE.
PIPE_CLOSED = 141


def main(argv: list[str] | None = None) -> int:
    """The whole program; returns the exit status of interface.md §2."""
    with stdio.guarded():
        try:
            return _heard(_commanded(argv), argv)
        except SystemExit as ended:  # argparse: a usage, --help, --version
            raise SystemExit(_heard(int(ended.code or 0), argv)) from None
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one, while Python ends, would show a traceback
            return stdio.INTERRUPTED


def _commanded(argv: list[str] | None) -> int:
    options = usage.parser().parse_args(argv)
    try:
        return _COMMANDS[options.command](options)
    except Stop as failure:
        print(f"vaultd: {failure}", file=sys.stderr)
        return failure.exit_status
    except VaultdError as failure:
        print(f"vaultd: {failure.message}", file=sys.stderr)
        return int(failure.details.get("exit", failure.exit))


def _heard(status: int, argv: list[str] | None) -> int:
    """The exit status once the output is out, or lost: what was done counts, what was only to be shown is not done."""
    sys.stdout.flush()
    lost = stdio.failure(sys.stdout)
    if lost is None:
        return status
    acted = (sys.argv[1:] if argv is None else argv)[:1] in (["start"], ["stop"], ["restart"], ["service"])
    if isinstance(lost, BrokenPipeError):  # `vaultd check | head -1`: as if SIGPIPE had ended us
        return status if acted else PIPE_CLOSED
    remedy = "what was done stays done" if acted else "free space or give stdout another place"
    again = "`vaultd status`" if acted else "it again"
    print(f"vaultd: the output cannot be written ({lost.strerror}), {remedy}: type {again}", file=sys.stderr)
    return status if acted else 1


def _restart(options: argparse.Namespace) -> int:
    from vaultd.command import restarting

    return restarting.run(options)


def _service(options: argparse.Namespace) -> int:
    """The units of the daemon itself, or of the link-local addresses."""
    if ignored := usage.out_of_place(options):
        print(f"vaultd: {ignored}", file=sys.stderr)
        return USAGE
    if options.link_local is not None:
        from vaultd.command import service as linked

        return linked.run(options.action, options.link_local, ecs=options.ecs)
    from vaultd.command import installing

    return installing.run(options.action, installing.Wanted(config=options.config, strict=options.strict))


def _link_local(options: argparse.Namespace) -> int:
    """What the units of the link-local addresses run."""
    from vaultd.command import link_local as handing

    return handing.run(options.dialect, options.profile)


_COMMANDS: Final[dict[str, Callable[[argparse.Namespace], int]]] = {
    "start": starting.run,
    "stop": stopping.run,
    "restart": _restart,
    "status": state.run,
    "logs": following.run,
    "check": checking.run,
    "service": _service,
    "link-local": _link_local,
}
