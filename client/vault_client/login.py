"""`login`: a browser signed in to the AWS console as a profile's role.

Rules
- The sign-in URL is a credential for 15 minutes: it is on no argv and in no file, and a browser gets it by redirect.py.
  A SIGQUIT while the browser is waited for leaves no core of it behind (security.md §2.2 item 19).
- Where no browser can be opened, or none comes for it, the URL is printed with a sentence that says what it is.
- Between the daemon's answer and the browser nothing is asked: what a person decides, he decided on the command line.
"""

from __future__ import annotations

import sys
from contextlib import suppress

from vault_client import browser as browsers
from vault_client import habits
from vault_client.ask import settled
from vault_client.cli import Call, brief
from vault_client.errors import USAGE, Stop
from vault_client.granting import asked_region, asked_seconds
from vault_client.link import quoted
from vault_client.redirect import SECONDS, Redirect
from vault_client.tables import clean, local, typed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vault_client.browser import Browser

_KEEP = "it is a credential until {until}, so keep it out of histories, logs and chats"
_SERVICE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-")
_LONGEST_SERVICE = 63
#: After this long it is told who is waited for: a browser that runs already comes sooner.
SILENT = 0.8


def login(call: Call) -> int:
    """Open the console, or print the URL."""
    body = _body(call)
    if not call.operands:  # last: nobody chooses for a command line that cannot be meant
        from vault_client.picker import choose

        call.operands.append(choose(call, "login"))
    name = call.operands[0]
    found = [] if call.flag("stdout") else _browsers(call, name)
    _limit_cores()
    made = settled(call.link, "POST", f"/v1/profiles/{quoted(name)}/signin", body, token_code=call.token_code)
    _undumped()
    habits.count(call.environ, name)
    if made.get("doubt"):
        call.say(f"note: {clean(made['doubt'])}")
    for warning in made.get("warnings") or ():
        call.say(f"warning: {clean(warning)}")
    if call.flag("stdout"):
        _print(call, made, "this signs in whoever opens it")
        return 0
    _open(call, name, made, found)
    return 0


def _body(call: Call) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if call.flag("stdout") and call.flag("container"):
        raise Stop("login: --stdout opens no browser, so --container has nothing to do: choose one", USAGE)
    if (wanted := call.value("service")) is not None:
        if not wanted or set(wanted) - _SERVICE or len(wanted) > _LONGEST_SERVICE:
            raise Stop(f"--service {brief(clean(wanted))} is no page of the console: give one such as s3 or ec2", USAGE)
        body["service"] = wanted
    if (region := call.value("region")) is not None:
        body["region"] = asked_region(region)
    if (duration := call.value("duration")) is not None:
        body["duration_seconds"] = asked_seconds(duration)
    if call.flag("logout-first"):
        body["logout_first"] = True
    return body


def _browsers(call: Call, name: str) -> list[Browser]:
    """Before anything is asked: a wish that cannot be met costs nobody a code."""
    return browsers.contained(call.environ, name) if call.flag("container") else browsers.find(call.environ)


def _limit_cores() -> None:
    import resource

    with suppress(OSError, ValueError):  # the hard one stays: the browser is started with both
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _undumped() -> None:
    """The limit is nothing to a core_pattern that is a pipe (core(5)). Not before the daemon has answered: it asks
    /proc which program calls, and the kernel then tells it no more. execve ends it, so that browsers are as ever.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes  # 10 ms

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # linux/prctl.h PR_SET_DUMPABLE


def _open(call: Call, name: str, made: dict[str, Any], found: list[Browser]) -> None:
    why = "no browser can be opened here"
    for browser in found:
        with Redirect(str(made["url"]), whoever=browser.outside) as redirect:
            if not browser.start(redirect.address, call.environ):
                why = f"{clean(browser.name)} cannot be started"
                continue
            if _given(call, redirect, browser, typed(name)):
                until = local(made.get("console_until"))
                account = clean(made.get("account_id"))
                call.say(f"opened the console of {name}, account {account}: it is signed in until {until}")
                return
            if not browser.failed():  # it runs: another one beside it would be one too many
                why = f"{clean(browser.name)} did not come for it within {SECONDS:.0f} s"
                break
            why = f"{clean(browser.name)} failed"
    _print(call, made, f"{why}, so open this yourself")


def _given(call: Call, redirect: Redirect, browser: Browser, name: str) -> bool:
    """Did the browser come for it? Ctrl-C, after which nobody gets it, says so."""
    try:
        if redirect.given(seconds=min(SILENT, SECONDS), failed=browser.failed):
            return True
        if browser.failed():
            return False
        call.say(f"waiting up to {SECONDS:.0f} s for {clean(browser.name)} to open the console")
        return redirect.given(seconds=SECONDS - SILENT, failed=browser.failed)
    except KeyboardInterrupt:
        raise Stop(f"stopped before {clean(browser.name)} came for it, so it is not signed in: type `vault-client "
                   f"login {name}`, or with --stdout for the URL", 130) from None  # fmt: skip


def _print(call: Call, made: dict[str, Any], why: str) -> None:
    kept = _KEEP.format(until=local(made.get("expires_at")))
    call.say(f"{why}; {kept}; the console ends at {local(made.get('console_until'))}")
    call.out(f"{made['url']}\n")
