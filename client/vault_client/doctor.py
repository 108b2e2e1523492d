"""`doctor`: what keeps this shell's tools from vaultd, and where each SDK would get its credentials instead.

Rules
- This shell is looked at here, the daemon's side by the daemon (GET /v1/checks): one list, each thing diagnosed once.
- Nothing is asked of the endpoint, because a GET may open a question; whether a grant lives, the control API says.
- No value that could be a secret is told: of tokens their shape, of files their lines, of addresses their host.
"""

# pathlib may not load at start-up (architecture.md §2), so os.path it is.
from __future__ import annotations

import os
import stat
import sys

from vault_client import shadows
from vault_client import shell as shells
from vault_client.awsfiles import AwsFiles
from vault_client.cli import Call
from vault_client.errors import UNREACHABLE, Refusal, Stop
from vault_client.link import check_listener
from vault_client.shadows import Finding, imds_in
from vault_client.tables import Ink, clean, table, typed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_URL, _TOKEN, _FILE = shells.CONTAINER
_ENDPOINT = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
_LONGEST_TOKEN = 4096


def doctor(call: Call) -> int:
    """The list, `--sdk`'s table, and 1 when anything of it is not well."""
    shell = _shell(call.environ)
    files = AwsFiles(call.environ)
    remote = Remote(call)
    found = [each.wire() for each in shell_checks(call.environ, files, shell, remote)]
    found += remote.checks
    rows = _rows(call, files) if call.flag("sdk") or call.flag("profile") else None
    if call.flag("json"):
        call.json({"checks": found, **({} if rows is None else {"sdk": [row.wire() for row in rows]})})
    else:
        call.out(_text(found))
        if rows is not None:
            call.out("\n" + _table(rows))
    if remote.away:
        raise remote.away
    return 0 if all(each["ok"] for each in found) else 1


def _shell(environ: Mapping[str, str]) -> shells.Dialect:
    try:
        return shells.calling(environ, None)
    except Stop:  # csh gets no lines to evaluate, and needs no less to know what is wrong
        return shells.Posix()


def _rows(call: Call, files: AwsFiles) -> list[Any]:
    from vault_client import families
    from vault_client.botochain import Scene

    return families.rows(Scene(call.environ, chosen=call.value("profile"), files=files))


def _text(found: list[dict[str, Any]]) -> str:
    lines = []
    for each in found:
        lines.append(f"{'ok  ' if each['ok'] else 'BAD '} {clean(each['name']):<16} {clean(each['message'])}")
        if each.get("remedy"):
            lines.append(f"     {'':<16} → {clean(each['remedy'])}")
    return "\n".join(lines) + "\n"


def _table(rows: list[Any]) -> str:
    cells = [(row.family, row.source, "yes" if row.ours else "no", row.where) for row in rows]
    return table(("SDK", "CREDENTIALS FROM", "VAULTD", "WHERE"), cells, Ink(sys.stdout, os.environ))


class Remote:
    """The daemon's answers. `away` is the Stop of a daemon that is not there; then nothing of it is known."""

    def __init__(self, call: Call) -> None:
        self.away: Stop | None = None
        self.checks: list[dict[str, Any]] = []
        self.grants: list[dict[str, Any]] | None = None
        self.port: int | None = None
        try:
            self.checks = list(call.link.call("GET", "/v1/checks")["checks"])
            self.grants = call.link.call("GET", "/v1/grants")["grants"]
            self.port = call.link.call("GET", "/v1/status")["port"]
        except Refusal as refusal:
            self.checks.append(_of_stop("daemon", refusal).wire())
        except Stop as stop:
            self.checks.append(_of_stop("daemon", stop).wire())
            self.away = stop if stop.exit_status == UNREACHABLE else None


def _of_stop(name: str, stop: Stop) -> Finding:
    """`what is wrong: what to type`, as two fields."""
    said, colon, remedy = stop.message.rpartition(": ")
    return Finding(name, said, remedy) if colon else Finding(name, stop.message)


def shell_checks(environ: Mapping[str, str], files: AwsFiles, shell: shells.Dialect, remote: Remote) -> list[Finding]:
    """Every row about this shell, in the order in which one would mend."""
    used = Used(environ, shell, remote)
    found = [used.shell(), *shadows.in_variables(environ, shell), *shadows.in_files(environ, files)]
    found += shadows.numbers(environ, imds=imds_in(environ))
    if used.dialects:
        found += [*used.grant(), *used.both(), *used.endpoint(), *shadows.proxies(environ)]
        found += shadows.metadata(environ, files, shell) if imds_in(environ) else used.token()
    if all(each.ok for each in found):
        found.append(Finding("shadows", "nothing here goes before the endpoint", ok=True))
    return found


class Used:
    """One shell as `use` or `exec` left it, and what has become of that since."""

    def __init__(self, environ: Mapping[str, str], shell: shells.Dialect, remote: Remote) -> None:
        self._environ = environ
        self._shell = shell
        self._remote = remote
        self.dialects = [name for name in (_URL, _ENDPOINT) if environ.get(name)]

    @property
    def _again(self) -> str:
        profile = self._environ.get("VAULTD_PROFILE")
        words = (typed(profile) if profile else "PROFILE") + (" --imds" if imds_in(self._environ) else "")
        if self._environ.get(shells.HOLDER) is None and profile:
            return f"leave this shell or command, and type `vault-client use {words}` or `vault-client exec` again"
        return f"type {self._shell.redo(words)}"

    def shell(self) -> Finding:
        """Is this shell pointed at anything?"""
        if not self.dialects:
            said = "this shell is not pointed at vaultd; to do so, type " + self._shell.redo("PROFILE")
            return Finding("shell", said, ok=True)
        which = "the metadata endpoint" if imds_in(self._environ) else "the container endpoint"
        profile = self._environ.get("VAULTD_PROFILE", "an unnamed profile")
        return Finding("shell", f"{profile[:200]} by {which}", ok=True)

    def both(self) -> list[Finding]:
        """A leftover of the other way of serving: which one is asked depends on the SDK."""
        if len(self.dialects) < 2:
            return []
        return [Finding("shell", f"{_URL} and {_ENDPOINT} are both set, and SDKs choose differently", self._again)]

    def grant(self) -> list[Finding]:
        """Revoked and expired grants are no longer listed."""
        identifier, grants = self._environ.get("VAULTD_GRANT"), self._remote.grants
        if not identifier:
            return [Finding("grant", "VAULTD_GRANT is not set, so these variables are not from `use`", self._again)]
        if grants is None:
            return []
        live = next((each for each in grants if each.get("id") == identifier), None)
        if live is None:
            return [Finding("grant", f"the grant {identifier[:100]} was revoked or has expired", self._again)]
        if bool(live.get("imds")) is not imds_in(self._environ):
            return [Finding("grant", f"the grant {identifier[:100]} is for the other endpoint", self._again)]
        return [Finding("grant", f"{identifier[:100]} lives, for {live.get('profile')}", ok=True)]

    def endpoint(self) -> list[Finding]:
        """On this machine, listened on, by this user, and where the daemon serves now."""
        imds = imds_in(self._environ)
        url = self._environ[_ENDPOINT if imds else _URL]
        rest = url.partition("://")[2]
        host, _, port = rest.partition("/")[0].rpartition("@")[2].partition(":")
        if not url.startswith("http://") or host != "127.0.0.1" or not _is_port(port):
            return [Finding("endpoint", f"{_ENDPOINT if imds else _URL} is not an address of vaultd", self._again)]
        if imds and not url.endswith("/"):
            return [Finding("endpoint", f"{_ENDPOINT} has no closing slash, which AWS CLI 2 needs", self._again)]
        if not imds and self._remote.port not in {None, int(port)}:
            moved = f"this shell asks port {port}, and vaultd serves on port {self._remote.port} now"
            return [Finding("endpoint", moved, self._again)]
        try:
            check_listener(int(port))
        except Stop as stop:
            return [_of_stop("endpoint", stop)]
        return [Finding("endpoint", f"127.0.0.1:{port} is listened on by you", ok=True)]

    def token(self) -> list[Finding]:
        """Both forms: old SDKs know the variable only, object_store and polars the file only (sdk-facts §10.6)."""
        missing = [name for name in (_TOKEN, _FILE) if not self._environ.get(name)]
        if missing:
            said = f"{missing[0]} is not set, and some SDKs know no other form of the token"
            return [Finding("token", said, self._again)]
        if why := token_file_fault(self._environ[_FILE], self._environ[_TOKEN]):
            return [Finding("token", f"{self._environ[_FILE]} {why}", self._again)]
        note = "the JavaScript SDK v3 prints two warning lines because both forms of the token are set: both are needed"
        return [Finding("token", "the variable and the file agree", ok=True), Finding("javascript", note, ok=True)]


def _is_port(text: str) -> bool:
    """The length first: int() raises for more than 4,300 digits."""
    return text.isascii() and text.isdigit() and len(text) <= 5 and int(text) < 1 << 16


def token_file_fault(path: str, token: str) -> str:
    """What SDKs or security.md would not have of a token file; empty when all is well. No byte of it is told."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return "is missing: it went with its grant, or a restart lost it"
    except OSError as exc:
        return f"cannot be opened ({exc.strerror})"
    try:
        held = os.fstat(number)
        content = os.read(number, _LONGEST_TOKEN) if stat.S_ISREG(held.st_mode) else b""
    finally:
        os.close(number)
    return _of_others(held) or _of_content(content, token)


def _of_others(held: os.stat_result) -> str:
    if not stat.S_ISREG(held.st_mode):
        return "is no file"
    if held.st_uid != os.getuid():
        return "belongs to another user"
    return f"may be read by others (mode {stat.S_IMODE(held.st_mode):03o})" if held.st_mode & 0o077 else ""


def _of_content(content: bytes, token: str) -> str:
    if content != content.rstrip(b"\r\n"):
        return "ends in a line end, which most SDKs refuse"
    return "" if content == os.fsencode(token) else f"holds another token than {_TOKEN}"
