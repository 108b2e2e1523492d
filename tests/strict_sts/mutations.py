"""Changes to a living world: what an administrator, or a colleague, does behind vaultd's back."""

from collections.abc import Callable, Mapping
from typing import Any

from tests.strict_sts.policy import parse
from tests.strict_sts.state import State
from tests.strict_sts.world import AccessKey, Role, add_device, add_user, new_id

Change = Mapping[str, Any]


def mutate(state: State, what: Mapping[str, Change]) -> None:
    """Each of key, device, policy, role, region, user, knobs. Raises ValueError naming what is unknown."""
    for subject, change in what.items():
        if subject not in CHANGES:
            raise ValueError(f"nothing called {subject!r} can be changed; there are {', '.join(CHANGES)}")
        try:
            CHANGES[subject](state, change)
        except KeyError as exc:
            raise ValueError(f"{subject}: {exc} is missing, or names nothing in this world") from exc


def _key(state: State, change: Change) -> None:
    keys = state.world.keys
    if "secret" in change:
        keys[change["id"]] = AccessKey(change["id"], change["secret"], state.world.user_named(change["user"]).arn)
    elif change["status"] == "deleted":
        del keys[change["id"]]
    else:
        keys[change["id"]].status = {"Active": "Active", "Inactive": "Inactive"}[change["status"]]


def _device(state: State, change: Change) -> None:
    if change.get("removed"):
        del state.world.devices[change["serial"]]
    else:
        add_device(state.world, change)


def _policy(state: State, change: Change) -> None:
    inline = state.world.principal(change["principal"]).inline
    if change["document"] is None:
        del inline[change["name"]]
    else:
        inline[change["name"]] = parse(change["name"], change["document"])


def _role(state: State, change: Change) -> None:
    roles, arn = state.world.roles, change["arn"]
    if change.get("deleted"):
        del roles[arn]
        return
    role = roles.setdefault(arn, Role(arn, new_id("AROA")))
    role.max_session_duration = int(change.get("max_session_duration", role.max_session_duration))
    if "trust" in change:
        role.trust = parse(f"{arn} trust", change["trust"])


def _region(state: State, change: Change) -> None:
    pair = (str(change["account"]), str(change["name"]))
    (state.world.sts_off.discard if change["sts"] else state.world.sts_off.add)(pair)


def _user(state: State, change: Change) -> None:
    user = state.world.users.get(change["arn"]) or add_user(state.world, change["arn"])
    names = {group.name: arn for arn, group in state.world.groups.items() if group.account == user.account}
    user.groups |= {names[name] for name in change.get("groups", ())}


def _knobs(state: State, change: Change) -> None:
    state.knobs = state.knobs.turned(change)


CHANGES: Mapping[str, Callable[[State, Change], None]] = {
    "key": _key,
    "device": _device,
    "policy": _policy,
    "role": _role,
    "region": _region,
    "user": _user,
    "knobs": _knobs,
}
