"""The AWS CLI's plaintext file as a source of keys: its sections with their values, and a section's key taken out.

Rules (interface.md §1)
- A value is read as the AWS CLI's configparser reads it, and goes nowhere but into a request over the control socket.
- The file is rewritten only where every line of it is understood and nothing has changed since it was read: the lines
  of one section's key go, each other byte stays. What the result says is read again before it takes the file's place.
- A link is followed when it and its target are the user's and not writable by others; a second name (a hard link) would
  keep the key, so it is refused.
"""

# pathlib may not load at start-up (architecture.md §2), so os.path it is.
# ruff: noqa: PTH104, PTH108, PTH115, PTH118, PTH120, PTH123
from __future__ import annotations

import os
import stat

from vault_client.awsfiles import MOST_BYTES, AwsFile, beginning
from vault_client.errors import MISCONFIGURED, Stop
from vault_client.tables import clean, typed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

#: What a long-term key consists of; what else a section has (region, mfa_serial) is no secret and stays.
KEY_LINES = ("aws_access_key_id", "aws_secret_access_key")
_LINK_DEPTH = 16
_OTHERS_WRITE = 0o022


def sections(path: str, *, otherwise: str) -> dict[str, dict[str, str]]:
    """Every section with its values. Raises Stop 78, ending in "correct it, or OTHERWISE"."""
    import configparser

    parser = configparser.RawConfigParser(default_section="\0", strict=False)
    try:
        content = beginning(path, MOST_BYTES + 1)
        if content is not None and len(content) <= MOST_BYTES:
            parser.read_string(content.decode().replace("\r\n", "\n").replace("\r", "\n"))
        why = "it is no file" if content is None else f"it has more than {MOST_BYTES // 1024 // 1024} MiB"
    except (OSError, UnicodeDecodeError, configparser.Error) as exc:
        content, why = None, (exc.strerror if isinstance(exc, OSError) else None) or "it is not an INI file"
    if content is None or len(content) > MOST_BYTES:
        raise Stop(f"{path} cannot be read ({why}): correct it, or {otherwise}", MISCONFIGURED)
    return {name: dict(parser[name]) for name in parser.sections()}


class Removal:
    """The lines of sections' keys, as they would be taken out of a file. Raises Stop 78 for one that cannot be."""

    def __init__(self, path: str, names: Iterable[str]) -> None:
        self.path = path
        self._names = list(names)
        self._target, self._before = _opened(path)
        self._lines = self._before.splitlines(keepends=True)
        self.gone = self._doomed()

    def diff(self) -> str:
        """What goes, line by line, without a secret."""
        rows = "".join(f"-{number:<5}{_masked(self._lines[number - 1])}\n" for number in sorted(self.gone))
        return f"--- {clean(self.path)}\n{rows}"

    def apply(self) -> None:
        """Put the file without those lines in the place of the file."""
        kept = [line for number, line in enumerate(self._lines, 1) if number not in self.gone]
        content = b"".join(kept)
        self._check(content)
        _replace(self.path, self._target, self._before, content)

    def _doomed(self) -> set[int]:
        file = AwsFile(self.path)
        if trouble := file.trouble or file.unread:
            raise Stop(f"{clean(trouble)}: correct that line first, then type the same again", MISCONFIGURED)
        if file.text.encode() != self._before.replace(b"\r\n", b"\n").replace(b"\r", b"\n"):
            raise _changed(self.path)
        doomed = set()
        for name in self._names:
            keys = file.where.get(name, {})
            mine = {line for key, line in keys.items() if key in KEY_LINES}
            if mine and not set(keys) - set(KEY_LINES) and self._bare(file, name, mine):
                mine.add(file.heads[name])
            doomed |= mine
        return doomed

    def _bare(self, file: AwsFile, name: str, mine: set[int]) -> bool:
        """Is nothing but blank lines left of a section, no comment either?"""
        first = file.heads[name]
        last = min((line for line in file.heads.values() if line > first), default=len(self._lines) + 1)
        return not any(self._lines[number - 1].strip() for number in range(first + 1, last) if number not in mine)

    def _check(self, content: bytes) -> None:
        """The same sections with the same values, but for those keys: read, not assumed."""
        import configparser

        def values(text: bytes) -> dict[str, dict[str, str]]:
            parser = configparser.RawConfigParser(default_section="\0")
            parser.read_string(text.decode())
            return {each: dict(parser[each]) for each in parser.sections()}

        try:
            wanted, found = values(self._before), values(content)
        except configparser.Error:  # a line that went on with the secret's value, for one
            raise self._otherwise() from None
        for name in self._names:
            left = {key: value for key, value in wanted.pop(name, {}).items() if key not in KEY_LINES}
            if left:
                wanted[name] = left
        if {name: keys for name, keys in found.items() if keys or name not in self._names} != wanted:
            raise self._otherwise()

    def _otherwise(self) -> Stop:
        return Stop(f"{clean(self.path)} would say something else without those lines: take them out in an editor",
                    MISCONFIGURED)  # fmt: skip


def _masked(line: bytes) -> str:
    """A line of the diff: of a key id its last 4 characters, of a secret nothing."""
    text = line.decode("utf-8", "replace").rstrip("\r\n")
    if text.lstrip().startswith("["):
        return clean(text)
    at = min(each for each in (text.find("="), text.find(":")) if each >= 0)
    key, value = text[:at].strip(), text[at + 1 :].strip()
    return clean(f"{key} = …{value[-4:]}" if key.lower() == KEY_LINES[0] else f"{key} = (not shown)")


def _opened(path: str) -> tuple[str, bytes]:
    """(the file itself, its content). Raises Stop 78 for one that is not the user's alone to write to."""
    target = _followed(path)
    try:
        number = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        raise Stop(f"{clean(path)} cannot be read ({exc.strerror}): look at it with `ls -l {typed(path)}`",
                   MISCONFIGURED) from None  # fmt: skip
    with open(number, "rb") as file:
        _check_ours(os.fstat(number), path)
        return target, file.read()


def _followed(path: str) -> str:
    for _ in range(_LINK_DEPTH):
        try:
            found = os.lstat(path)
        except OSError:
            return path
        if not stat.S_ISLNK(found.st_mode):
            return path
        if found.st_uid != os.getuid():
            raise _refused(path, "is another user's link")
        path = os.path.join(os.path.dirname(path), os.readlink(path))
    raise _refused(path, "is a link that leads nowhere")


def _check_ours(found: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise _refused(path, "is no file")
    if found.st_uid != os.getuid():
        raise _refused(path, "belongs to another user")
    if found.st_mode & _OTHERS_WRITE:
        raise _refused(path, "may be written to by others")
    if found.st_nlink > 1:
        raise _refused(path, "has a second name (a hard link), which would keep the key")


def _refused(path: str, why: str) -> Stop:
    return Stop(f"{clean(path)} {why}, so nothing is deleted in it: look at it with `ls -l {typed(path)}`",
                MISCONFIGURED)  # fmt: skip


def _changed(path: str) -> Stop:
    return Stop(f"{clean(path)} was changed by another program meanwhile and is as that left it: type the same again")


def _replace(path: str, target: str, before: bytes, content: bytes) -> None:
    """Whole or not at all, with the mode and the group of what was there.

    Looked at before and, since a disk takes its time, once more at the end: another program's change is not undone.
    """
    new = f"{target}.vaultd-{os.urandom(6).hex()}"
    try:
        found = _unchanged(path, target, before)
        number = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with open(number, "wb") as file:
                file.write(content)
                file.flush()
                if os.fstat(number).st_gid != found.st_gid:
                    os.fchown(number, -1, found.st_gid)
                os.fchmod(number, stat.S_IMODE(found.st_mode))
                os.fsync(number)
            _unchanged(path, target, before)
            os.rename(new, target)
        except BaseException:
            os.unlink(new)
            raise
        _sync(os.path.dirname(target) or ".")
    except OSError as exc:
        raise Stop(f"{clean(path)} cannot be written ({exc.strerror}) and is as it was: make room or mend its "
                   f"directory, then type the same again") from None  # fmt: skip


def _unchanged(path: str, target: str, before: bytes) -> os.stat_result:
    """Still the file that it was, of the same content. Raises Stop."""
    number = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(number, "rb") as file:
        found = os.fstat(number)
        _check_ours(found, path)
        if _followed(path) != target or file.read(len(before) + 1) != before:
            raise _changed(path)
        return found


def _sync(directory: str) -> None:
    number = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)
