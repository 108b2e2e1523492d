"""Where the other SDKs would take their credentials from: what sdk-facts §1, §2 and §6 measured, as rows.

Rule: a row says only what was measured or read there; botocore's own row comes from botochain. Like there, nothing is
asked of anybody, and what a source then gives is not known here.
"""

from __future__ import annotations

from vault_client import botochain
from vault_client.botochain import FULL, RELATIVE, TOKEN, TOKEN_FILE
from vault_client.served import CONTAINER, METADATA, PATH, Served, place_of
from vault_client.tables import clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vault_client.botochain import Verdict
    from vault_client.scene import Scene

#: Keys of a profile that make it a source, and what each is called.
_KINDS = (
    ("aws_access_key_id", "keys"), ("web_identity_token_file", "web identity"), ("role_arn", "assume-role"),
    ("sso_session", "sso"), ("sso_account_id", "sso"), ("sso_start_url", "sso"), ("credential_process", "process"),
)  # fmt: skip
_ALL = frozenset(kind for _, kind in _KINDS)
_BUT_SSO = _ALL - {"sso"}
_SWITCH = "AWS_EC2_METADATA_DISABLED"


class Family:
    """One SDK. `full_first`: FULL_URI before RELATIVE_URI; `config`: reads ~/.aws/config at all, never, or only with
    AWS_SDK_LOAD_CONFIG; `unknown`: what an AWS_PROFILE that names no profile does; `switch`: which values of
    AWS_EC2_METADATA_DISABLED switch the metadata endpoint off; `kinds`: the profiles that are a source to it.
    """

    __slots__ = ("config", "full_first", "kinds", "name", "profile_first", "switch", "unknown", "web_first")

    def __init__(
        self,
        name: str,
        *,
        full_first: bool = False,
        config: str = "always",
        unknown: str = "goes on",
        switch: str = "true",
        kinds: frozenset[str] = _ALL,
        profile_first: bool = False,
        web_first: bool = False,
    ) -> None:
        self.name = name
        self.full_first = full_first
        self.config = config
        self.unknown = unknown
        self.switch = switch
        self.kinds = kinds
        self.profile_first = profile_first
        self.web_first = web_first


FAMILIES = (
    Family("JavaScript v3", switch="not false", profile_first=True),
    Family("JavaScript v2", config="loaded", switch="any"),
    Family("Go v2", unknown="error"),
    Family("Go v1", full_first=True, config="loaded"),
    Family("Rust", unknown="error"),
    Family("C++", kinds=_BUT_SSO),
    Family("CRT", switch="not false", kinds=_BUT_SSO),
    Family("object_store", config="never", switch="ignored", web_first=True),
    Family("opendal", full_first=True),
    Family("Ruby"),
    Family("minio", config="never", switch="ignored", web_first=True),
    Family("Java v2", web_first=True),
    Family(".NET", unknown="error", web_first=True),
    Family("PHP", web_first=True),
)
BOTOCORE = "botocore"


class Row:
    """`source` in one word or two, `where` the variable or file:line, `ours`: does it come from vaultd? `asks` tells it
    of an address, from what the daemon says that it serves.
    """

    __slots__ = ("asks", "family", "ours", "source", "where")

    def __init__(self, family: str, source: str, where: str, *, asks: Callable[[Served], bool] | None = None) -> None:
        self.family = family
        self.source = source
        self.where = clean(where)
        self.asks = asks
        self.ours = False

    def wire(self) -> dict[str, object]:
        """{family, source, where, vaultd} of `doctor --sdk --json`."""
        return {"family": self.family, "source": self.source, "where": self.where, "vaultd": self.ours}


def rows(scene: Scene, served: Served | None = None) -> list[Row]:
    """The first is botocore's, then comes every other family. Without `served` nothing is known to be vaultd's."""
    known = served or Served(scene.environ)
    found = [_botocore(scene), *(_row(family, scene) for family in FAMILIES)]
    for row in found:
        row.ours = row.asks is not None and row.asks(known)
    return found


def _botocore(scene: Scene) -> Row:
    found: Verdict = botochain.walk(scene)
    if found.error:
        return Row(BOTOCORE, "error", found.where)
    if found.method == "container-role":
        return _at_container(BOTOCORE, scene.environ, found.where)
    if found.method == "iam-role":
        return _at_metadata(BOTOCORE, found.where)
    return Row(BOTOCORE, found.method or "none", found.where)


def _row(family: Family, scene: Scene) -> Row:
    steps = (_env, _web, _profile) if family.web_first else (_env, _profile, _web)
    for step in (*steps, _container, _metadata):
        found = step(family, scene)
        if found is not None:
            return found
    return Row(family.name, "none", "nothing in this environment names a source of credentials")


def _env(family: Family, scene: Scene) -> Row | None:
    environ = scene.environ
    if family.name == "minio" or (family.profile_first and (scene.chosen or environ.get("AWS_PROFILE"))):
        return None  # minio's IAM provider is asked for by name; JavaScript v3 takes the profile first
    whole = environ.get("AWS_ACCESS_KEY_ID") and environ.get("AWS_SECRET_ACCESS_KEY")
    return Row(family.name, "env", "AWS_ACCESS_KEY_ID") if whole else None


def _web(family: Family, scene: Scene) -> Row | None:
    if scene.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE") and scene.environ.get("AWS_ROLE_ARN"):
        return Row(family.name, "web identity", "AWS_WEB_IDENTITY_TOKEN_FILE")
    return None


def _profile(family: Family, scene: Scene) -> Row | None:
    if family.config == "never":
        return None
    config = family.config == "always" or bool(scene.environ.get("AWS_SDK_LOAD_CONFIG"))
    for file in (scene.files.credentials, *([scene.files.config] if config else ())):
        if file.trouble:  # some refuse the file, some skip the line
            return Row(family.name, "unknown", file.trouble)
    named = scene.environ.get("AWS_PROFILE") or None
    if scene.chosen is not None:
        named = scene.chosen
    profile = named or "default"
    sections = [scene.credentials.get(profile), scene.configured.get(profile) if config else None]
    if not any(section is not None for section in sections):
        unknown = named is not None and family.unknown == "error"
        return Row(family.name, "error", f"there is no profile {profile[:100]!r}") if unknown else None
    keys = {key for section in sections for key in section or ()}
    found = next(((key, kind) for key, kind in _KINDS if key in keys and kind in family.kinds), None)
    return None if found is None else Row(family.name, found[1], f"{found[0]} in {scene.at(profile, found[0])}")


def _container(family: Family, scene: Scene) -> Row | None:
    environ = scene.environ
    order = (FULL, RELATIVE) if family.full_first else (RELATIVE, FULL)
    name = next((name for name in order if environ.get(name)), None)
    if name is None or (family.name == "object_store" and name == FULL and not environ.get(TOKEN_FILE)):
        return None  # object_store takes FULL_URI only with the token as a file, and else goes to IMDS unsaid
    return _at_container(family.name, environ, name)


def _at_container(family: str, environ: Mapping[str, str], name: str) -> Row:
    where = f"{CONTAINER} ({RELATIVE})" if name == RELATIVE else _host_of(environ[FULL])
    if not environ.get(TOKEN) and not environ.get(TOKEN_FILE):
        return Row(family, "container", f"{where}, without a token")
    if name == RELATIVE:
        return Row(family, "container", where, asks=lambda served: served.relative(environ[RELATIVE]))
    place, path = place_of(environ[FULL], 0), environ[FULL].partition("://")[2].partition("/")[2]
    if place is None or place[0] != "127.0.0.1" or not f"/{path}".startswith(PATH):
        return Row(family, "container", where)
    return Row(family, "container", where, asks=lambda served: served.container(place[1]))


def _host_of(url: str) -> str:
    """Of an address nothing but host and port: what is before and behind them may be a secret."""
    from urllib.parse import urlsplit

    try:
        found = urlsplit(url if "//" in url else f"//{url}")
        host, port = found.hostname, found.port
    except ValueError:
        host = None
    if not host:
        return "an address without a host"
    return host if port is None else f"{host}:{port}"


def _metadata(family: Family, scene: Scene) -> Row | None:
    environ = scene.environ
    given = environ.get(_SWITCH)
    off = {
        "true": (given or "").lower() == "true",
        "not false": given is not None and given.lower() != "false",
        "any": bool(given),
        "ignored": False,
    }[family.switch]
    if off:
        return None
    name = "AWS_METADATA_ENDPOINT" if family.name == "object_store" else "AWS_EC2_METADATA_SERVICE_ENDPOINT"
    chosen = "" if family.name == "minio" else environ.get(name, "")  # minio: in code only
    return _at_metadata(family.name, chosen or METADATA)


def _at_metadata(family: str, where: str) -> Row:
    place = place_of(where if "//" in where else f"http://{where}")
    if place is None or place[0] not in {"127.0.0.1", METADATA}:
        return Row(family, "metadata", _host_of(where))
    return Row(family, "metadata", _host_of(where), asks=lambda served: served.metadata(*place))
