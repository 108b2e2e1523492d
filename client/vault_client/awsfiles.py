"""The caller's own AWS files: which sections and keys they have, and on which line.

Rules
- Nothing that could be a secret is kept: of a value only what the chain of SDKs turns on (`_TOLD`), of every other key
  only that it is there; of a line that cannot be read its number, never its text.
- `Scan` costs no import, for each `use`; what a key's value is, `values` asks configparser, as the AWS CLI does. Where
  the one sees a fault the other does: a test compares them.
"""

# pathlib may not load at start-up (architecture.md §2), so os.path it is.
# ruff: noqa: PTH111, PTH116, PTH123
from __future__ import annotations

import os
import stat

from vault_client.places import aws_config, aws_credentials

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: A file of this size has 5,000 profiles; what is larger is none of the AWS CLI's.
MOST_BYTES = 1024 * 1024
#: Of which the names alone are read: a generated file of 10,000 accounts has 5 MB.
_MOST_NAMED = 16 * 1024 * 1024
#: Keys of [DEFAULT] × sections: configparser gives each section a copy of them, which in 1 MiB can be 10,000,000,000.
_MOST_COPIES = 1_000_000
#: shlex takes quadratic time, and a section's name this long is nobody's.
_LONGEST_HEADER = 1000
#: Values that say where credentials come from, and none that is one.
_TOLD = frozenset({
    "source_profile", "credential_source", "sso_session", "sso_region", "sso_start_url", "sso_account_id",
    "sso_role_name", "sso_registration_scopes", "role_arn",
    "web_identity_token_file", "metadata_service_timeout", "metadata_service_num_attempts",
    "ec2_metadata_service_endpoint", "ec2_metadata_service_endpoint_mode", "imds_use_ipv6",
})  # fmt: skip
_FAR = 1 << 30
_DEFAULTS = "DEFAULT"  # configparser's own: its keys are in every section


class AwsFile:
    """One file. `where[section][key]` is the key's line, `heads[section]` the header's; `fault` says why the AWS CLI
    refuses all of the file, `unread` why it could not be looked at.
    """

    __slots__ = ("fault", "heads", "path", "text", "too_large", "unread", "where")

    def __init__(self, path: str) -> None:
        self.path = path
        self.where: dict[str, dict[str, int]] = {}
        self.heads: dict[str, int] = {}
        self.fault: tuple[int, str] | None = None
        self.unread = ""
        self.too_large = False
        self.text = ""
        self._read()

    def line(self, section: str, key: str = "") -> int:
        """Where a key stands, or its section; 0 for one that is not there."""
        return self.keys(section).get(key) or self.heads.get(section, 0)

    def keys(self, section: str) -> dict[str, int]:
        """The keys of a section with their lines, those of [DEFAULT] among them."""
        if section not in self.heads:
            return {}
        return {**self.where.get(_DEFAULTS, {}), **self.where.get(section, {})}

    def at(self, section: str, key: str = "") -> str:
        """`/home/x/.aws/config:12`."""
        return f"{self.path}:{self.line(section, key)}"

    @property
    def trouble(self) -> str:
        """`file:12: why`, where what the file says to an SDK is not known."""
        if self.fault:
            return f"{self.path}:{self.fault[0]}: {self.fault[1]}"
        return f"{self.path}: {self.unread}" if self.too_large else ""

    def values(self) -> dict[str, dict[str, str]]:
        """Every section as the AWS CLI's configparser has it; values beyond `_TOLD` are blank. {} for a faulty file."""
        import configparser

        if self.too_large:
            return {}
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(self.text)
        except configparser.Error as exc:
            self.fault = self.fault or (_line_of(exc), "the AWS CLI cannot read this line")
        if self.fault:
            return {}
        found = {name: dict(parser.items(name)) for name in parser.sections()}
        for name, section in found.items():
            for key, value in section.items():
                if not _nested_well(value):
                    self.fault = self.fault or (self.line(name, key), f"below {key} a line has no `=`")
        return {} if self.fault else {name: _told(section) for name, section in found.items()}

    def _read(self) -> None:
        try:
            found = _content(self.path)
        except OSError as exc:
            self.unread = exc.strerror or "it cannot be opened"
            return
        if found is None:
            return
        self.too_large = len(found) > MOST_BYTES
        if self.too_large:
            self.unread = f"it has more than {MOST_BYTES // 1024 // 1024} MiB"
            return
        try:
            self.text = found.decode().replace("\r\n", "\n").replace("\r", "\n")
        except UnicodeDecodeError as exc:
            self.fault = (found.count(b"\n", 0, exc.start) + 1, "this is not UTF-8 text")
            return
        self._scan()

    def _scan(self) -> None:
        section, seen = "", set()
        for number, kind, name in _rows(self.text):
            if kind == "section":
                section = name
            if (kind == "key" and not section) or kind == "neither":
                marked = number == 1 and self.text.startswith("\ufeff")
                why = "the file begins with a byte order mark" if marked else "the AWS CLI cannot read this line"
                self.fault = (number, why)
            elif (kind, section, name) in seen and not (kind == "section" and name == _DEFAULTS):
                self.fault = (number, f"this {kind} is there twice")
            if self.fault:
                return
            seen.add((kind, section, name))
            if kind == "section":
                self.heads.setdefault(name, number)
            else:
                self.where.setdefault(section, {})[name] = number
        if len(self.where.get(_DEFAULTS, ())) * len(self.heads) > _MOST_COPIES:
            self.where, self.heads = {}, {}
            self.too_large, self.unread = True, "[DEFAULT] has too many keys for so many sections"


def headers(path: str) -> Iterator[str]:
    """The sections of a file of any size, whatever else is wrong with it. Where no line is indented there is no value
    that goes on, and only lines of a section are looked at: seven times as fast.
    """
    try:
        content = _content(path, most=_MOST_NAMED) or b""
    except OSError:
        return
    text = content.decode(errors="surrogateescape").replace("\r\n", "\n").replace("\r", "\n")
    if "\n " in text or "\n\t" in text:
        yield from (name for _, kind, name in _rows(text) if kind == "section")
        return
    for line in text.split("\n"):
        if line[:1] == "[" and (end := line.rfind("]")) > 1:
            yield line[1:end]


def _rows(text: str) -> Iterator[tuple[int, str, str]]:
    """(line, `section`|`key`|`neither`, name) by configparser's rules: a line that is indented more than the key before
    it goes on with that key's value, a `#` or `;` comments out its line only.
    """
    indent, under_key = _FAR, False
    for number, line in enumerate(text.split("\n"), 1):
        bare = line.strip()
        if not bare or bare[0] in "#;":
            continue
        depth = len(line) - len(line.lstrip())
        if under_key and depth > indent:
            continue
        indent, end = depth, bare.rfind("]")
        under_key = False
        if bare[0] == "[" and end > 1:
            yield number, "section", bare[1:end]
            continue
        key, delimited = _key(bare)
        under_key = bool(key)
        yield number, "key" if key and delimited else "neither", key


def _key(bare: str) -> tuple[str, bool]:
    ends = [at for at in (bare.find("="), bare.find(":")) if at >= 0]
    return (bare[: min(ends)].rstrip().lower(), True) if ends else ("", False)


def _line_of(exc: Exception) -> int:
    line = getattr(exc, "lineno", None)
    errors = getattr(exc, "errors", None)
    return int(line) if line else int(errors[0][0]) if errors else 1


def _nested_well(value: str) -> bool:
    """A value that begins on the next line is a sub-section to the AWS CLI."""
    return not value.startswith("\n") or all("=" in line for line in value.split("\n") if line.strip())


def _told(section: dict[str, str]) -> dict[str, str]:
    return {key: value if key in _TOLD else "" for key, value in section.items()}


def _content(path: str, *, most: int = MOST_BYTES + 1) -> bytes | None:
    """None where the AWS CLI sees no file: nothing there, a directory, a FIFO."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
    except OSError:
        return None
    return beginning(path, most)


def beginning(path: str, most: int) -> bytes | None:
    """So many bytes of a regular file, or of /dev/null; None for what is neither: a FIFO would be waited for, and what
    is in a pipe taken away from who is to have it. Raises OSError.
    """
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(number, "rb") as file:
        regular = stat.S_ISREG(os.fstat(number).st_mode)
        return file.read(most) if regular or path == os.devnull else None


def profile_of(header: str) -> str | None:
    """The profile that a header of the config file names, as the AWS CLI takes it; None for any other section."""
    if header == "default" or not header.startswith("profile") or len(header) > _LONGEST_HEADER:
        return "default" if header == "default" else None
    if '"' not in header and "'" not in header and "\\" not in header:
        words = header.split()
    else:
        import shlex

        try:
            words = shlex.split(header)
        except ValueError:
            return None
    return words[1] if len(words) == 2 else None


class AwsFiles:
    """The config and the credentials file of one environment."""

    __slots__ = ("_named", "config", "credentials")

    def __init__(self, environ: Mapping[str, str]) -> None:
        # a variable that is empty names no file to the AWS CLI, and not the default one
        paths = ("" if environ.get("AWS_CONFIG_FILE") == "" else aws_config(environ),
                 "" if environ.get("AWS_SHARED_CREDENTIALS_FILE") == "" else aws_credentials(environ))  # fmt: skip
        self.config, self.credentials = (AwsFile(_path(path, environ)) for path in paths)
        self._named: dict[str | None, list[str]] | None = None

    @property
    def both(self) -> tuple[AwsFile, AwsFile]:
        """The config file and the credentials file."""
        return self.config, self.credentials

    def headers(self, profile: str) -> list[tuple[AwsFile, str]]:
        """Where a profile stands: (file, header), the credentials file first, whose keys are preferred."""
        if self._named is None:
            self._named = {}
            for header in self.config.heads:
                self._named.setdefault(profile_of(header), []).append(header)
        found = [(self.credentials, profile)] if profile in self.credentials.heads else []
        return found + [(self.config, header) for header in self._named.get(profile, ())]


def _path(path: str, environ: Mapping[str, str]) -> str:
    """As the AWS CLI opens it: `$NAME` and `~` mean what they mean to a shell."""
    if "$" in path:
        path = os.path.expandvars(path)
    if path.startswith("~/") and environ.get("HOME"):
        path = environ["HOME"].rstrip("/") + path[1:]
    return os.path.expanduser(path)
