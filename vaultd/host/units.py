r"""Unit files of the service manager: where they travel, how a word gets into one, what is filled in.

Rules
- The files under systemd/ and launchd/ are the only text; here their @…@ are filled in, escaped as systemd.syntax(7)
  and systemd.service(5) have it: double quotes, a backslash before `"` and `\`, `%%` for a specifier's percent sign.
- systemd takes no quote or backslash in the path of a program: such a path is refused by name.
- What is written for a user carries a digest of itself: only what nobody has changed since is replaced or removed.
"""

from __future__ import annotations

import hashlib
import plistlib
import re
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import vaultd
from vaultd.errors import Misconfigured

_MARK = re.compile(r"@([A-Z]+)@")
_PLAIN = re.compile(r"[A-Za-z0-9._/:=+-]+")
_STAMP = re.compile(r"^(?:# |<!-- )Written by `vaultd service install`, sha256 ([0-9a-f]{64})(?: -->)?\n", re.MULTILINE)
_NOT_IN_PROGRAM = frozenset("\"'\\")


def template(folder: str, name: str) -> str:
    """The file as it travels: beside the source, or as shared data of the installed package. Raises Misconfigured."""
    below = Path("share/vaultd", folder, name)
    places = [Path(vaultd.__file__).parents[1] / folder / name]
    places += [Path(sysconfig.get_path("data", scheme)) / below for scheme in _schemes()]
    for path in places:
        if path.is_file():
            return path.read_text()
    raise Misconfigured(f"the unit file {name} was not installed with vaultd: install vaultd again from its wheel")


def _schemes() -> list[str]:
    """Of this interpreter: its own, then the user's (`pip install --user`)."""
    return [sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user")]


def filled(text: str, words: Mapping[str, str]) -> str:
    """A systemd unit with each @NAME@ as `words` has it; a line that is left empty by that goes."""
    lines = []
    for line in text.splitlines():
        made = line if line.startswith("#") else _MARK.sub(lambda found: words[found[1]], line)
        if made or not line:
            lines.append(made)
    return "\n".join(lines) + "\n"


def word(text: str) -> str:
    """One word of a systemd command line without variables (the colon), or of Environment=. Raises Misconfigured."""
    if _PLAIN.fullmatch(text):
        return text
    _check_printable(text)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def _check_printable(text: str) -> None:
    if not text.isprintable():
        raise Misconfigured(f"{text!a} cannot be written into a unit file: rename it to plain characters, then retry")


def program(words: Sequence[str]) -> str:
    """A systemd command line. Raises Misconfigured for a path that systemd does not take."""
    if _NOT_IN_PROGRAM & set(words[0]):
        raise Misconfigured(
            f"systemd takes no quote or backslash in the path of a program, and this vaultd runs by {words[0]}: "
            "install vaultd below another directory, then type the same again"
        )
    return " ".join(word(each) for each in words)


def environment(values: Mapping[str, str]) -> str:
    """Environment= lines, or nothing."""
    return "\n".join(f"Environment={word(f'{name}={value}')}" for name, value in values.items())


def path(text: str) -> str:
    """A path that is a whole value, as ListenStream= and LoadCredential= take it. Raises Misconfigured."""
    _check_printable(text)
    return text.replace("%", "%%")


def stamped(text: str) -> str:
    """With the digest of all the rest as a comment: the first line, in XML the one after its declaration."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    said = f"Written by `vaultd service install`, sha256 {digest}"
    if not text.startswith("<?xml"):
        return f"# {said}\n{text}"
    declared, _, rest = text.partition("\n")
    return f"{declared}\n<!-- {said} -->\n{rest}"


def unchanged(text: str) -> bool | None:
    """Whether it still is what its stamp says; None: there is no stamp, so we did not write it."""
    found = _STAMP.search(text)
    if found is None:
        return None
    rest = text[: found.start()] + text[found.end() :]
    return hashlib.sha256(rest.encode()).hexdigest() == found[1]


def plist(text: str, words: Mapping[str, str], variables: Mapping[str, str], *, more: Sequence[str] = ()) -> bytes:
    """A launchd property list, filled in; `more` words at the end of its command. Raises Misconfigured."""
    for each in (*words.values(), *variables.values(), *more):
        _check_printable(each)
    made: dict[str, Any] = _replaced(plistlib.loads(text.encode()), words)
    made["EnvironmentVariables"] = dict(variables)
    made["ProgramArguments"] += more
    return plistlib.dumps(made)


def _replaced(value: Any, words: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _MARK.sub(lambda found: words[found[1]], value)
    if isinstance(value, dict):
        return {name: _replaced(each, words) for name, each in value.items()}
    if isinstance(value, list):
        return [_replaced(each, words) for each in value]
    return value
