"""One emulated AWS without its sockets: the order of the checks (scenarios §4.2), and everything a test may turn.

Order: key known, active, propagated → token matches → signature → skew (wire clock) → expiry (logical
clock) → the operation.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.strict_sts import federation, iam_ops, s3_names, sigv4, sts_ops
from tests.strict_sts.calls import Exchange, Log
from tests.strict_sts.clocks import LogicalClock, TimeSource
from tests.strict_sts.faults import Fault, Faults
from tests.strict_sts.knobs import Knobs
from tests.strict_sts.mutations import mutate
from tests.strict_sts.replies import AwsError, Reply, failure, invalid_token, success
from tests.strict_sts.sessions import LONG_TERM, Credential, Sessions
from tests.strict_sts.state import State, authorize
from tests.strict_sts.world import load

EXPIRED = "The security token included in the request is expired"


@dataclass(frozen=True)
class Key:
    """A long-term key as the world holds it."""

    id: str
    secret: str = field(repr=False)


class Emulator:
    """World, sessions, faults and logs of one emulator, and the answer to one call."""

    def __init__(
        self,
        *,
        world: Path,
        clock: TimeSource | None,
        time_scale: float,
        knobs: Mapping[str, object],
        templates: Mapping[str, Path],
    ) -> None:
        self._source = (world, dict(templates), dict(knobs))
        read = load(world, templates)
        self.state = State(read, clock or LogicalClock(), Knobs().turned(read.knobs).turned(knobs), time_scale)
        self.faults = Faults()
        self.log = Log()

    # --- what a test turns --------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """The world as read, no faults, no sessions, empty logs, clocks back; an injected clock stays its owner's."""
        world, templates, knobs = self._source
        self.load_world(world, templates=templates, knobs=knobs)
        if isinstance(self.state.clock, LogicalClock):
            self.state.clock.set(datetime.now(UTC))
        self.state.wire.skew = timedelta(0)

    def load_world(
        self, path: Path, *, templates: Mapping[str, Path] | None = None, knobs: Mapping[str, object] | None = None
    ) -> None:
        """Another world in place of this one; sessions, faults and logs go with the old."""
        read = load(path, templates)
        self.state.knobs = Knobs().turned(read.knobs).turned(knobs or {})
        self.state.world, self.state.sessions = read, Sessions()
        self._source = (path, dict(templates or {}), dict(knobs or {}))
        self.faults, self.log = Faults(), Log()

    def mutate(self, what: Mapping[str, Mapping[str, Any]]) -> None:
        mutate(self.state, what)

    def totp(self, serial: str, step: int) -> str:
        return self.state.world.devices[serial].code(self.state.now(), step=step)

    def key(self, user: str) -> Key:
        """The oldest key of that user."""
        first = self.state.world.keys_of(self.state.world.user_named(user).arn)[0]
        return Key(first.id, first.secret)

    # --- one call -----------------------------------------------------------------------------------------------------

    def receive(self, wire: sigv4.Wire) -> tuple[Exchange, Fault | None]:
        """Names the call, and whether a fault meets it."""
        if urlsplit(wire.url).path in federation.PATHS:
            return self._signing_in(wire)
        params = wire.params()
        target = wire.headers.get("x-amz-target", "")
        op = params.get("Action") or target.rpartition(".")[2]
        if wire.service == "s3":
            op = s3_names.operation(wire.method, wire.url)
        x = Exchange(wire, wire.service or "sts", op, params, self.state.now())
        known = self.state.credential(wire.akid)
        return x, self.faults.take(x, account=known.account if known else "")

    def _signing_in(self, wire: sigv4.Wire) -> tuple[Exchange, Fault | None]:
        """The federation endpoint: unsigned, no operation of a query protocol."""
        given = federation.fields(wire.method, wire.url, wire.params())
        x = Exchange(wire, "signin", given.get("Action", ""), given, self.state.now())
        return x, self.faults.take(x, account="")

    def throttle(self, x: Exchange) -> None:
        """Whether a throttled call has burnt its code is a knob (aws-facts §1.3(6))."""
        caller = self.state.credential(x.wire.akid)
        code = x.params.get("TokenCode", "")
        if self.state.knobs.code_consumed_when_throttled and caller and code:
            device = sts_ops.device_of(self.state, caller, x.params.get("SerialNumber", ""))
            if device:
                device.consume(code, self.state.now(), window=self.state.knobs.totp_window)

    def answer(self, x: Exchange) -> Reply | Credential:
        """The reply; or, for a call that the data plane answers, who makes it."""
        if x.service == "signin":
            return federation.perform(self.state, x)
        try:
            x.caller = self._authenticated(x)
            if x.service not in {"sts", "iam"}:
                action = s3_names.action(x.op) if x.service == "s3" else f"{x.service}:{x.op or 'Unknown'}"
                authorize(self.state, x, x.caller, action, "*")
                return x.caller
            perform = sts_ops.perform if x.service == "sts" else iam_ops.perform
            x.result = perform(self.state, x, x.caller)
        except AwsError as exc:
            x.error = _worded(exc, x)
            return failure(x.error, x.rid, service=x.service, json_protocol=x.wire.json_protocol)
        return success(x.service, x.op, x.result, x.rid)

    def _authenticated(self, x: Exchange) -> Credential:
        wire, state = x.wire, self.state
        if not wire.akid:
            raise AwsError(403, "MissingAuthenticationToken", "Request is missing Authentication Token")
        caller = state.credential(wire.akid)
        if caller is None or not self._usable(caller, x.service):
            raise invalid_token()
        if not hmac.compare_digest(
            wire.headers.get("x-amz-security-token", "").encode(), (caller.token or "").encode()
        ):
            raise invalid_token()
        sigv4.check_signature(wire, caller.secret)
        sigv4.check_skew(wire, state.wire.now(), timedelta(seconds=state.knobs.skew_s))
        over = caller.expiration is not None and state.now() >= caller.expiration
        if over or state.sessions.ended.get(caller.akid) == "expired":
            raise AwsError(403, "ExpiredToken", EXPIRED)
        if caller.kind == LONG_TERM:
            state.world.keys[caller.akid].last_used = (state.now(), x.service, wire.region)
        return caller

    def _usable(self, caller: Credential, service: str) -> bool:
        """Active, propagated to this service, each in its own time (aws-facts §2.1); not revoked as invalid."""
        if caller.kind != LONG_TERM:
            return self.state.sessions.ended.get(caller.akid) != "invalid"
        key = self.state.world.keys[caller.akid]
        wait = self.state.knobs.key_propagation_s.get(service, 0)
        return key.status == "Active" and self.state.now() >= key.created + timedelta(seconds=wait)


def _worded(error: AwsError, x: Exchange) -> AwsError:
    """The same refusal in the words of other services (aws-facts §1.5 rows 9 and 10)."""
    words = {
        "json": {
            "ExpiredToken": (400, "ExpiredTokenException"),
            "InvalidClientTokenId": (400, "UnrecognizedClientException"),
        },
        "s3": {"ExpiredToken": (400, "ExpiredToken"), "InvalidClientTokenId": (403, "InvalidAccessKeyId")},
    }
    dialect = "json" if x.wire.json_protocol else x.service
    status, code = words.get(dialect, {}).get(error.code, (error.status, error.code))
    return AwsError(status, code, error.message)
