"""`doctor`: what keeps this shell's tools from vaultd, and where each SDK would get its credentials instead.

Rules
- This shell is looked at here, the daemon's side by the daemon (GET /v1/checks): one list, each thing diagnosed once.
- Nothing is asked of the endpoint, because a GET may open a question; whether a grant lives, the control API says.
- No value that could be a secret is told: of tokens their shape, of files their lines, of addresses their host.
"""

from __future__ import annotations

import os
import sys

from vault_client import __version__, fixes, own_files, shadows
from vault_client import shell as shells
from vault_client.awsfiles import AwsFiles
from vault_client.cli import Call, brief
from vault_client.errors import UNREACHABLE, USAGE, Refusal, Stop
from vault_client.link import quoted
from vault_client.served import Served
from vault_client.shadows import Finding, imds_in
from vault_client.tables import Ink, clean, table
from vault_client.used import Used

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from vault_client.scene import Scene

#: A daemon that hangs is what somebody comes to doctor with; a check of the keyring takes 30 s at most.
_HANGS = 40.0


def doctor(call: Call) -> int:
    """The list, `--sdk`'s table, and 1 when anything of it is not well. `--fix` goes on with what is safe to mend."""
    if call.flag("fix") and call.flag("json"):
        raise Stop("doctor: --fix asks, and --json is for scripts: type `vault-client doctor --help`", USAGE)
    shell = _shell(call.environ)
    files = AwsFiles(call.environ)
    scene = _scene(call, files) if call.flag("sdk") or call.flag("profile") else None
    remote = Remote(call)
    own = own_files.checks(call.link.places, call.environ, remote)
    found = [*shell_checks(call.environ, files, shell, remote), *own, *remote.told(own)]
    if call.flag("fix"):
        return fixes.mend(call, found, shell, _text(found))
    rows = None if scene is None else _rows(scene, remote.served)
    if call.flag("json"):
        checks = [each.wire() for each in found]
        call.json({"checks": checks, **({} if rows is None else {"sdk": [row.wire() for row in rows]})})
    else:
        call.out(_text(found) + ("" if rows is None else "\n" + _table(rows)))
    if remote.away:  # a row says it, with what to type
        return UNREACHABLE
    return 0 if all(each.ok for each in found) else 1


def _shell(environ: Mapping[str, str]) -> shells.Dialect:
    try:
        return shells.calling(environ, None)
    except Stop:  # csh gets no lines to evaluate, and needs no less to know what is wrong
        return shells.Posix()


def _scene(call: Call, files: AwsFiles) -> Scene:
    """What SDKs look at; raises Stop for a --profile that is in neither file."""
    from vault_client.scene import Scene

    chosen = call.value("profile")
    scene = Scene(call.environ, chosen=chosen, files=files)
    if chosen is None or chosen in scene.profiles or any(each.trouble or each.unread for each in files.both):
        return scene
    import difflib

    close = difflib.get_close_matches(brief(chosen), list(scene.profiles), n=3)
    meant = f" (did you mean {', '.join(brief(each) for each in close)}?)" if close else ""
    raise Stop(f"there is no profile {brief(chosen)} in {files.config.path}{meant}: type `vault-client list`")


def _rows(scene: Scene, served: Served) -> list[Any]:
    from vault_client import families

    return families.rows(scene, served)


def _text(found: list[Finding]) -> str:
    """A line for each, and one for its remedy."""
    lines = []
    for each in found:
        lines.append(f"{'ok  ' if each.ok else 'BAD '} {clean(each.name):<16} {each.message}")
        if each.remedy:
            lines.append(f"     {'':<16} → {each.remedy}")
    return "\n".join(lines) + "\n"


def _table(rows: list[Any]) -> str:
    cells = [(row.family, row.source, "yes" if row.ours else "no", row.where) for row in rows]
    return table(("SDK", "CREDENTIALS FROM", "VAULTD", "WHERE"), cells, Ink(sys.stdout, os.environ))


class Remote:
    """The daemon's answers. `away`: it is not there, and nothing of it is known."""

    def __init__(self, call: Call) -> None:
        self.away = False
        self.version = __version__
        self.checks: list[Finding] = []
        self.served = Served(call.environ)
        #: Looked at before the grants are asked for: a grant that is made meanwhile is listed.
        self.tokens = own_files.token_files(call.link.places)
        try:
            self.checks = [_told(each) for each in call.link.call("GET", "/v1/checks", seconds=_HANGS)["checks"]]
            grants = call.link.call("GET", "/v1/grants", seconds=_HANGS)["grants"]
            status = call.link.call("GET", "/v1/status", seconds=_HANGS)
            self.version = str(status.get("version"))
            self.served = Served(call.environ, grants=grants, status=status, run=call.link.places.run)
            self.served.refused = self._refused(call)
        except Refusal as refusal:
            self.checks.append(Finding.of_stop("daemon", refusal))
        except Stop as stop:
            self.checks.append(Finding.of_stop("daemon", stop))
            self.away = stop.exit_status == UNREACHABLE

    def _refused(self, call: Call) -> dict[str, Any] | None:
        grant = self.served.grant()
        if grant is None:
            return None
        try:
            found: dict[str, Any] = call.link.call("GET", f"/v1/grants/{quoted(str(grant['id']))}", seconds=_HANGS)
        except Refusal:  # it has just ended, or the daemon is of before: its version is a row
            return None
        return found.get("refused")

    def told(self, own: list[Finding]) -> list[Finding]:
        """Its checks, without the one on a mode of a file that was found here, too; and its version."""
        paths = [each.fix.path for each in own if each.fix is not None]
        rows = [
            each for each in self.checks
            if each.ok or each.name != "permissions" or not any(path in each.message for path in paths)
        ]  # fmt: skip
        if self.version == __version__:
            return rows
        said = f"vaultd is {clean(self.version)[:40]} and this vault-client {__version__}"
        return [Finding("version", said, "type `vaultd restart`"), *rows]


def _told(check: dict[str, Any]) -> Finding:
    return Finding(str(check["name"]), str(check["message"]), str(check.get("remedy") or ""), ok=bool(check["ok"]))


def shell_checks(environ: Mapping[str, str], files: AwsFiles, shell: shells.Dialect, remote: Remote) -> list[Finding]:
    """Every row about this shell, in the order in which one would mend."""
    used = Used(environ, shell, remote)
    found = [*used.shell(), *shadows.in_variables(environ, shell), *used.relative(), *shadows.in_files(environ, files)]
    found += shadows.numbers(environ, imds=imds_in(environ))
    if used.dialects:
        found += [*used.grant(), *used.both(), *used.endpoint(), *shadows.proxies(environ)]
        found += shadows.metadata(environ, files, shell) if imds_in(environ) else used.token()
    if all(each.ok for each in found):
        found.append(Finding("shadows", "nothing here goes before the endpoint", ok=True))
    return found
