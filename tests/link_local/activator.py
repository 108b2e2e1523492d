"""Socket activation without a service manager: what systemd does for `vaultd link-local`, in a few lines.

`python activator.py ADDRESS PORT NAME COMMAND…`: the address on lo, a listener on it, and COMMAND becomes of it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys

FIRST = 3


def main() -> None:
    address, port, name, *command = sys.argv[1:]
    subprocess.run(["ip", "address", "replace", f"{address}/32", "dev", "lo", "scope", "host"], check=True)
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")
    sock.bind((address, int(port)))
    sock.listen(1024)
    os.dup2(sock.detach(), FIRST)
    os.set_inheritable(FIRST, True)  # dup2 leaves a number that it already has as it is
    given = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": name}
    os.execve(command[0], command, {**os.environ, **given})


if __name__ == "__main__":
    main()
