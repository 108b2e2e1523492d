"""The IAM subset: keys in their whole life, devices, users; each call under the templates' policies (aws-facts §2)."""

from typing import Any

import pytest

from tests.strict_sts.bench import Bench, message, outcome
from tests.strict_sts.live import FRANKLIN, SERIAL

USER = "arn:aws:iam::123456789012:user/team/long-path"


def statuses(iam: Any) -> list[str]:
    return [key["Status"] for key in iam.list_access_keys()["AccessKeyMetadata"]]


def test_key_rotation(bench: Bench) -> None:
    """Create, use, switch the old one off, delete it: the steps of aws-facts §2.1 as W0 allows them through M."""
    iam = bench.client("iam", bench.mfa())
    old = bench.strict.key()
    created = iam.create_access_key()["AccessKey"]

    assert bench.client("sts", created).get_caller_identity()["Arn"] == FRANKLIN
    iam.update_access_key(UserName="franklin", AccessKeyId=old.id, Status="Inactive")
    assert statuses(iam) == ["Inactive", "Active"]
    iam.delete_access_key(AccessKeyId=old.id)
    assert statuses(iam) == ["Active"]
    assert [call.op for call in bench.strict.calls()][1:3] == ["CreateAccessKey", "GetCallerIdentity"]


def test_third_key(bench: Bench) -> None:
    """Two at most, inactive ones counted: 409 (E2)."""
    iam = bench.client("iam", bench.mfa())
    created = iam.create_access_key()["AccessKey"]
    iam.update_access_key(UserName="franklin", AccessKeyId=created["AccessKeyId"], Status="Inactive")

    assert outcome(iam.create_access_key) == "LimitExceeded"


def test_update_by_a_session_needs_the_name(bench: Bench) -> None:
    """aws-facts §2.1: UpdateAccessKey with temporary credentials requires UserName."""
    iam, key = bench.client("iam", bench.mfa()), bench.strict.key().id

    assert "Must specify userName" in message(lambda: iam.update_access_key(AccessKeyId=key, Status="Active"))
    assert outcome(lambda: iam.update_access_key(AccessKeyId=key, Status="Active", UserName="franklin")) == "allowed"


def test_last_used_is_not_granted(bench: Bench) -> None:
    """The tutorial grants no GetAccessKeyLastUsed (aws-facts §0); robot, who has it, sees N/A and then a use."""
    key, robot = bench.strict.key("robot").id, bench.client("iam", user="robot")
    assert outcome(lambda: bench.client("iam", bench.mfa()).get_access_key_last_used(AccessKeyId=key)) == "AccessDenied"

    bench.strict.mutate(key={"user": "robot", "id": "AKIAROBOTSECONDKEY01", "secret": "second"})
    unused = robot.get_access_key_last_used(AccessKeyId="AKIAROBOTSECONDKEY01")["AccessKeyLastUsed"]
    used = robot.get_access_key_last_used(AccessKeyId=key)["AccessKeyLastUsed"]
    assert unused["ServiceName"] == "N/A"
    assert (used["ServiceName"], used["Region"]) == ("iam", "us-east-1")


def test_own_keys_only(bench: Bench) -> None:
    """`user/${aws:username}`: franklin may not look at robot, and not know whether there is a nobody."""
    iam = bench.client("iam", bench.mfa())

    assert outcome(lambda: iam.list_access_keys(UserName="franklin")) == "allowed"
    for name in ("robot", "nobody"):
        assert outcome(lambda name=name: iam.list_access_keys(UserName=name)) == "AccessDenied"  # type: ignore[misc]
    key = bench.strict.key("robot").id
    assert outcome(lambda: iam.delete_access_key(AccessKeyId=key)) == "NoSuchEntity"


def test_iam_without_mfa(bench: Bench) -> None:
    """A session without MFA may call no IAM and reads InvalidClientTokenId, not AccessDenied (aws-facts §1.1)."""
    assert outcome(bench.client("iam", bench.plain()).get_user) == "InvalidClientTokenId"
    assert outcome(bench.client("iam", bench.mfa()).get_user) == "allowed"


def test_a_role_session_has_no_user(bench: Bench) -> None:
    """GetUser without a name is refused, with one it is a matter of policy."""
    iam = bench.client("iam", bench.assume("WebAdmin", bench.mfa()))

    assert "Must specify userName" in message(iam.get_user)
    assert outcome(lambda: iam.get_user(UserName="franklin")) == "AccessDenied"


def test_devices(bench: Bench) -> None:
    """One to begin with, a passkey among them when there is one, none when none (A16); by the bare key."""
    fido = "arn:aws:iam::123456789012:u2f/user/franklin/key-ABC"
    iam = bench.client("iam")

    def serials() -> list[str]:
        return [each["SerialNumber"] for each in iam.list_mfa_devices()["MFADevices"]]

    assert serials() == [SERIAL]
    bench.strict.mutate(device={"serial": fido, "user": "franklin", "kind": "u2f"})
    assert serials() == [SERIAL, fido]
    bench.strict.mutate(device={"serial": SERIAL, "removed": True})
    bench.strict.mutate(device={"serial": fido, "removed": True})
    assert serials() == []


def test_lists(bench: Bench) -> None:
    """Users and virtual devices of the account."""
    iam = bench.client("iam", bench.mfa())

    assert {user["UserName"] for user in iam.list_users()["Users"]} == {"franklin", "robot"}
    assert [each["SerialNumber"] for each in iam.list_virtual_mfa_devices()["VirtualMFADevices"]] == [SERIAL]


def test_added_user(bench: Bench) -> None:
    """A user with a path, in the tutorial's groups (F2).

    `user/${aws:username}` does not match such an ARN, at AWS neither: GetUser and ListMFADevices are denied to him, and
    only GetCallerIdentity tells who he is.
    """
    bench.strict.mutate(
        user={"arn": USER, "groups": ["Everyone", "WebAdmin"]},
        key={"user": USER, "id": "AKIALONGPATHLONGPATH", "secret": "long"},
        device={"user": USER, "serial": "arn:aws:iam::123456789012:mfa/other-name"},
    )
    assert outcome(bench.client("iam", user="long-path").get_user) == "AccessDenied"
    assert outcome(bench.client("iam", user="long-path").list_mfa_devices) == "AccessDenied"
    assert bench.client("sts", user="long-path").get_caller_identity()["Arn"] == USER
    told = {user["UserName"]: user["Path"] for user in bench.client("iam", bench.mfa()).list_users()["Users"]}
    assert told == {"franklin": "/", "robot": "/", "long-path": "/team/"}

    shown = {"SerialNumber": "arn:aws:iam::123456789012:mfa/other-name"}
    shown["TokenCode"] = bench.strict.totp(shown["SerialNumber"])
    keys = bench.client("sts", user="long-path").get_session_token(**shown)["Credentials"]
    assert outcome(lambda: bench.assume("WebAdmin", keys, user="long-path")) == "allowed"


def test_denied_by_a_policy_of_the_moment(bench: Bench) -> None:
    """E6: an administrator takes a right away, and gives it back."""
    iam, key = bench.client("iam", bench.mfa()), bench.strict.key().id
    statement = {"Effect": "Deny", "Action": "iam:UpdateAccessKey", "Resource": "*"}
    document = {"Version": "2012-10-17", "Statement": [statement]}

    def update() -> str:
        return outcome(lambda: iam.update_access_key(AccessKeyId=key, Status="Active", UserName="franklin"))

    bench.strict.mutate(policy={"principal": FRANKLIN, "name": "no", "document": document})
    assert update() == "AccessDenied"
    bench.strict.mutate(policy={"principal": FRANKLIN, "name": "no", "document": None})
    assert update() == "allowed"


@pytest.mark.parametrize(
    "wrong",
    [{"keys": {}}, {"key": {"id": "AKIANOSUCHKEY", "status": "Inactive"}}, {"role": {"max_session_duration": 1}}],
)
def test_a_mistyped_mutation_is_an_error(bench: Bench, wrong: dict[str, Any]) -> None:
    """Positive control of every test that mutates."""
    with pytest.raises(ValueError, match=r"key|role"):
        bench.strict.mutate(**wrong)
