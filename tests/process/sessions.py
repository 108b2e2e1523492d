"""A day at a terminal under shell integration, in each real shell, recorded: `python -m tests.process.sessions` prints
what a person would have seen. tests.process.test_shell_sessions checks the same recordings.

Rule: everything is typed as a person types it; the daemon, the emulator and the AWS CLI are real.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.client.terminal import OnTerminal, start
from tests.process.harness import Emulator, Home, MovedClock, short_directory, until

SHELLS = {"bash": ["--norc", "--noprofile", "-i"], "zsh": ["-f", "-i"], "fish": ["-i", "--private"]}
ASK = "aws sts get-caller-identity --query Arn --output text"
PS1 = "$ "
#: The lines of an rc file: integration as documented, and a prompt that a reader can wait for.
_RC = {
    "bash": 'eval "$(vault-client shell-init bash)"; bind "set enable-bracketed-paste off"; PS1="{mark}"',
    "zsh": 'eval "$(vault-client shell-init zsh)"; unset zle_bracketed_paste; setopt no_prompt_sp; PS1="{mark}"',
    "fish": "vault-client shell-init fish | source; set -g fish_greeting; set -g fish_autosuggestion_enabled 0; "
    "function fish_prompt; end; function ready --on-event fish_prompt; echo -n '{mark}'; end",
}
_MARK = "[at the prompt] "
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\x1b\(B|[^\n]*\r(?!\n)")


@dataclass
class Session:
    """One shell on a terminal: what was typed, and what it said to that."""

    name: str
    terminal: OnTerminal
    said: list[tuple[str, str]] = field(default_factory=list)

    def type(self, line: str, code: str = "") -> str:
        """What the line prints; `code` answers the question that it leads to."""
        self.begin(line)
        return self.end(line, code)

    def begin(self, line: str) -> None:
        """Type it, and go on elsewhere."""
        self.terminal.type(line + "\n")

    def end(self, line: str, code: str = "") -> str:
        """What the line that was begun prints."""
        seen = ""
        if code:
            seen = self.terminal.until("MFA code: ") + "······"
            self.terminal.type(code + "\n")
        seen += self.terminal.until(_MARK)
        text = _plain(seen).replace(_MARK.strip(), "").replace(line, "", 1).strip("\n ")
        self.said.append((line, text))
        return text

    def note(self, text: str) -> None:
        """What happened beside the terminal."""
        self.said.append(("", text))

    def text(self) -> str:
        """The recording, to be read."""
        lines = [f"── {self.name} ──"]
        for typed, said in self.said:
            lines += [f"{PS1}{typed}"] if typed else []
            lines += [f"  ({said})"] if not typed else said.splitlines()
        return "\n".join(line.rstrip() for line in lines) + "\n"


def _plain(seen: str) -> str:
    # zsh draws the first character twice, with a backspace between
    seen = re.sub("[^\x08]\x08", "", seen)
    return _ESCAPES.sub("", seen.replace("\r\r\n", "\n").replace("\r\n", "\n"))


@contextmanager
def session(name: str, home: Home, **environ: str) -> Iterator[Session]:
    """A shell at its first prompt; it is ended however the block ends."""
    rc = home.directory / f"rc.{name}"
    rc.write_text(_RC[name].format(mark=_MARK) + "\n")
    env = {**home.env, "TERM": "dumb" if name == "fish" else "xterm", "LC_ALL": "C.UTF-8", **environ}
    terminal = start([name, *SHELLS[name]], env=env, columns=200, cwd=str(home.directory))
    try:
        terminal.type(f"source {rc}\n")
        terminal.until(_MARK)
        yield Session(name, terminal)
    finally:
        terminal.close()


def grants(home: Home) -> list[dict[str, Any]]:
    """Who holds a token now."""
    found: list[dict[str, Any]] = home.link("GET", "/v1/grants")["grants"]
    return found


def gone(home: Home) -> None:
    """Within what interface.md §3 gives a bound grant."""
    until(lambda: grants(home) == [], "the grant of a shell that ended", seconds=8)


def day(name: str, home: Home, emulator: Emulator) -> Session:
    """use, AWS, switch, back, unuse; then two terminals that are closed and killed while they use a profile."""
    with session(name, home, AWS_PROFILE="of-mine") as shell:
        shell.type("vault-client use web-admin", emulator.code())
        shell.type(ASK)
        shell.type("vault-client use audit --region eu-central-1")
        shell.type(ASK)
        shell.type("vault-client use -")
        shell.type(ASK)
        shell.type("vault-client prompt")
        held = ", ".join(f"{each['profile']} bound to pid {each['peer']['pid']}" for each in grants(home))
        shell.note(f"the daemon's grants: {held}; this shell is {shell.terminal.child.pid}")
        shell.type("vault-client unuse")
        shell.note(f"the daemon's grants: {grants(home) or 'none'}")
        shell.type("sh -c 'echo \"AWS_PROFILE is $AWS_PROFILE, VAULTD_PROFILE is ${VAULTD_PROFILE-not set}\"'")
        shell.type("vault-client use web-admin")
        shell.terminal.hang_up()
        gone(home)
        shell.note("the terminal was closed: the daemon's grants: none")
    with session(name, home) as second:
        second.type("vault-client use audit")
        assert len(grants(home)) == 1
        os.kill(second.terminal.child.pid, signal.SIGKILL)
        gone(home)
        shell.said += second.said
        shell.note("the shell was killed by SIGKILL: the daemon's grants: none")
    return shell


def main(names: list[str]) -> int:
    """Print a recording of each."""
    for name in names or list(SHELLS):
        with short_directory() as directory:
            clock = MovedClock.build(directory)
            with Emulator.running(moto=True, environment=clock.env) as emulator:
                home = Home.make(directory, emulator)
                with home.daemon():
                    assert home.add(emulator).status == 0
                    print(day(name, home, emulator).text(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
