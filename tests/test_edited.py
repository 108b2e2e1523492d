"""config.toml is read once: whoever edits it is told that a restart is due, and nobody else is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.web.control import House
from vaultd.lifecycle.edited import Edited
from vaultd.lifecycle.surroundings import Surroundings, read_settings

BEFORE = "[listen]\nport = 9200\n"


class Written:
    """A home with its config.toml, and a daemon that has read it."""

    def __init__(self, root: Path, *, port: int | None = None) -> None:
        self.house = House(root)
        self.house.files.make_dirs(self.house.layout)
        self.path = self.house.layout.config_toml
        self.write(BEFORE)
        around = self.house.surroundings
        settings = read_settings(around.files, around.layout, around.environ, port=port, config=None)
        self.around: Surroundings = replace(around, settings=settings, port_given=port is not None, settings_read=True)
        self.edited = Edited(self.around)

    def write(self, text: str) -> None:
        self.path.write_text(text)
        self.path.chmod(0o600)


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path)


@pytest.mark.parametrize("after", [BEFORE + "[profiles.audit]\nprotected = true\n", "", "[listen]\nport = 9201\n"])
def test_what_a_restart_would_change_is_told(written: Written, after: str) -> None:
    """Until the file says again what it said."""
    assert written.edited.said() == ""
    written.write(after)
    told = f"{written.path} was changed after vaultd started, which goes by what it said then: type `vaultd restart`"
    assert written.edited.said() == told == written.edited.said()
    written.write(BEFORE)
    assert written.edited.said() == ""


def test_a_comment_is_no_change(written: Written) -> None:
    """What a restart would not change needs none."""
    written.write("# mine\n" + BEFORE + '[grants]\nmax_age = "7d"\n')

    assert written.edited.said() == ""


def test_what_would_not_start_is_told(written: Written) -> None:
    """`vaultd restart` would leave its reader without a daemon: he is sent to the reason."""
    written.write("[listen]\nprot = 1\n")

    assert written.edited.said().endswith(" and would not start with it now: see why with `vaultd check`")


def test_a_file_that_was_removed(written: Written) -> None:
    """Every default would hold."""
    written.path.unlink()

    assert written.edited.said().endswith("type `vaultd restart`")


def test_a_port_of_the_command_line_is_kept(tmp_path: Path) -> None:
    """`--port` goes before the file, and a restart keeps it."""
    assert Written(tmp_path, port=9300).edited.said() == ""


def test_settings_of_no_file_are_not_compared(written: Written) -> None:
    """A test's daemon was given them."""
    written.write("")

    assert Edited(replace(written.around, settings_read=False)).said() == ""
