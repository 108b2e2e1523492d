"""What SDKs prefer to the endpoint: in the caller's variables (doctor), in his own AWS files (`use` and `exec`, too).

Rules
- The daemon does not look: its environment and files may be others than this shell's. What is said here is said once.
- Each finding names the variable or the file's line, and what to type; no value that could be a secret is told.
- Order of preference: sdk-facts §1; `aws` and boto3 first, because they are who most people run.
"""

from __future__ import annotations

from vault_client import shell as shells
from vault_client.awsfiles import AwsFile, AwsFiles, profile_of
from vault_client.tables import clean, typed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Self

    from vault_client.errors import Stop
    from vault_client.fixes import Fix

#: A `[default]` with one of these is an SDK's source of credentials; a region alone is not (sdk-facts §1).
SOURCES = (
    "aws_access_key_id", "aws_secret_access_key", "sso_session", "sso_start_url", "sso_account_id", "sso_role_name",
    "login_session", "credential_process", "web_identity_token_file", "role_arn",
)  # fmt: skip
KEYS = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN",
    "AWS_CREDENTIAL_EXPIRATION",
)  # fmt: skip
PROFILES = ("AWS_DEFAULT_PROFILE", "AWS_PROFILE")  # in botocore's order
NUMBERS = ("AWS_METADATA_SERVICE_TIMEOUT", "AWS_METADATA_SERVICE_NUM_ATTEMPTS")
_METADATA_KEYS = (
    "ec2_metadata_service_endpoint", "ec2_metadata_service_endpoint_mode", "ec2_metadata_v1_disabled",
)  # fmt: skip
_PROXIES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
_LOCAL = ("127.0.0.1", "localhost")


class Finding:
    """One row of doctor; `message` and `remedy` make the sentence of a warning. `unset`: the variables whose end mends
    it; `fix`: what else would, of fixes.py.
    """

    __slots__ = ("fix", "message", "name", "ok", "remedy", "unset")

    def __init__(
        self,
        name: str,
        message: str,
        remedy: str = "",
        *,
        ok: bool = False,
        unset: Iterable[str] = (),
        fix: Fix | None = None,
    ) -> None:
        self.name = name
        self.unset = list(unset)
        self.fix = fix
        self.ok = ok
        self.message = clean(message)
        self.remedy = clean(remedy)

    @classmethod
    def of_stop(cls, name: str, stop: Stop) -> Self:
        """`what is wrong: what to type`, as two fields."""
        said, colon, remedy = stop.message.rpartition(": ")
        return cls(name, said, remedy) if colon else cls(name, stop.message)

    @property
    def sentence(self) -> str:
        """`what is wrong: what to do`."""
        return f"{self.message}: {self.remedy}" if self.remedy else self.message

    def wire(self) -> dict[str, object]:
        """{name, ok, message, remedy} as interface.md §2 has it."""
        return {"name": self.name, "ok": self.ok, "message": self.message, "remedy": self.remedy}


def imds_in(environ: Mapping[str, str]) -> bool:
    """Is it the metadata endpoint that this environment points at, and not the container one?"""
    return bool(environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT")) and not environ.get(shells.CONTAINER[0])


def after_use(environ: Mapping[str, str]) -> list[Finding]:
    """What still goes before the endpoint in an environment that `use` or `exec` made: the files, and what of the
    metadata settings no variable of ours replaces.
    """
    return [*in_files(environ), *numbers(environ, imds=imds_in(environ))]


# ---- files ----


def in_files(environ: Mapping[str, str], files: AwsFiles | None = None) -> list[Finding]:
    """The `[default]` sections that an SDK prefers, files that it cannot read, and boto's files of old."""
    files = files or AwsFiles(environ)
    found = []
    for name, file in (("credentials file", files.credentials), ("config file", files.config)):
        found += [*_unreadable(name, file), *_default(name, file)]
    return found + list(_of_old(environ))


def _unreadable(name: str, file: AwsFile) -> Iterator[Finding]:
    if file.unread:
        yield Finding(name, f"{file.path} cannot be read ({file.unread})",
                      f"look at it with ls -l {typed(file.path)}, or name another with {_variable(name)}")  # fmt: skip
    elif file.fault:
        line, why = file.fault
        yield Finding(name, f"{file.path}:{line}: {why}, so that SDKs refuse the whole file", "mend that line")


def _default(name: str, file: AwsFile) -> Iterator[Finding]:
    headers = [header for header in file.heads if _is_default(name, header)]
    for header in headers[-1:]:  # the last one is the AWS CLI's
        key = next((key for key in SOURCES if key in file.keys(header)), None)
        if key:
            other = "[NAME]" if name == "credentials file" else "[profile NAME]"
            said = f"SDKs prefer the {key} of [{header}] in {file.at(header, key)} to this shell's endpoint"
            yield Finding(name, said, f"rename that section to {other}, or remove the line")


def _is_default(name: str, header: str) -> bool:
    return header == "default" if name == "credentials file" else profile_of(header) == "default"


def _variable(name: str) -> str:
    return "AWS_SHARED_CREDENTIALS_FILE" if name == "credentials file" else "AWS_CONFIG_FILE"


def boto_files(environ: Mapping[str, str]) -> list[str]:
    """Where boto 2 kept keys, which botocore still looks at before the endpoint."""
    chosen = environ.get("BOTO_CONFIG")
    if chosen is not None:
        return [chosen]
    return ["/etc/boto.cfg", *([environ["HOME"].rstrip("/") + "/.boto"] if environ.get("HOME") else [])]


def _of_old(environ: Mapping[str, str]) -> Iterator[Finding]:
    for path in boto_files(environ):
        file = AwsFile(path)
        if "aws_access_key_id" in file.keys("Credentials"):
            yield Finding("boto file", f"botocore prefers the aws_access_key_id in "
                          f"{file.at('Credentials', 'aws_access_key_id')} to this shell's endpoint",
                          "remove the line")  # fmt: skip
    if environ.get("AWS_CREDENTIAL_FILE"):
        yield Finding("variables", "AWS_CREDENTIAL_FILE names a file of keys that botocore prefers to the endpoint",
                      "unset AWS_CREDENTIAL_FILE", unset=["AWS_CREDENTIAL_FILE"])  # fmt: skip


# ---- variables ----


def in_variables(environ: Mapping[str, str], shell: shells.Dialect) -> list[Finding]:
    """What goes before either endpoint, by the variables of this shell; `use` unsets all of these."""
    found = [*_keys(environ, shell), *_profiles(environ, shell)]
    if environ.get("AWS_WEB_IDENTITY_TOKEN_FILE"):
        names = _set(environ, ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME"))
        found.append(Finding("variables", "AWS_WEB_IDENTITY_TOKEN_FILE is set, which SDKs use before the endpoint",
                             f"type {shell.drop(names)}", unset=names))  # fmt: skip
    return found


def _set(environ: Mapping[str, str], names: Iterable[str]) -> list[str]:
    return [name for name in names if name in environ]


def _keys(environ: Mapping[str, str], shell: shells.Dialect) -> Iterator[Finding]:
    if environ.get("AWS_ACCESS_KEY_ID") or environ.get("AWS_SECRET_ACCESS_KEY"):
        whole = environ.get("AWS_ACCESS_KEY_ID") and environ.get("AWS_SECRET_ACCESS_KEY")
        first = "AWS_ACCESS_KEY_ID" if environ.get("AWS_ACCESS_KEY_ID") else "AWS_SECRET_ACCESS_KEY"
        said = "is set, and every SDK uses it before the endpoint"
        if not whole:
            said = "is set without its other half, which some SDKs refuse"
        names = _set(environ, KEYS)
        yield Finding("variables", f"{first} {said}", f"type {shell.drop(names)}", unset=names)


def _profiles(environ: Mapping[str, str], shell: shells.Dialect) -> Iterator[Finding]:
    for name in PROFILES:
        if name in environ:
            value = environ[name]
            said = f"{name}={value[:100]} is set, and most SDKs look at that profile before the endpoint"
            yield Finding("variables", said, f"type {shell.drop([name])}", unset=[name])


def numbers(environ: Mapping[str, str], *, imds: bool) -> list[Finding]:
    """`=0` is never asked (botocore on the metadata endpoint), no number is an error of every botocore command."""
    found = []
    for name in NUMBERS:
        value = environ.get(name)
        if value is not None and not _whole(value):
            found.append(Finding("variables", f"{name} is no whole number, and botocore ends with an error",
                                 f"set it to 1, or unset {name}"))  # fmt: skip
        elif value is not None and imds and int(value) <= 0:
            found.append(Finding("variables", f"{name} is 0, so that botocore never asks the metadata endpoint",
                                 f"set it to 1, or unset {name}"))  # fmt: skip
    return found


def _whole(value: str) -> bool:
    try:
        int(value)
    except ValueError:
        return False
    return True


def proxies(environ: Mapping[str, str]) -> list[Finding]:
    """A proxy that gets the request for credentials sees the token, and refuses it (sdk-facts §10.13)."""
    given = [name for name in _PROXIES if environ.get(name)]
    open_ones = [name for name in ("NO_PROXY", "no_proxy") if not _excepted(environ, name)]
    if not given or not open_ones:
        return []
    said = f"{given[0]} is set and {open_ones[0]} does not except 127.0.0.1, so that some SDKs ask the proxy"
    return [Finding("proxy", said, "add 127.0.0.1,localhost to NO_PROXY and no_proxy")]


def _excepted(environ: Mapping[str, str], name: str) -> bool:
    other = "no_proxy" if name == "NO_PROXY" else "NO_PROXY"
    entries = {entry.strip() for entry in (environ.get(name) or environ.get(other) or "").split(",")}
    return "*" in entries or set(_LOCAL) <= entries


def metadata(environ: Mapping[str, str], files: AwsFiles, shell: shells.Dialect) -> list[Finding]:
    """What keeps SDKs from a metadata endpoint that this shell points at, and what its variables go before."""
    found = []
    if "AWS_EC2_METADATA_DISABLED" in environ:  # any value disables some SDKs (sdk-facts §6)
        found.append(Finding("metadata", "AWS_EC2_METADATA_DISABLED is set, so that SDKs ask no metadata endpoint",
                             f"type {shell.drop(['AWS_EC2_METADATA_DISABLED'])}",
                             unset=["AWS_EC2_METADATA_DISABLED"]))  # fmt: skip
    config = files.config
    hidden = [
        f"{key} in {config.at(header, key)}"
        for header in config.heads
        for key in _METADATA_KEYS
        if profile_of(header) == "default" and key in config.keys(header) and f"AWS_{key.upper()}" in environ
    ]
    said = "changes nothing here: this shell's variable goes before it"
    return found + [Finding("metadata", f"{each} {said}", ok=True) for each in hidden]
