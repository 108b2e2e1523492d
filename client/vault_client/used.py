"""One shell as `use` or `exec` left it, and what has become of that since: its endpoint, its grant, its token.

Rules
- Nothing is asked of the endpoint, because a GET may open a question; whether a grant lives, the control API says.
- No value that could be a secret is told: of a token its shape, of an address its host.
"""

# pathlib may not load at start-up (architecture.md §2), so os.path it is.
# ruff: noqa: PTH119
from __future__ import annotations

import os
import stat

from vault_client import shell as shells
from vault_client.errors import Stop
from vault_client.link import check_listener, listeners
from vault_client.served import CONTAINER, METADATA, PATH, RELATIVE, place_of
from vault_client.shadows import Finding, imds_in
from vault_client.tables import typed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from vault_client.doctor import Remote

_URL, _TOKEN, _FILE = shells.CONTAINER
_ENDPOINT, _STORE_ENDPOINT = shells.IMDS[:2]
_LONGEST_TOKEN = 4096


class Used:
    """One shell as `use` or `exec` left it, and what has become of that since."""

    def __init__(self, environ: Mapping[str, str], shell: shells.Dialect, remote: Remote) -> None:
        self._environ = environ
        self._shell = shell
        self._served = remote.served
        self._away = remote.away
        self.dialects = [name for name in (_URL, _ENDPOINT) if environ.get(name)]

    @property
    def _imds(self) -> bool:
        """Was it `--imds`? Of a shell that lost its endpoint the grant says it, or what is left of the variables."""
        if self.dialects:
            return imds_in(self._environ)
        grant = self._served.grant() or {}
        return bool(grant.get("imds", any(self._environ.get(name) for name in shells.IMDS)))

    @property
    def _again(self) -> str:
        profile = self._environ.get("VAULTD_PROFILE")
        return self._use(typed(profile) if profile else "PROFILE")

    def _use(self, name: str) -> str:
        words = name + (" --imds" if self._imds else "")
        if self._environ.get(shells.HOLDER) is None and self._environ.get("VAULTD_PROFILE"):
            return f"leave this shell or command, and type `vault-client use {words}` or `vault-client exec` again"
        return f"type {self._shell.redo(words)}"

    def shell(self) -> list[Finding]:
        """Is this shell pointed at anything, and by all that it takes?"""
        if self.dialects:
            return [self._pointed(), *self._half()]
        if RELATIVE in self._environ:
            return []
        if self._environ.get("VAULTD_GRANT"):
            name = _ENDPOINT if self._imds else _URL
            return [Finding("shell", f"{name} is not set any more, so that SDKs do not find vaultd", self._again)]
        return self._unpointed()

    def _unpointed(self) -> list[Finding]:
        if left := self._left_over():
            said = f"{left[0]} is set without an endpoint, a left-over of `use` or `exec`"
            return [Finding("variables", said, f"type {self._shell.drop(left)}", unset=left)]
        if untaken := self._untaken():
            return untaken
        said = "this shell is not pointed at vaultd; to do so, type " + self._shell.redo("PROFILE")
        if found := self._served.of_door(METADATA, 80):
            said = f"no variable points at vaultd; SDKs find {found.get('profile')} at {METADATA}, which vaultd serves"
        return [Finding("shell", said, ok=True)]

    def _left_over(self) -> list[str]:
        """Of vaultd's variables. AWS_EC2_METADATA_DISABLED alone is what many set for themselves."""
        names = (*shells.CONTAINER, *shells.IMDS, "VAULTD_PROFILE")
        ours = [name for name in names if self._environ.get(name)]
        return [] if ours == ["AWS_EC2_METADATA_DISABLED"] else ours

    def _untaken(self) -> list[Finding]:
        """A `use` whose lines no shell took: typed into a pipe or a file, or where shell integration is not loaded."""
        if shells.INTEGRATION in self._environ:
            return []
        for each in self._served.grants or []:
            pid = (each.get("peer") or {}).get("pid")
            if each.get("kind") == "shell" and not each.get("last_used") and isinstance(pid, int) and not _lives(pid):
                said = (f"`use {typed(each.get('profile'))}` was typed, but no shell has used its grant "
                        f"{each.get('id')}, and this one has no shell integration")  # fmt: skip
                return [Finding("integration", said, f"type {self._integrate()}, then `use` again")]
        return []

    def _integrate(self) -> str:
        name = os.path.basename(self._environ.get("SHELL", ""))
        if name == "fish":
            return "`vault-client shell-init fish | source`"
        return f'`eval "$(vault-client shell-init {name if name == "zsh" else "bash"})"`'

    def _pointed(self) -> Finding:
        which = "the metadata endpoint" if self._imds else "the container endpoint"
        profile = self._environ.get("VAULTD_PROFILE", "an unnamed profile")
        return Finding("shell", f"{profile[:200]} by {which}", ok=True)

    def _half(self) -> list[Finding]:
        """object_store knows the metadata endpoint by this name alone."""
        if not self._imds or self._environ.get(_STORE_ENDPOINT) or not self._environ.get("VAULTD_GRANT"):
            return []
        return [Finding("shell", f"{_STORE_ENDPOINT} is not set, and some SDKs know no other name", self._again)]

    def relative(self) -> list[Finding]:
        """Most SDKs ask 169.254.170.2 first of all: well where vaultd serves it, and the token is good there."""
        path, held = self._environ.get(RELATIVE), self._served.holds(CONTAINER)
        if path is None:
            return []
        drop, meant = f"type {self._shell.drop([RELATIVE])}", path.startswith(PATH)
        if self._away and meant:
            return []
        if not held:
            said = f"{RELATIVE} is set: most SDKs ask {CONTAINER} and not vaultd, which does not serve it now"
            look = "see `vaultd service status --link-local`, or " if meant else ""
            return [Finding("variables", said, look + drop, unset=() if meant else [RELATIVE])]
        if not meant:
            said = f"{RELATIVE} is no path of vaultd, which serves {CONTAINER}"
            return [Finding("variables", said, drop, unset=[RELATIVE])]
        return self._of_relative(path, drop)

    def _of_relative(self, path: str, drop: str) -> list[Finding]:
        grant = self._served.grant()
        if grant is None or grant.get("imds") or not any(self._environ.get(name) for name in (_TOKEN, _FILE)):
            said = f"{RELATIVE} is set, and not the token of a grant that lives"
            return [Finding("variables", said, f"{self._again}, or {drop}")]
        if _URL in self.dialects and not self._environ[_URL].endswith(path):
            said = f"{RELATIVE} and {_URL} are of two profiles, and SDKs choose differently"
            return [Finding("variables", said, drop, unset=[RELATIVE])]
        said = f"{grant.get('profile')} by {CONTAINER}, which vaultd serves; the grant {grant.get('id')} lives"
        return [Finding("endpoint", said, ok=True)]

    def both(self) -> list[Finding]:
        """A leftover of the other way of serving: which one is asked depends on the SDK."""
        if len(self.dialects) < 2:
            return []
        return [Finding("shell", f"{_URL} and {_ENDPOINT} are both set, and SDKs choose differently", self._again)]

    def grant(self) -> list[Finding]:
        """Revoked and expired grants are no longer listed."""
        identifier = self._environ.get("VAULTD_GRANT")
        if self._at_link_local():
            return []
        if not identifier:
            return [Finding("grant", "VAULTD_GRANT is not set, so these variables are not from `use`", self._again)]
        if self._served.grants is None:
            return []
        return [self._living(identifier, self._served.grant())]

    def _living(self, identifier: str, live: Mapping[str, Any] | None) -> Finding:
        if live is None:
            return Finding("grant", f"the grant {identifier[:100]} was revoked or has expired", self._again)
        if bool(live.get("imds")) is not self._imds:
            return Finding("grant", f"the grant {identifier[:100]} is for the other endpoint", self._again)
        if refused := self._served.refused:
            return self._refused(refused)
        return Finding("grant", f"{identifier[:100]} lives, for {live.get('profile')}", ok=True)

    def _refused(self, refused: Mapping[str, Any]) -> Finding:
        """It lives, and the config file has changed under it. The daemon's own remedy is for whoever knows no shell."""
        said = str(refused.get("message")).partition("; type `")[0].partition(" Run `")[0].removesuffix(".")
        remedies = {
            "ProfileMismatch": self._again,
            "UnknownProfile": f"see `vault-client list`, then {self._use('PROFILE')}",
        }
        otherwise = f"type `vault-client explain {typed(self._environ.get('VAULTD_PROFILE', 'PROFILE'))}`"
        remedy = remedies.get(str(refused.get("code")), otherwise)
        return Finding("grant", f"no call of this shell is answered: {said}", remedy)

    def endpoint(self) -> list[Finding]:
        """On this machine, listened on, by this user, and where the daemon serves now."""
        name = _ENDPOINT if self._imds else _URL
        if linked := self._at_link_local():
            said = f"{METADATA} is served by vaultd, for {linked.get('profile')}"
            return [*self._open_end(name), Finding("endpoint", said, ok=True)][:1]
        place = place_of(self._environ[name], 0)
        if place is None or place[0] != "127.0.0.1" or not place[1]:
            return [Finding("endpoint", f"{name} is not an address of vaultd", self._again)]
        if open_end := self._open_end(name):
            return open_end
        return self._moved(place[1]) or self._listened(place[1])

    def _at_link_local(self) -> dict[str, Any] | None:
        place = place_of(self._environ.get(_ENDPOINT, "")) if self._imds else None
        return None if place is None or place[0] != METADATA else self._served.of_door(*place)

    def _open_end(self, name: str) -> list[Finding]:
        if name == _URL or self._environ[name].endswith("/"):
            return []
        return [Finding("endpoint", f"{name} has no closing slash, which AWS CLI 2 needs", self._again)]

    def _moved(self, port: int) -> list[Finding]:
        """Not where the daemon serves this grant."""
        if not self._imds:
            now = self._served.port
            where = "vaultd serves" if now not in {None, port} else ""
        else:
            grant = self._served.grant() or {}
            now = (grant.get("door") or {}).get("port", port)
            where = f"the grant {grant.get('id')} is" if now != port else ""
        said = f"this shell asks port {port}, and {where} on port {now} now"
        return [Finding("endpoint", said, self._again)] if where else []

    def _listened(self, port: int) -> list[Finding]:
        """By whom, as the kernel has it. Where nobody does the daemon's row says why when it is away, and the grant's
        when it has ended: its door went with it, and who is there now is another program.
        """
        known = self._served.grants is not None
        gone = self._away or (self._imds and known and self._served.of_door("127.0.0.1", port) is None)
        try:
            owners = listeners(port) or [os.getuid()]
            if gone and os.getuid() in owners:
                return []
            check_listener(port, again=self._again if self._imds else "")
        except Stop as stop:
            return [Finding.of_stop("endpoint", stop)]
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


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


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
