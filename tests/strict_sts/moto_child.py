"""moto as a process: prints its URL, serves until its stdin closes. Run by moto_plane.py, by path."""

import os
import sys

from moto.moto_server.threaded_moto_server import ThreadedMotoServer


def main() -> None:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    sys.stdout.write(f"http://{host}:{port}\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()
    os._exit(0)  # nothing of it is worth keeping, and its threads would be waited for


if __name__ == "__main__":
    main()
