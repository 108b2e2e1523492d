"""Text of `~/.aws/config` → sections, profiles and their chains, with file:line for every value.

Rule: read exactly as the AWS CLI reads it: configparser's lines, shell quoting in headers, one level of indented
sub-sections (proven equal to botocore's own parse in tests/model/test_profiles.py). What the CLI does not have,
`include_profile` and its like, is spelled as aws-vault spells it. Nothing is merged from `[default]`. A chain has an
end: every profile of a long one is planned by `list`, on the loop.
"""

from __future__ import annotations

import configparser
import io
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from vaultd.errors import BadProfile, UnknownProfile
from vaultd.model.near import Names
from vaultd.model.text import LIMIT, meant, nearest, shown, typed

#: Their values are never kept: only that they stand there, and where (`HIDDEN` in their place).
STATIC_KEYS = frozenset({"aws_access_key_id", "aws_secret_access_key", "aws_session_token"})
HIDDEN = "set"
#: Where one of these is, an SDK looks at no credential_process, or the profile is more than that line.
_BEFORE_PROCESS = frozenset({
    "role_arn", "source_profile", "credential_source", "include_profile", "web_identity_token_file", "sso_session",
    "sso_start_url", "sso_account_id", "login_session",
})  # fmt: skip
#: Sections of the AWS CLI's own that are no profile's.
_OF_THE_CLI = frozenset({"plugins", "preview"})
#: Profiles in a row by `source_profile`, or by `include_profile`. Nobody writes more than four; 400 took 12 s to list.
LONGEST = 16
#: What `shlex` takes for more than a letter, and what it splits at.
_QUOTING, _BLANKS = re.compile(r"[\"'\\]"), re.compile(r"[ \t\r\n]+")
#: Letters of a credential_process that is looked into: ours is a name's length longer than its words.
_LONGEST_COMMAND = 500
#: Wrong names in a file for which the near ones are looked for: 10 ms each where names are long and many.
_MOST_NEAR = 64
#: What stays of a name and of a value that are quoted, however long the message.
_LEAST_QUOTED = 12


@dataclass(frozen=True, slots=True)
class Value:
    """One value and the line it stands on; `nested` are the indented pairs of a sub-section such as `s3 =`."""

    text: str
    line: int
    nested: Mapping[str, Value] | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """One section as written. `header` is its text between the brackets, `name` the profile's or session's name."""

    header: str
    name: str
    line: int
    values: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Profile:
    """A section with what its `include_profile` adds; `values` are the honoured and the unknown keys alike."""

    name: str
    line: int
    values: Mapping[str, Value]

    def get(self, key: str) -> Value | None:
        """The value of a plain key; a sub-section or an empty value counts as absent, as in the CLI."""
        value = self.values.get(key)
        return value if value is not None and value.nested is None and value.text else None


@dataclass(frozen=True, slots=True)
class Chain:
    """From the profile asked for to the one whose source is the identity. `named_by` is the `source_profile` that
    names it, None where the last profile is the identity itself.
    """

    profiles: tuple[Profile, ...]
    identity: str
    named_by: Value | None


@dataclass(frozen=True, slots=True)
class Profiles:
    """Everything the file says. `file` is its name in messages, `problems` are sections that the CLI overlooks,
    `unnamed` those of profiles in whose header it sees no name, by the name that was meant.
    """

    file: str
    profiles: Mapping[str, Section] = field(default_factory=dict)
    sso_sessions: Mapping[str, Section] = field(default_factory=dict)
    services: Mapping[str, Section] = field(default_factory=dict)
    others: Mapping[str, Section] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    unnamed: Mapping[str, Section] = field(default_factory=dict)
    _near: dict[tuple[str, tuple[str, ...] | None], str] = field(default_factory=dict, repr=False, compare=False)
    _index: list[Names] = field(default_factory=list, repr=False, compare=False)

    def names(self) -> tuple[str, ...]:
        """Every profile, in file order."""
        return tuple(self.profiles)

    def at(self, line: int) -> str:
        """`config:12`."""
        return f"{self.file}:{line}"

    def said(self, profile: str, key: str, value: Value, then: str = "") -> str:
        """`config:12 [profile x] key=value`, the beginning of every message about a value, and what it goes on with:
        the quotations are cut so that the whole fits on the wire, never what to type (interface.md §6).
        """
        where = f"{self.at(value.line)} [profile "
        room = max(2 * _LEAST_QUOTED, LIMIT - len(f"{where}] {key}={then}"))
        name = shown(profile, limit=room - min(len(value.text), _LEAST_QUOTED))
        return f"{where}{name}] {key}={shown(value.text, limit=room - len(name))}{then}"

    def index(self) -> Names:
        """What a wrong name is compared with; made by `parse`, which is a thread's work."""
        if not self._index:
            self._index.append(Names(self.profiles))
        return self._index[0]

    def near_services(self, wanted: str) -> str:
        """` Did you mean a, b?` of a `services` that no section is called, as `near`."""
        if (found := self._near.get((wanted, None))) is None:
            if len(self._near) >= _MOST_NEAR:
                return ""
            found = self._near[wanted, None] = nearest(wanted, self.services)
        return found

    def near(self, wanted: str, identities: Iterable[str] = ()) -> str:
        """` Did you mean a, b?` of a name in the file that is nobody's, once for all with it: `list` plans each.
        Nothing where it is one of so many that no slip of the finger made them.
        """
        stored = tuple(identities)
        if (found := self._near.get((wanted, stored))) is None:
            if len(self._near) >= _MOST_NEAR:
                return ""
            found = self._near[wanted, stored] = meant(self.index().close(wanted, also=stored))
        return found

    def profile(self, name: str) -> Profile:
        """Raises UnknownProfile with the nearest names, BadProfile for a loop or a gap in `include_profile`."""
        section = self.profiles.get(name)
        if section is None:
            if (other := self.others.get(name) or self.unnamed.get(name)) is not None:
                raise UnknownProfile(overlooked(self.at(other.line), other.header))
            close = meant(self.index().close(name))
            raise UnknownProfile(f"There is no profile {shown(name)} in {self.file}.{close} Run `vault-client list`.")
        if "include_profile" not in section.values:
            return Profile(name, section.line, section.values)
        merged: dict[str, Value] = {}
        for each in self._included(section):
            merged = {**each.values, **merged}
        return Profile(name, section.line, merged)

    def served_as(self, name: str) -> str:
        """The profile whose session the tools of `name` get: another one where its credential_process is our own client
        (docs/export.md), and no other source of its own goes before that.
        """
        section = self.profiles.get(name)
        of_process = None if section is None else section.values.get("credential_process")
        if section is None or of_process is None or not _BEFORE_PROCESS.isdisjoint(section.values):
            return name
        target = by_client(of_process.text)
        other = self.profiles.get(target) if target else None
        return name if other is None or "credential_process" in other.values else other.name

    def chain(self, name: str) -> Chain:
        """Follow `source_profile` to the identity; raises BadProfile naming the members of a loop.

        A source that names no section is an identity (interface.md, head). A profile that names itself is the
        CLI's special case for static keys: here the identity of the same name.
        """
        walked = {name: self.profile(name)}
        while True:
            last = next(reversed(walked.values()))
            source = last.get("source_profile")
            if source is None or source.text == last.name:
                return Chain(tuple(walked.values()), last.name, None)
            if source.text in walked:
                raise BadProfile(self._loop(last.name, "source_profile", source, list(walked)))
            if source.text not in self.profiles:
                return Chain(tuple(walked.values()), source.text, source)
            if len(walked) >= LONGEST:
                raise BadProfile(self._too_long(last.name, "source_profile", source, name))
            walked[source.text] = self.profile(source.text)

    def _included(self, section: Section) -> Iterator[Section]:
        walked = [section.name]
        yield section
        while (wanted := section.values.get("include_profile")) is not None:
            if wanted.text in walked:
                raise BadProfile(self._loop(section.name, "include_profile", wanted, walked))
            if wanted.text not in self.profiles:
                then = (
                    f": there is no such profile.{self.near(wanted.text)} Correct the name, then run "
                    f"`vault-client explain {typed(walked[0])}`."
                )
                raise BadProfile(self.said(section.name, "include_profile", wanted, then))
            if len(walked) >= LONGEST:
                raise BadProfile(self._too_long(section.name, "include_profile", wanted, walked[0]))
            section = self.profiles[wanted.text]
            walked.append(section.name)
            yield section

    def _loop(self, profile: str, key: str, value: Value, walked: list[str]) -> str:
        members = [*walked[walked.index(value.text) :], value.text]
        ring = " → ".join(shown(each) for each in members)
        then = (
            f": the loop {ring} ends in no identity; point one of them at an identity and run `vault-client explain "
            f"{typed(profile)}`."
        )
        return self.said(profile, key, value, then)

    def _too_long(self, profile: str, key: str, value: Value, first: str) -> str:
        then = (
            f": more than {LONGEST} profiles in a row from {shown(first)} on; shorten the chain and run "
            f"`vault-client explain {typed(first)}`."
        )
        return self.said(profile, key, value, then)


def parse(text: str, *, file: str = "config") -> Profiles:
    """Raises BadProfile naming file:line where the AWS CLI would refuse the whole file."""
    unnamed: dict[str, Section] = {}
    kinds: dict[str, dict[str, Section]] = {"profile": {}, "sso-session": {}, "services": {}, "": {}}
    problems: list[str] = []
    for section in _sections(text, file):
        kind = _kind(section.header)
        if kind and section.name == "" and not _named(section.header):
            problems.append(overlooked(f"{file}:{section.line}", section.header))
            if kind == "profile" and (meant := _meant(section.header)):
                unnamed.setdefault(meant, section)
            continue
        if not kind and section.header not in _OF_THE_CLI:
            problems.append(overlooked(f"{file}:{section.line}", section.header))
        kinds[kind].pop(section.name, None)
        kinds[kind][section.name] = section
    found = Profiles(
        file, kinds["profile"], kinds["sso-session"], kinds["services"], kinds[""], tuple(problems), unnamed
    )
    found.index()
    return found


def overlooked(where: str, header: str) -> str:
    """`[a]` is a profile in the credentials file, and nothing in the config file; `[profile a b]` lacks its quotes."""
    said = f"{where} [{shown(header, limit=60)}] is overlooked by the AWS CLI and by vaultd"
    if not (kind := _kind(header)):
        return f"{said}: for a profile, write `[profile {shown(header, limit=60)}]`."
    meant = shown(_meant(header), limit=60)
    if " " in meant:
        return f'{said}: write it with quotes, `[{kind} "{meant}"]`.'
    return f"{said}: write `[{kind} {meant or 'NAME'}]`."


def _meant(header: str) -> str:
    """The name of a header in which the CLI sees none; "" where there is none at all."""
    return " ".join(re.sub(r"[\"']", "", header).split()[1:])


def _kind(header: str) -> str:
    """By prefix, as botocore.configloader.build_profile_map decides; `[default]` needs no `profile`."""
    if header == "default":
        return "profile"
    return next((kind for kind in ("profile", "sso-session", "services") if header.startswith(kind)), "")


def _named(header: str) -> list[str]:
    """[name] of `profile name`; nothing where the CLI sees no name: unbalanced quotes, one word, three words."""
    if not _QUOTING.search(header):  # nearly always, and `shlex` reads a name of 200 characters in 0.1 ms
        words = [word for word in _BLANKS.split(header) if word]
        return words[1:] if len(words) == 2 else []
    try:
        words = shlex.split(header)
    except ValueError:
        return []
    return words[1:] if len(words) == 2 else []


def _name(header: str) -> str:
    if header == "default" or not _kind(header):
        return header
    return next(iter(_named(header)), "")


def by_client(command: str) -> str | None:
    """The profile of `vault-client credential-process PROFILE`; None for any other command."""
    if len(command) > _LONGEST_COMMAND:  # `shlex` takes a second for 400 kB
        return None
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    if len(words) == 4 and words[2] == "--":
        del words[2]
    ours = len(words) == 3 and words[0].rpartition("/")[2] == "vault-client" and words[1] == "credential-process"
    return words[2] if ours else None


# ---- configparser with line numbers ----


class _Feed:
    """Lines for configparser, remembering the number of the one it holds."""

    def __init__(self, text: str) -> None:
        self._lines = io.StringIO(text, newline=None)  # universal newlines, as the CLI's open() has
        self.line = 0

    def close(self) -> None:
        """Let the text go."""
        self._lines.close()

    def __iter__(self) -> Iterator[str]:
        for number, line in enumerate(self._lines, start=1):
            self.line = number
            yield line


class _Numbered(dict[str, Any]):
    """The `dict_type` of one parse: notes on which line each section and key was first set, and its continuations.

    configparser stores a key at the moment it reads its line, as a list to which continuation lines are appended.
    """

    feed: _Feed

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, int] = {}
        self.parts: dict[str, _Parts] = {}

    def __setitem__(self, key: str, value: Any) -> None:
        if key not in self:
            self.lines[key] = self.feed.line
        if type(value) is list:
            value = self.parts[key] = _Parts(value, self.feed)
        super().__setitem__(key, value)


class _Parts(list[str]):
    """A value's lines as configparser collects them, each with its number."""

    __slots__ = ("_feed", "numbers")

    def __init__(self, values: list[str], feed: _Feed) -> None:
        super().__init__(values)
        self._feed = feed
        self.numbers = [feed.line] * len(values)

    def append(self, value: str) -> None:
        self.numbers.append(self._feed.line)
        super().append(value)


class _Parser(configparser.RawConfigParser):
    """RawConfigParser as botocore uses it, with the numbers of `_Numbered`."""

    _sections: dict[str, _Numbered]
    _proxies: _Numbered
    _defaults: _Numbered

    def __init__(self, feed: _Feed) -> None:
        super().__init__(dict_type=type("_Lines", (_Numbered,), {"feed": feed}))
        self._feed = feed
        self._found: _Numbered = self._sections  # type: ignore[assignment]  # dict_type makes all of them

    def leave(self) -> None:
        """The text and the headers: a snapshot that is set aside from the collector takes the cycle along."""
        self._feed.close()
        for each in (self._found, self._proxies):
            each.clear()
            each.lines.clear()

    def line(self, section: str) -> int:
        """Of the header."""
        return self._found.lines[section]

    def place(self, section: str, option: str) -> tuple[int, _Parts]:
        """(line, parts) of an option; `[DEFAULT]` is configparser's own and shows in every section, as in the CLI."""
        home = self._sections[section]
        holder = home if option in home else self._defaults
        return holder.lines[option], holder.parts[option]


def _sections(text: str, file: str) -> Iterator[Section]:
    feed = _Feed(text)
    parser = _Parser(feed)
    try:
        parser.read_file(feed, source=file)
    except configparser.Error as exc:
        raise BadProfile(_unreadable(exc, file=file, line=feed.line)) from exc
    same: dict[str, str] = {}  # 1,000 profiles have one device, one region and five keys between them
    for header in parser.sections():
        values: dict[str, Value] = {}
        for option in parser.options(header):
            line, parts = parser.place(header, option)
            content = parser.get(header, option)
            nested = _nested(parts, file) if content.startswith("\n") else None
            text = HIDDEN if option in STATIC_KEYS else content
            values[same.setdefault(option, option)] = Value(same.setdefault(text, text), line, nested)
        yield Section(header, _name(header), parser.line(header), values)
        vars(parser[header]).clear()  # each proxy is a cycle of its own, 2 kB
        parser.remove_section(header)  # its memory is for the next ones: the parser is a cycle, and stays a while
    parser.leave()


def _nested(parts: _Parts, file: str) -> dict[str, Value]:
    """The indented `key = value` lines; one without `=` makes the CLI refuse the whole file."""
    found: dict[str, Value] = {}
    for part, number in zip(parts, parts.numbers, strict=True):
        for line in part.splitlines():
            if not (bare := line.strip()):
                continue
            key, equals, value = bare.partition("=")
            if not equals:
                raise BadProfile(f"{file}:{number}: this indented line has no `=`; write it as `key = value`.")
            found[key.strip()] = Value(value.strip(), number)
    return found


def _unreadable(exc: configparser.Error, *, file: str, line: int) -> str:
    """One sentence for what configparser refuses; never its own text, which repeats the line (it may hold a key)."""
    if isinstance(exc, configparser.DuplicateOptionError):
        where = f"{file}:{exc.lineno} [{shown(exc.section)}]"
        return f"{where}: the key {shown(exc.option)} stands there twice; remove one of the two."
    if isinstance(exc, configparser.DuplicateSectionError):
        return f"{file}:{exc.lineno}: the section [{shown(exc.section)}] stands there twice; join the two."
    if isinstance(exc, configparser.MissingSectionHeaderError):
        if exc.line.lstrip().startswith("["):
            return _unclosed(f"{file}:{exc.lineno}")
        return f"{file}:{exc.lineno}: this line comes before any section; write `[default]` or `[profile NAME]` above."
    if isinstance(exc, configparser.ParsingError) and exc.errors:
        return _no_pair(f"{file}:{exc.errors[0][0]}", exc.errors[0][1])
    return f"{file}:{line}: this file cannot be read as an AWS config file; correct the line."


def _no_pair(where: str, represented: str) -> str:
    """`represented` is the line's repr, as configparser keeps it; since Python 3.13 it is the line itself."""
    if represented.lstrip("'\"").lstrip().startswith("["):
        return _unclosed(where)
    return f"{where}: this line is neither `[section]` nor `key = value`; write one of them."


def _unclosed(where: str) -> str:
    return f"{where}: this section header lacks its closing bracket; write it as `[profile NAME]`."
