"""What an SDK finds when it looks for credentials: one environment, the two files, and what follows from them.

Rule: it is read as botocore 1.44 reads it, which the other SDKs' rows (families.py) start from, too; nobody is asked.
"""

from __future__ import annotations

from vault_client.awsfiles import AwsFiles, profile_of
from vault_client.shadows import PROFILES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    Section = dict[str, str]


class Scene:
    """`chosen` is `--profile`; `named` is it, or else the variable's, and `profile` the one that counts."""

    def __init__(self, environ: Mapping[str, str], *, chosen: str | None = None, files: AwsFiles | None = None) -> None:
        self.environ = environ
        self.chosen = chosen
        self.files = files or AwsFiles(environ)
        named = next((environ[name] for name in PROFILES if name in environ), None)
        self.named = named if chosen is None else chosen
        self.profile = self.named or "default"
        config = self.files.config.values()
        self.credentials = self.files.credentials.values()
        self.configured = _of_kind(config, "profile")
        self.sso_sessions = _of_kind(config, "sso-session")
        self.profiles = {name: dict(section) for name, section in self.configured.items()}
        for name, section in self.credentials.items():
            self.profiles.setdefault(name, {}).update(section)

    def at(self, profile: str, key: str) -> str:
        """`file:line` of the value that counts: the credentials file goes first."""
        found = self.files.headers(profile)
        return next((file.at(header, key) for file, header in found if key in file.keys(header)), profile)

    def setting(self, name: str, key: str) -> str | None:
        """A setting of the metadata endpoint: the variable, else the profile's key."""
        return self.environ.get(name, self.profiles.get(self.profile, {}).get(key))


def _of_kind(config: dict[str, Section], kind: str) -> dict[str, Section]:
    found = {}
    for header, section in config.items():
        name = profile_of(header) if kind == "profile" else _session_of(header)
        if name is not None:
            found[name] = section
    return found


def _session_of(header: str) -> str | None:
    prefix = "sso-session"
    return profile_of("profile" + header[len(prefix) :]) if header.startswith(prefix) else None
