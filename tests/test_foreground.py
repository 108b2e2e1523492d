"""What the daemon's process loads before it serves, and in what order."""

from __future__ import annotations

import json
import subprocess
import sys

_SCRIPT = """
import json, os, sys
from vaultd import foreground
assert "aiohttp" not in sys.modules, "aiohttp came before the keeper"
os.environ["SSL_CERT_FILE"] = "/somebody/chose.pem"
foreground._import_web()
import aiohttp.connector
print(json.dumps({
    "file": os.environ.get("SSL_CERT_FILE"), "directory": os.environ.get("SSL_CERT_DIR"),
    "certificates": len(aiohttp.connector._SSL_CONTEXT_VERIFIED.get_ca_certs()),
    "boto": sorted(name for name in sys.modules if name.partition(".")[0] in {"boto3", "botocore", "keyring"}),
}))
"""


def test_web_is_imported_without_certificates_and_leaves_no_trace() -> None:
    """The unused client of aiohttp gets no CA certificates (2 MB, 50 ms of the start); the user's own choice of them is
    back afterwards. Neither boto3 nor the keyring is loaded by then (issue 3, speed).
    """
    done = subprocess.run([sys.executable, "-I", "-c", _SCRIPT], capture_output=True, text=True, env={}, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "file": "/somebody/chose.pem",
        "directory": None,
        "certificates": 0,
        "boto": [],
    }
