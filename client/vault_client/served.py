"""Which addresses are vaultd's, and for which grant: what the daemon says of itself, held against one environment.

Rules
- Only the daemon knows: a port of 127.0.0.1 that this user listens on may be any program's of his, and a link-local
  address may be a cloud's. Where no daemon answers, nothing is vaultd's.
- The kernel's word on a link-local socket is worth nothing here: systemd makes it, as root, and hands it over.
- The environment of a container has a token and no VAULTD_GRANT: its grant is the one whose token file says the same.
"""

from __future__ import annotations

from vault_client.awsfiles import beginning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Grant = dict[str, Any]

METADATA, CONTAINER = "169.254.169.254", "169.254.170.2"
RELATIVE = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
PATH = "/v1/credentials/"
_TOKEN = "AWS_CONTAINER_AUTHORIZATION_TOKEN"  # noqa: S105 - a variable's name
_FILE = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"
_LONGEST_TOKEN = 4096


class Served:
    """`grants` and `status` as the control API gives them; None where it does not. `run` is where token files are."""

    __slots__ = ("_environ", "_run", "grants", "linked", "port", "refused")

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        grants: list[Grant] | None = None,
        status: dict[str, Any] | None = None,
        run: str = "",
    ) -> None:
        self._environ = environ
        self._run = run
        self.grants = grants
        #: {code, message}: why the grant of this environment is refused though it lives; None where it is not.
        self.refused: dict[str, Any] | None = None
        self.port: int | None = None if status is None else status.get("port")
        self.linked: list[dict[str, Any]] = [] if status is None else status.get("link_local") or []

    def grant(self) -> Grant | None:
        """The grant that lives of this environment: by its name, else by its token."""
        identifier, grants = self._environ.get("VAULTD_GRANT"), self.grants or []
        if identifier:
            return next((each for each in grants if each.get("id") == identifier), None)
        token = self._token(self._environ.get(_FILE, "")) or self._environ.get(_TOKEN, "")
        return next((each for each in grants if token and token == self._kept(each)), None)

    def of_door(self, address: str, port: int) -> Grant | None:
        """The grant whose door is at that address and TCP port."""
        wanted = {"address": address, "port": port}
        if address == METADATA and not self.holds(METADATA):
            return None
        return next((each for each in self.grants or [] if each.get("door") == wanted), None)

    def holds(self, address: str) -> bool:
        """Is that link-local address served now?"""
        return any(each.get("address") == address for each in self.linked)

    # ---- what an SDK would ask ----

    def container(self, port: int) -> bool:
        """127.0.0.1:port is the credential endpoint, and the token of this environment is good there."""
        return self.port == port and self._by_token()

    def relative(self, path: str) -> bool:
        """The same on 169.254.170.2."""
        return path.startswith(PATH) and self.holds(CONTAINER) and self._by_token()

    def metadata(self, address: str, port: int) -> bool:
        """A door is there: the link-local one is for everybody, one on 127.0.0.1 for this environment's grant."""
        found, named = self.of_door(address, port), self._environ.get("VAULTD_GRANT")
        return found is not None and (address == METADATA or not named or found.get("id") == named)

    def _by_token(self) -> bool:
        found = self.grant()
        return found is not None and not found.get("imds")

    def _kept(self, grant: Grant) -> str:
        return "" if grant.get("imds") else self._token(f"{self._run}/grants/{grant.get('id')}.token")

    @staticmethod
    def _token(path: str) -> str:
        try:
            return (beginning(path, _LONGEST_TOKEN) or b"").decode(errors="replace")
        except (OSError, ValueError):
            return ""


def place_of(url: str, default: int = 80) -> tuple[str, int] | None:
    """(host, port) of an http URL as written, by which an SDK finds it; None for anything else."""
    scheme, _, rest = url.partition("://")
    host, colon, port = rest.partition("/")[0].rpartition("@")[2].partition(":")
    if scheme != "http" or not host or "@" in rest.partition("/")[0]:
        return None
    if not colon:
        return host, default
    return (host, int(port)) if _is_port(port) else None


def _is_port(text: str) -> bool:
    """The length first: int() raises for more than 4,300 digits."""
    return text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 1 << 16
