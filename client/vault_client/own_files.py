"""vaultd's own directories and files as the client sees them: their modes, tokens that outlived their grants, and who
sits on the port while vaultd is away.

Rules (interface.md §1)
- Directories are 0700 and files 0600. What a person writes himself (`config.toml`) may be read by others, not written.
- Links (hard ones, too), what is behind one, sockets and what belongs to others are not ours to judge here: the daemon
  refuses those by name.
"""

# pathlib may not load at start-up (architecture.md §2), so os.path it is.
# ruff: noqa: PTH112, PTH114, PTH120, PTH123, PTH208
from __future__ import annotations

import os
import stat
from contextlib import suppress

from vault_client.fixes import Mode, Stale, ours
from vault_client.link import listeners
from vault_client.shadows import Finding
from vault_client.tables import typed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vault_client.doctor import Remote
    from vault_client.places import Places

_PORT = 9169
_TOKEN = ".token"  # noqa: S105 - the end of a file's name
_MOST = 2000
#: Bits that nobody but the user may have: of what is ours, and of what he writes himself.
_OURS, _HIS = 0o077, 0o022


def checks(places: Places, environ: Mapping[str, str], remote: Remote) -> list[Finding]:
    """Rows of what is not well; none when all is."""
    own_token = environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")  # which has a row of its own
    found = [_loose(*each) for each in _modes(places, environ) if each[0] != own_token]
    if remote.served.grants is not None:
        found += _stale(remote)
    if remote.away:
        found += _squatted(places, environ)
    return found


# ---- modes ----


def _modes(places: Places, environ: Mapping[str, str]) -> Iterator[tuple[str, os.stat_result, int]]:
    """Path, what is there, and the bits of its mode that must go."""
    own = dict.fromkeys([places.run, f"{places.run}/grants", places.state, places.data])
    for folder, bits in [*((each, _OURS) for each in own), (_config(places, environ), _HIS)]:
        for path in [folder, *_inside(folder)]:
            with suppress(OSError):
                found = os.lstat(path)
                if ours(found) and found.st_mode & bits:
                    yield path, found, bits


def _inside(folder: str) -> list[str]:
    """Its files; what else there is was not made by us, or is in the list of its own."""
    if os.path.islink(folder):
        return []
    try:
        names = sorted(os.listdir(folder))[:_MOST]
    except OSError:
        return []
    return [path for path in (f"{folder}/{name}" for name in names) if not os.path.isdir(path)]


def _config(places: Places, environ: Mapping[str, str]) -> str:
    if environ.get("VAULTD_HOME"):
        return os.path.dirname(places.run) + "/config"
    base = environ.get("XDG_CONFIG_HOME", "")
    return (base.rstrip("/") if base.startswith("/") else f"{environ.get('HOME', '').rstrip('/')}/.config") + "/vaultd"


def _loose(path: str, seen: os.stat_result, bits: int) -> Finding:
    mode = stat.S_IMODE(seen.st_mode)
    wanted = mode & ~bits
    said = f"{path} may be {'written' if mode & _HIS else 'read'} by other users (mode {mode:03o})"
    return Finding("permissions", said, f"type chmod {wanted:03o} {typed(path)}", fix=Mode(path, seen, wanted))


# ---- tokens ----


def token_files(places: Places) -> list[str]:
    """Those that are there now."""
    return [path for path in _inside(f"{places.run}/grants") if path.endswith(_TOKEN)]


def _stale(remote: Remote) -> Iterator[Finding]:
    """The daemon removes a token's file with its grant; what it could not is good for nothing, and looks like more."""
    live = {str(each.get("id")) for each in remote.served.grants or []}
    for path in remote.tokens:
        if path.rpartition("/")[2].removesuffix(_TOKEN) in live:
            continue
        with suppress(FileNotFoundError):
            found = os.lstat(path)
            said = f"{path} is the token of a grant that has ended"
            yield Finding("tokens", said, f"type rm {typed(path)}", fix=Stale(path, found))


# ---- the port ----


def _squatted(places: Places, environ: Mapping[str, str]) -> list[Finding]:
    """While vaultd is away, a client that is pointed at its port talks to whoever is there. Of a shell that is, another
    user's program there is the row on its endpoint.
    """
    port = _port(places)
    owners = listeners(port)
    pointed = f"http://127.0.0.1:{port}/" in environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI", "")
    if not owners or (pointed and os.getuid() not in owners):
        return []
    who = "another program of yours" if os.getuid() in owners else f"the user with id {owners[-1]}"
    said = f"127.0.0.1:{port} is held by {who} while vaultd is away, which cannot start on it"
    return [Finding("port", said, "end that program, which `vaultd check` names, then type `vaultd start`")]


def _port(places: Places) -> int:
    """Where it served last, as it wrote; else the default."""
    import json

    try:
        with open(f"{places.run}/endpoint.json", encoding="utf-8") as file:
            found = json.loads(file.read(4096))["port"]
    except (OSError, ValueError, KeyError, TypeError):
        return _PORT
    return found if isinstance(found, int) and 0 < found < 1 << 16 else _PORT
