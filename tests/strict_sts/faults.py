"""Planted faults: which call they meet, and what the client then sees."""

from dataclasses import dataclass
from typing import Any

from tests.strict_sts.calls import Exchange
from tests.strict_sts.replies import AwsError, Reply, failure

PASSING = frozenset({"latency", "past_expiration"})  # the call goes on
SILENT = frozenset({"hang", "reset"})  # no answer at all
KINDS = PASSING | SILENT | {"http", "throttle", "error", "truncate", "html200", "badxml"}
PORTAL = (
    b"<!DOCTYPE html><html><head><title>Welcome</title></head><body><form>Sign in to the network</form></body></html>"
)


@dataclass
class Fault:
    """One planted fault. `times` 0 = until reset; `nth` counts matching calls since it was planted."""

    kind: str
    op: str | None = None
    akid: str | None = None
    account: str | None = None
    region: str | None = None
    session_name: str | None = None
    nth: int | None = None
    when: str = "before"
    times: int = 1
    arg: Any = None
    seen: int = 0
    done: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no fault kind {self.kind!r}; there are {', '.join(sorted(KINDS))}")
        if self.when not in {"before", "after"}:
            raise ValueError(f"a fault strikes before or after, not {self.when!r}")

    def strikes(self, x: Exchange, account: str) -> bool:
        """Counts the call when it matches; true when it is this fault's turn."""
        pairs = (
            (self.op, x.op),
            (self.akid, x.wire.akid),
            (self.account, account),
            (self.region, x.wire.region),
            (self.session_name, x.params.get("RoleSessionName")),
        )
        if not all(want in {None, have} for want, have in pairs):
            return False
        self.seen += 1
        due = self.seen >= (self.nth or 1) and (self.times == 0 or self.done < self.times)
        self.done += due
        return due


class Faults:
    """The faults planted and not yet used up; the first that strikes wins."""

    def __init__(self) -> None:
        self._planted: list[Fault] = []

    def plant(self, fault: Fault) -> None:
        self._planted.append(fault)

    def take(self, x: Exchange, *, account: str) -> Fault | None:
        struck = [fault for fault in self._planted if fault.strikes(x, account)]
        for fault in struck[1:]:
            fault.done -= 1
        return struck[0] if struck else None


def spoiled(fault: Fault, x: Exchange) -> Reply:
    """What the client sees in place of the true answer."""
    if fault.kind == "html200":
        return Reply(200, PORTAL, "text/html")
    if fault.kind == "badxml":
        return Reply(200, b"<AssumeRoleResponse><AssumeRoleResult><Credentials></Wrong>")
    if fault.kind == "truncate":
        return Reply(200, b"<Response>" + b"<Filler/>" * 64 + b"</Response>")
    return failure(_error(fault), x.rid, service=x.service, json_protocol=x.wire.json_protocol)


def _error(fault: Fault) -> AwsError:
    if fault.kind == "throttle":
        return AwsError(400, "Throttling", "Rate exceeded")  # aws-facts §1.5 row 13
    if fault.kind == "error":
        return AwsError(int(fault.arg["status"]), str(fault.arg["code"]), str(fault.arg["message"]))
    status = int(fault.arg or 500)
    code = {500: "InternalFailure", 503: "ServiceUnavailable"}.get(status, f"Http{status}")
    return AwsError(status, code, "We encountered an internal error. Please try again.")
