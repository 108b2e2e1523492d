"""Where botocore (AWS CLI, boto3, aiobotocore) would take its credentials from in one environment; nobody is asked.

Rules
- The same steps in the same order as botocore 1.44; a differential test holds this to the real one.
- Nothing is run, fetched or assumed: a source that botocore would choose is the verdict, and whether that source then
  gives anything is not known here. What botocore refuses before it chooses is a verdict, too.
"""

# pathlib may not load at start-up (architecture.md §2), so os.path it is.
# ruff: noqa: PTH111
from __future__ import annotations

import os

from vault_client.awsfiles import MOST_BYTES, AwsFile, beginning
from vault_client.shadows import NUMBERS, boto_files
from vault_client.tables import clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from vault_client.scene import Scene, Section

RELATIVE = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
FULL = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
TOKEN = "AWS_CONTAINER_AUTHORIZATION_TOKEN"  # noqa: S105 - a variable's name
TOKEN_FILE = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"  # noqa: S105
#: Profiles in a row: botocore recurses, and ends in an error some hundreds further on.
_LONGEST_CHAIN = 100
_SOURCES = ("Environment", "EcsContainer", "Ec2InstanceMetadata")
_STATIC = ("aws_access_key_id", "aws_secret_access_key")
_HOSTS = ("169.254.170.2", "169.254.170.23", "fd00:ec2::23", "localhost")


class Refused(Exception):
    """botocore ends with an error here; the text says which, and never a value that could be a secret."""


class Verdict:
    """`method` is botocore's own word for the source, None for none; `where` is the variable or file:line."""

    __slots__ = ("error", "method", "where")

    def __init__(self, method: str | None, where: str, *, error: bool = False) -> None:
        self.method = method
        self.where = clean(where)
        self.error = error


def walk(scene: Scene) -> Verdict:
    """The first step that answers, as botocore goes."""
    try:
        _settings(scene)
        for step in _STEPS:
            found = step(scene, scene.profile)
            if found is not None:
                return found
    except Refused as refused:
        return Verdict(None, str(refused), error=True)
    return Verdict(None, "nothing in this environment names a source of credentials")


# ---- before the chain ----


def _settings(scene: Scene) -> None:
    """What every session reads first, whatever its credentials."""
    for file in (scene.files.config, scene.files.credentials):
        if file.trouble:
            raise Refused(file.trouble)
    if scene.named is not None and scene.named not in scene.profiles:
        raise Refused(f"there is no profile {scene.named[:100]!r} in {scene.files.config.path}")
    for name in NUMBERS:
        _whole(name, scene.setting(name, name.removeprefix("AWS_").lower()))
    mode = scene.setting("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "ec2_metadata_service_endpoint_mode")
    if mode is not None and mode.lower() not in {"ipv4", "ipv6"}:
        raise Refused("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE is neither IPv4 nor IPv6")
    endpoint = scene.setting("AWS_EC2_METADATA_SERVICE_ENDPOINT", "ec2_metadata_service_endpoint")
    if endpoint and not _host(endpoint):
        raise Refused("AWS_EC2_METADATA_SERVICE_ENDPOINT is no URL")


def _whole(name: str, value: str | None) -> None:
    try:
        int("0" if value is None else value)
    except ValueError:
        raise Refused(f"{name} is no whole number") from None


def _host(url: str) -> str:
    from urllib.parse import urlsplit

    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


# ---- the chain ----


def _env(scene: Scene, _: str) -> Verdict | None:
    if scene.chosen is not None or not scene.environ.get("AWS_ACCESS_KEY_ID"):
        return None
    return _env_source(scene)


def _env_source(scene: Scene) -> Verdict | None:
    if not scene.environ.get("AWS_ACCESS_KEY_ID"):
        return None
    if not scene.environ.get("AWS_SECRET_ACCESS_KEY"):
        raise Refused("AWS_ACCESS_KEY_ID is set, and AWS_SECRET_ACCESS_KEY is not")
    return Verdict("env", "AWS_ACCESS_KEY_ID")


def _is_role(section: Section) -> bool:
    return "role_arn" in section and "web_identity_token_file" not in section


def _assume_role(scene: Scene, profile: str) -> Verdict | None:
    if not _is_role(scene.profiles.get(profile, {})):
        return None
    _check_role(scene, profile, [profile])
    return Verdict("assume-role", f"role_arn in {scene.at(profile, 'role_arn')}")


def _check_role(scene: Scene, profile: str, visited: list[str]) -> None:
    section = scene.profiles[profile]
    source, named = section.get("credential_source"), section.get("source_profile")
    where = scene.at(profile, "role_arn")
    if source is not None and named is not None:
        raise Refused(f"{where}: the profile has both source_profile and credential_source")
    if source is None and named is None:
        raise Refused(f"{where}: the profile has a role_arn without source_profile or credential_source")
    if named is None:
        _check_source(scene, profile, source or "")
        return
    _check_loop(scene, profile, named, visited)
    if len(visited) > _LONGEST_CHAIN:
        raise Refused(f"{where}: the chain of source_profile is too long")
    visited.append(named)
    below = scene.profiles[named]
    if _has_static(below) or not _is_role(below):
        if not any(step(scene, named) for step in _PROFILE_STEPS):
            raise Refused(f"{scene.at(profile, 'source_profile')}: the source_profile has no credentials")
    else:
        _check_role(scene, named, visited)


def _check_loop(scene: Scene, profile: str, named: str, visited: list[str]) -> None:
    where = scene.at(profile, "source_profile")
    if named not in scene.profiles:
        raise Refused(f"{where}: there is no such source_profile")
    if named in visited and (named != profile or not _has_static(scene.profiles[named])):
        raise Refused(f"{where}: the source_profile leads back to itself")


def _check_source(scene: Scene, profile: str, source: str) -> None:
    where = scene.at(profile, "credential_source")
    if source not in _SOURCES:
        raise Refused(f"{where}: there is no such credential_source")
    step = (_env_source_of, _container, _imds)[_SOURCES.index(source)]
    if step(scene, profile) is None:
        raise Refused(f"{where}: {source} has no credentials here")


def _env_source_of(scene: Scene, _: str) -> Verdict | None:
    return _env_source(scene)


def _has_static(section: Section) -> bool:
    return any(key in section for key in _STATIC)


def _web_identity(scene: Scene, profile: str) -> Verdict | None:
    """By the variables, which a profile that was asked for by name leaves aside, or by the profile."""
    return _web_token(scene, profile, scene.environ if scene.chosen is None else {})


def _web_identity_below(scene: Scene, profile: str) -> Verdict | None:
    return _web_token(scene, profile, {})


def _web_token(scene: Scene, profile: str, variables: Mapping[str, str]) -> Verdict | None:
    section = scene.profiles.get(profile, {})
    variable = variables.get("AWS_WEB_IDENTITY_TOKEN_FILE")
    if not (section.get("web_identity_token_file") if variable is None else variable):
        return None
    role = variables.get("AWS_ROLE_ARN", section.get("role_arn"))
    where = "AWS_WEB_IDENTITY_TOKEN_FILE" if variable else scene.at(profile, "web_identity_token_file")
    if not role:
        raise Refused(f"{where}: there is no role_arn beside the web identity token")
    return Verdict("assume-role-with-web-identity", where)


def _sso(scene: Scene, profile: str) -> Verdict | None:
    section = scene.profiles.get(profile, {})
    key = next((key for key in ("sso_account_id", "sso_role_name") if key in section), None)
    if key is None:
        return None
    where = scene.at(profile, key)
    session = section.get("sso_session")
    if session is not None:
        if session not in scene.sso_sessions:
            raise Refused(f"{scene.at(profile, 'sso_session')}: there is no such sso-session")
        shared = scene.sso_sessions[session]
        if any(section.get(name, value) != value for name, value in shared.items()):
            raise Refused(f"{where}: the profile and its sso-session say different things")
        section = {**section, **shared}
    for wanted in ("sso_role_name", "sso_account_id", "sso_start_url", "sso_region"):
        if wanted not in section:
            raise Refused(f"{where}: the profile has no {wanted}")
    return Verdict("sso", where)


def _shared(scene: Scene, profile: str) -> Verdict | None:
    return _static(scene.files.credentials, profile, scene.credentials.get(profile), "shared-credentials-file")


def _config(scene: Scene, profile: str) -> Verdict | None:
    headers = [header for file, header in scene.files.headers(profile) if file is scene.files.config]
    return _static(scene.files.config, headers[-1] if headers else "", scene.configured.get(profile), "config-file")


def _static(file: AwsFile, header: str, section: Section | None, method: str) -> Verdict | None:
    if not section or _STATIC[0] not in section:
        return None
    where = file.at(header, _STATIC[0])
    if _STATIC[1] not in section:
        raise Refused(f"{where}: there is an aws_access_key_id without aws_secret_access_key")
    return Verdict(method, where)


def _login(scene: Scene, profile: str) -> Verdict | None:
    return _keyed(scene, profile, "login_session", "login")


def _process(scene: Scene, profile: str) -> Verdict | None:
    return _keyed(scene, profile, "credential_process", "custom-process")


def _keyed(scene: Scene, profile: str, key: str, method: str) -> Verdict | None:
    return Verdict(method, scene.at(profile, key)) if key in scene.profiles.get(profile, {}) else None


def _ec2_file(scene: Scene, _: str) -> Verdict | None:
    if "AWS_CREDENTIAL_FILE" not in scene.environ:
        return None
    try:
        content = beginning(os.path.expanduser(scene.environ["AWS_CREDENTIAL_FILE"]), MOST_BYTES)
        text = None if content is None else content.decode()
    except (OSError, UnicodeDecodeError):
        text = None
    if text is None:
        raise Refused("AWS_CREDENTIAL_FILE names no file that can be read")
    keys = {line.partition("=")[0].strip() for line in text.splitlines() if "=" in line}
    if "AWSAccessKeyId" not in keys:
        return None
    if "AWSSecretKey" not in keys:
        raise Refused("the file of AWS_CREDENTIAL_FILE has an AWSAccessKeyId without AWSSecretKey")
    return Verdict("ec2-credentials-file", "AWS_CREDENTIAL_FILE")


def _boto(scene: Scene, _: str) -> Verdict | None:
    for path in boto_files(scene.environ):
        file = AwsFile(path)
        section = file.values().get("Credentials")
        if file.trouble:
            raise Refused(file.trouble)
        if found := _static(file, "Credentials", section, "boto-config"):
            return found
    return None


def _container(scene: Scene, _: str) -> Verdict | None:
    environ = scene.environ
    if RELATIVE not in environ and FULL not in environ:
        return None
    name = RELATIVE if RELATIVE in environ else FULL
    if name == FULL and not _may_be_asked(environ[FULL]):
        raise Refused(f"{FULL} names a host that is not this machine")
    _check_token(environ)
    return Verdict("container-role", name)


def _may_be_asked(url: str) -> bool:
    import ipaddress
    from urllib.parse import urlsplit

    host = _host(url)
    try:
        return urlsplit(url).scheme == "https" or host in _HOSTS or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_token(environ: Mapping[str, str]) -> None:
    token = environ.get(TOKEN, "")
    if TOKEN_FILE in environ:
        try:
            token = (beginning(environ[TOKEN_FILE], 4096) or b"").decode(errors="replace")
        except OSError as exc:
            raise Refused(f"the file of {TOKEN_FILE} cannot be read ({exc.strerror})") from None
    if "\n" in token or "\r" in token:
        raise Refused(f"the token of {TOKEN_FILE if TOKEN_FILE in environ else TOKEN} has a line end in it")


def _imds(scene: Scene, _: str) -> Verdict | None:
    if scene.environ.get("AWS_EC2_METADATA_DISABLED", "false").lower() == "true":
        return None
    chosen = scene.setting("AWS_EC2_METADATA_SERVICE_ENDPOINT", "ec2_metadata_service_endpoint")
    return Verdict("iam-role", chosen or "169.254.169.254")


_KEYED_STEPS = (_sso, _shared, _login, _process, _config)
_PROFILE_STEPS = (_web_identity_below, *_KEYED_STEPS)
_STEPS = (_env, _assume_role, _web_identity, *_KEYED_STEPS, _ec2_file, _boto, _container, _imds)
