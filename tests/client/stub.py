"""A control API of our own on a real unix socket: answers are set by the test, requests are kept for it to read."""

from __future__ import annotations

import json
import os
import queue
import socket
import socketserver
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote

Answer = tuple[int, dict[str, Any]]

TOKEN = "canary-grant-token-Zm9vYmFy"
SECRET = "canary/secret+key0000000000000000000000"
SERIAL = "arn:aws:iam::123456789012:mfa/franklin"
ROLE = "arn:aws:iam::234567890123:role/WebAdmin"
KEYS = {
    "AccessKeyId": "ASIAEXAMPLE000000001",
    "SecretAccessKey": SECRET,
    "Token": "session/token+with==",
    "Expiration": "2099-11-22T20:00:00Z",
    "AccountId": "234567890123",
    "RoleArn": ROLE,
    "Code": "Success",
    "LastUpdated": "2026-11-22T19:00:00Z",
    "Type": "AWS-HMAC",
}
PROMPT = {
    "id": "q1",
    "kind": "code",
    "identity": "identity",
    "mfa_serial": SERIAL,
    "profile": "web-admin",
    "requester": "zsh (pid 4711, /usr/bin/zsh)",
    "attempts_left": 3,
    "expires_at": "2099-11-22T20:00:00Z",
}
PROFILE = {
    "profile": "web-admin",
    "account_id": "234567890123",
    "role_arn": ROLE,
    "identity": "identity",
    "mfa_serial": SERIAL,
    "state": "fresh",
    "expiration": "2099-11-22T20:00:00Z",
    "seconds_left": 3300,
    "last_error": None,
}
IDENTITY = {
    "name": "identity",
    "account_id": "123456789012",
    "user_arn": "arn:aws:iam::123456789012:user/franklin",
    "mfa_serial": SERIAL,
    "access_key_id": "WXYZ",
    "created": "2026-11-22T19:00:00Z",
}
GRANT_ROW = {
    "id": "g1",
    "profile": "web-admin",
    "kind": "exec",
    "imds": False,
    "created": "2026-11-22T19:00:00Z",
    "last_used": None,
    "expires": "2099-11-29T19:00:00Z",
    "peer": {"pid": 4711, "uid": 1000, "exe": "/usr/bin/terraform", "argv0": "terraform", "started": "x"},
    "door": None,
}
STATUS = {
    "version": "0.1.0",
    "pid": 42,
    "port": 9169,
    "store": "file",
    "locked": False,
    "identities": [IDENTITY],
    "profiles": [PROFILE],
    "prompts": [],
    "grants": [GRANT_ROW],
    "clock_skew_seconds": 0,
    "log": "/x/vaultd.log",
    "lost_audit_lines": 0,
    "trouble": None,
    "link_local": [],
}
CHECK = {"name": "clock", "ok": True, "message": "within 60 s of AWS", "remedy": ""}
CONTAINER = [
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_EC2_METADATA_DISABLED",
]
UNSET = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_CREDENTIAL_EXPIRATION",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_METADATA_ENDPOINT",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
    "AWS_EC2_METADATA_V1_DISABLED",
]


def error(status: int, code: str, message: str, exit_status: int, **more: Any) -> Answer:
    """An error body as the control API sends it."""
    return status, {"code": code, "message": message, "exit": exit_status, **more}


def mfa_required(**changes: Any) -> Answer:
    """409 with the question."""
    said = "web-admin needs a code: type `vault-client mfa identity`"
    more = {"opened": changes.pop("opened")} if "opened" in changes else {}
    return error(409, "MfaRequired", said, 3, prompt={**PROMPT, **changes}, **more)


class Stub:
    """The daemon's control side. `answers[(method, path)]` is an answer, a list taken one by one, or a function of
    the body. Questions end by `finish(outcome)`; events are sent by `emit`.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.run = home / "run"
        self.run.mkdir(0o700, parents=True)
        (home / "state").mkdir(0o700)
        self.requests: list[tuple[str, str, dict[str, Any] | None]] = []
        self.protocols: set[str | None] = set()
        self.outcome: queue.Queue[str] = queue.Queue()
        self.events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.attending = threading.Semaphore(0)
        self.left = threading.Event()
        self.endpoint = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.endpoint.getsockname()[1]
        self.answers: dict[tuple[str, str], Any] = self._defaults()
        stub = self

        class Handler(_Handler):
            owner = stub

        self._server = socketserver.ThreadingUnixStreamServer(str(self.run / "control.sock"), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """No thread, no socket, no port stays."""
        self.outcome.put("expired")
        self.events.put(None)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self.endpoint.close()

    @property
    def environ(self) -> dict[str, str]:
        """What the client needs to find us."""
        return {"VAULTD_HOME": str(self.home)}

    def grant(self, **changes: Any) -> dict[str, Any]:
        """The 201 of POST /v1/grants."""
        name = changes.get("profile", "web-admin")
        variables = {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{self.port}/v1/credentials/{name}",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": TOKEN,
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(self.run / "grants" / "g1.token"),
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "AWS_REGION": "us-west-2",
            "AWS_DEFAULT_REGION": "us-west-2",
            "VAULTD_PROFILE": name,
            "VAULTD_GRANT": "g1",
        }
        reply = {
            "id": "g1",
            "profile": name,
            "set": variables,
            "unset": UNSET,
            "expiration": "2099-11-22T20:00:00Z",
            "account_id": "234567890123",
            "role_arn": ROLE,
            "warnings": [],
        }
        return {**reply, **changes}

    def imds_grant(self, **changes: Any) -> dict[str, Any]:
        """The 201 of POST /v1/grants {"imds": true}, as vaultd.model.environment.imds_change makes it."""
        grant = self.grant(**changes)
        endpoint = f"http://127.0.0.1:{self.port}/"
        kept = {name: value for name, value in grant["set"].items() if name not in CONTAINER}
        metadata = dict(zip(UNSET[-4:], (endpoint, endpoint, "IPv4", "true"), strict=True))
        return {**grant, "set": {**kept, **metadata}, "unset": [*UNSET[:-4], *CONTAINER]}

    def either_grant(self, body: dict[str, Any] | None) -> Answer:
        """The dialect that was asked for."""
        wanted = body or {}
        make = self.imds_grant if wanted.get("imds") else self.grant
        return 201, make(profile=wanted["profile"])

    def asked(self, method: str, path: str) -> list[dict[str, Any] | None]:
        """The bodies of every request to that route."""
        return [body for verb, where, body in self.requests if (verb, where) == (method, path)]

    def finish(self, outcome: str) -> None:
        """End the open question as if elsewhere."""
        self.outcome.put(outcome)

    def emit(self, event: dict[str, Any]) -> None:
        """One line of /v1/events."""
        self.events.put(event)

    def _defaults(self) -> dict[tuple[str, str], Any]:
        return {
            ("GET", "/v1/status"): (200, STATUS),
            ("GET", "/v1/profiles"): (200, {"profiles": [PROFILE]}),
            ("GET", "/v1/identities"): (200, {"identities": []}),
            ("POST", "/v1/identities"): (201, IDENTITY),
            ("DELETE", "/v1/identities/identity"): (200, {}),
            ("POST", "/v1/grants"): self.either_grant,
            ("GET", "/v1/checks"): (200, {"checks": [CHECK]}),
            ("GET", "/v1/grants"): (200, {"grants": [GRANT_ROW]}),
            ("DELETE", "/v1/grants"): (200, {}),
            ("DELETE", "/v1/grants/g1"): (200, {}),
            ("GET", "/v1/profiles/web-admin/credentials"): (200, KEYS),
            ("POST", "/v1/profiles/web-admin/refresh"): (200, PROFILE),
            ("POST", "/v1/prompts/q1"): (200, {}),
            ("DELETE", "/v1/prompts/q1"): (200, {}),
            ("DELETE", "/v1/sessions"): (200, {}),
            ("DELETE", "/v1/sessions?profile=web-admin"): (200, {}),
            ("POST", "/v1/lock"): (200, {}),
            ("POST", "/v1/unlock"): (200, {}),
            ("GET", "/v1/audit"): (200, {"events": []}),
        }


class _Handler(BaseHTTPRequestHandler):
    owner: Stub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass

    def _any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.owner.requests.append((self.command, self.path, body))
        self.owner.protocols.add(self.headers.get("Vaultd-Protocol"))
        self.close_connection = True
        if self.path == "/v1/events" and (self.command, self.path) not in self.owner.answers:
            self._stream()
        elif "?wait" in self.path and (self.command, self.path) not in self.owner.answers:
            self._wait()
        else:
            self._reply(*self._answer(body))

    do_GET = do_POST = do_DELETE = _any  # noqa: N815 - names of the base class

    def _answer(self, body: dict[str, Any] | None) -> Answer:
        found = self.owner.answers.get((self.command, unquote(self.path)))
        if found is None:
            return error(404, "NotFound", f"no {self.command} {self.path}: look at the contract", 1)
        if isinstance(found, list):
            found = found.pop(0) if len(found) > 1 else found[0]
        answer: Answer = found(body) if isinstance(found, Callable) else found  # type: ignore[arg-type]
        return answer

    def _reply(self, status: int, body: dict[str, Any]) -> None:
        raw = json.dumps(body).encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _wait(self) -> None:
        self.owner.attending.release()
        gone = threading.Thread(target=self._gone, daemon=True)
        gone.start()
        outcome = self.owner.outcome.get()
        with suppress(OSError):  # the asker has left
            shut = outcome in {"locked", "stopped"}
            self._reply(200, {"outcome": "cancelled", "reason": outcome} if shut else {"outcome": outcome})
        gone.join()

    def _gone(self) -> None:
        if not self.connection.recv(1):
            self.owner.left.set()
            self.owner.outcome.put("expired")

    def _stream(self) -> None:
        self.send_response_only(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while (event := self.owner.events.get()) is not None:
            raw = json.dumps(event).encode() + b"\n"
            first, second = raw[:7], raw[7:]  # one line in two chunks: chunks are no lines
            for part in (first, second):
                self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")


def environment(stub: Stub, **more: str) -> dict[str, str]:
    """A scrubbed environment for a real client process."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL") if name in os.environ}
    return {**kept, "PYTHONPATH": str(Path(__file__).parents[2] / "client"), **stub.environ, **more}
