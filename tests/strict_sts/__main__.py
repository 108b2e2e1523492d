"""`python -m tests.strict_sts`: the emulator as a process.

Prints one JSON line when it serves; ends with 0 on SIGTERM or SIGINT.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from tests.strict_sts.live import WORLD, StrictSts


def main() -> None:
    asyncio.run(_serve(_options(sys.argv[1:])))


def _options(argv: list[str]) -> dict[str, object]:
    parser = argparse.ArgumentParser(
        prog="python -m tests.strict_sts", description="A strict emulator of AWS STS and IAM."
    )
    parser.add_argument("--port", type=int, default=0, help="TCP port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--world", type=Path, default=WORLD, help="world file; default: the tutorial's")
    plane = parser.add_mutually_exclusive_group()
    plane.add_argument("--moto", metavar="URL", help="a moto server that answers all other services")
    plane.add_argument("--with-moto", action="store_true", help="start one")
    parser.add_argument("--time-scale", type=float, default=1.0, help="divides issued lives and the MFA age limit")
    parser.add_argument("--tls-cert", type=Path, help="certificate (PEM); needs --tls-key")
    parser.add_argument("--tls-key", type=Path)
    parser.add_argument("--knob", action="append", default=[], metavar="NAME=JSON")
    parser.add_argument(
        "--template", action="append", default=[], metavar="NAME=PATH", help="read PATH in place of NAME"
    )
    given = parser.parse_args(argv)
    if bool(given.tls_cert) != bool(given.tls_key):
        parser.error("--tls-cert and --tls-key go together")
    knobs = {name: json.loads(value) for name, _, value in (each.partition("=") for each in given.knob)}
    templates = {name: Path(value) for name, _, value in (each.partition("=") for each in given.template)}
    return {
        "port": given.port, "world": given.world, "moto": given.moto, "with_moto": given.with_moto,
        "time_scale": given.time_scale, "tls": (given.tls_cert, given.tls_key) if given.tls_cert else None,
        "knobs": knobs, "templates": templates,
    }  # fmt: skip


async def _serve(options: dict[str, object]) -> None:
    stop = asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, stop.set)
    async with StrictSts(**options) as strict:
        port = int(strict.url.rsplit(":", 1)[1])
        ready = {"port": port, "url": strict.url, "env": strict.env, "pid": os.getpid(), "moto": strict.moto_url}
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    main()
