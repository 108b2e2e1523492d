"""The IAM calls that a credential daemon makes: who am I, my keys, my devices (aws-facts §2); else InvalidAction."""

import base64
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from tests.strict_sts.calls import Exchange
from tests.strict_sts.clocks import stamp
from tests.strict_sts.replies import AwsError, invalid_action, invalid_token
from tests.strict_sts.sessions import FEDERATED, GST, LONG_TERM, Credential
from tests.strict_sts.state import State, authorize
from tests.strict_sts.world import AccessKey, User, new_id


def perform(state: State, x: Exchange, caller: Credential) -> Mapping[str, Any]:
    """The result of the operation, or AwsError."""
    if caller.kind in {GST, FEDERATED}:
        raise invalid_token()  # not AccessDenied: a session without MFA may call no IAM at all (aws-facts §1.1)
    operation = OPERATIONS.get(x.op)
    if operation is None:
        raise invalid_action(x.op, x.params.get("Version", ""))
    return operation(state, x, caller)


def _user(state: State, x: Exchange, caller: Credential) -> User:
    """The user that the call means, authorized on his real ARN: `${aws:username}` matches nothing else."""
    name = x.params.get("UserName")
    if name is None:
        if not caller.is_user:
            raise AwsError(400, "ValidationError", "Must specify userName when calling with non-User credentials")
        user: User | None = state.world.users[caller.holder]
    else:
        mine = (each for each in state.world.users.values() if each.account == caller.account)
        user = next((each for each in mine if each.name == name), None)
    arn = user.arn if user else f"arn:aws:iam::{caller.account}:user/{name}"
    authorize(state, x, caller, f"iam:{x.op}", arn)
    if user is None:
        raise AwsError(404, "NoSuchEntity", f"The user with name {name} cannot be found.")
    return user


def get_user(state: State, x: Exchange, caller: Credential) -> Mapping[str, Any]:
    return {"User": _told(_user(state, x, caller))}


def list_users(state: State, x: Exchange, caller: Credential) -> Mapping[str, Any]:
    authorize(state, x, caller, "iam:ListUsers", f"arn:aws:iam::{caller.account}:user/")
    mine = [_told(user) for user in state.world.users.values() if user.account == caller.account]
    return {"Users": mine, "IsTruncated": False}


def list_access_keys(state: State, x: Exchange, caller: Credential) -> Mapping[str, Any]:
    user = _user(state, x, caller)
    keys = state.world.keys_of(user.arn)
    return {"AccessKeyMetadata": [_metadata(key, user) for key in keys], "IsTruncated": False}


def create_access_key(state: State, x: Exchange, caller: Credential) -> Mapping[str, Any]:
    """At most two, inactive ones count; the secret is shown once; usable after a while (aws-facts §2.1)."""
    user = _user(state, x, caller)
    if len(state.world.keys_of(user.arn)) >= 2:
        raise AwsError(409, "LimitExceeded", "Cannot exceed quota for AccessKeysPerUser: 2")
    secret = base64.b64encode(secrets.token_bytes(30)).decode()
    key = AccessKey(new_id("AKIA"), secret, user.arn, created=state.now())
    state.world.keys[key.id] = key
    return {"AccessKey": {**_metadata(key, user), "SecretAccessKey": key.secret}}


def update_access_key(state: State, x: Exchange, caller: Credential) -> Mapping[str, Any]:
    if caller.kind != LONG_TERM and "UserName" not in x.params:
        raise AwsError(400, "ValidationError", "Must specify userName when calling with non-User credentials")
    key = _key(state, x, _user(state, x, caller))
    if x.params.get("Status") not in {"Active", "Inactive"}:
        raise AwsError(400, "ValidationError", "Value at 'status' failed to satisfy constraint")
    key.status = x.params["Status"]
    return {}


def delete_access_key(state: State, x: Exchange, caller: Credential) -> Mapping[str, Any]:
    del state.world.keys[_key(state, x, _user(state, x, caller)).id]
    return {}


def get_access_key_last_used(state: State, x: Exchange, caller: Credential) -> Mapping[str, Any]:
    """Needs a permission of its own that the tutorial does not grant (aws-facts §0)."""
    key = state.world.keys.get(x.params.get("AccessKeyId", ""))
    authorize(state, x, caller, "iam:GetAccessKeyLastUsed", key.user if key else "*")
    if key is None:
        raise AwsError(404, "NoSuchEntity", "The Access Key cannot be found.")
    moment, service, region = key.last_used or (None, "N/A", "N/A")
    used = {"LastUsedDate": stamp(moment) if moment else None, "ServiceName": service, "Region": region}
    return {"UserName": state.world.users[key.user].name, "AccessKeyLastUsed": used}


def list_mfa_devices(state: State, x: Exchange, caller: Credential) -> Mapping[str, Any]:
    """Passkeys are listed like the rest, with their `:u2f/` serial (aws-facts §2.2)."""
    user = _user(state, x, caller)
    devices = [
        {"UserName": user.name, "SerialNumber": each.serial, "EnableDate": stamp(each.enabled)}
        for each in state.world.devices_of(user.arn)
    ]
    return {"MFADevices": devices, "IsTruncated": False}


def list_virtual_mfa_devices(state: State, x: Exchange, caller: Credential) -> Mapping[str, Any]:
    authorize(state, x, caller, "iam:ListVirtualMFADevices", f"arn:aws:iam::{caller.account}:mfa/")
    users = state.world.users
    devices = [
        {"SerialNumber": each.serial, "EnableDate": stamp(each.enabled), "User": _told(users[each.user])}
        for each in state.world.devices.values()
        if each.kind == "totp" and users[each.user].account == caller.account
    ]
    return {"VirtualMFADevices": devices, "IsTruncated": False}


OPERATIONS: Mapping[str, Callable[[State, Exchange, Credential], Mapping[str, Any]]] = {
    "CreateAccessKey": create_access_key,
    "DeleteAccessKey": delete_access_key,
    "GetAccessKeyLastUsed": get_access_key_last_used,
    "GetUser": get_user,
    "ListAccessKeys": list_access_keys,
    "ListMFADevices": list_mfa_devices,
    "ListUsers": list_users,
    "ListVirtualMFADevices": list_virtual_mfa_devices,
    "UpdateAccessKey": update_access_key,
}


def _key(state: State, x: Exchange, user: User) -> AccessKey:
    akid = x.params.get("AccessKeyId", "")
    key = state.world.keys.get(akid)
    if key is None or key.user != user.arn:
        raise AwsError(404, "NoSuchEntity", f"The Access Key with id {akid} cannot be found.")
    return key


def _told(user: User) -> dict[str, Any]:
    return {
        "Path": user.path, "UserName": user.name, "UserId": user.id, "Arn": user.arn, "CreateDate": stamp(user.created),
    }  # fmt: skip


def _metadata(key: AccessKey, user: User) -> dict[str, Any]:
    return {"UserName": user.name, "AccessKeyId": key.id, "Status": key.status, "CreateDate": stamp(key.created)}
