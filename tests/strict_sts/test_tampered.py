"""Each tampered template changes what its scenario sees; the true one does not."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.strict_sts.bench import Bench, StillClock, outcome
from tests.strict_sts.live import StrictStsThread, role
from tests.strict_sts.tampered import TAMPERS, UNDENIABLE, Tamper

STRANGER = "arn:aws:iam::999999999999:user/stranger"
HIDDEN = "arn:aws:iam::234567890123:role/Hidden"


def document(action: str, **more: Any) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": action, **more}}


def webadmin_at_age(seconds: float) -> Callable[[Bench], object]:
    """An MFA session of that age asks for WebAdmin."""

    def probe(bench: Bench) -> object:
        keys = bench.mfa()
        bench.strict.clock.advance(seconds)
        return bench.assume("WebAdmin", keys)

    return probe


def stranger_opens_webadmin(bench: Bench) -> object:
    """Somebody of an account that nobody named, with MFA and every permission of their own."""
    serial = "arn:aws:iam::999999999999:mfa/stranger"
    bench.strict.mutate(
        user={"arn": STRANGER},
        key={"user": STRANGER, "id": "AKIASTRANGERSTRANGER", "secret": "stranger"},
        device={"serial": serial, "user": STRANGER},
        policy={"principal": STRANGER, "name": "all", "document": document("*", Resource="*")},
    )
    shown = {"SerialNumber": serial, "TokenCode": bench.strict.totp(serial)}
    keys = bench.client("sts", user="stranger").get_session_token(**shown)["Credentials"]
    return bench.assume("WebAdmin", keys)


def role_nobody_was_given(bench: Bench) -> object:
    """A role that trusts the identity account, but that franklin's policies do not name."""
    trust = document("sts:AssumeRole", Principal={"AWS": "123456789012"})
    bench.strict.mutate(role={"arn": HIDDEN, "trust": trust})
    return bench.assume("Hidden", bench.mfa())


def update_key(bench: Bench) -> object:
    key = bench.strict.key().id
    return bench.client("iam", bench.mfa()).update_access_key(AccessKeyId=key, Status="Active", UserName="franklin")


PROBES: Mapping[str, Callable[[Bench], object]] = {
    "bare_key_opens_webadmin": lambda bench: bench.assume("WebAdmin", user="robot"),
    "webadmin": lambda bench: bench.assume("WebAdmin", bench.mfa()),
    "webadmin_at_age_3400": webadmin_at_age(3400),
    "webadmin_at_age_3600": webadmin_at_age(3600),
    "webadmin_at_age_3601": webadmin_at_age(3601),
    "webadmin_for_twelve_hours": lambda bench: bench.assume(
        "WebAdmin",
        DurationSeconds=43200,
        SerialNumber="arn:aws:iam::123456789012:mfa/franklin",
        TokenCode=bench.strict.totp(),
    ),
    "stranger_opens_webadmin": stranger_opens_webadmin,
    "role_nobody_was_given": role_nobody_was_given,
    "describe_applications": lambda bench: bench.client(
        "elasticbeanstalk", bench.assume("WebAdmin", bench.mfa())
    ).describe_applications(),
    "bare_key_lists_keys": lambda bench: bench.client("iam").list_access_keys(),
    "bare_key_lists_devices": lambda bench: bench.client("iam").list_mfa_devices(),
    "create_key": lambda bench: bench.client("iam", bench.mfa()).create_access_key(),
    "update_key": update_key,
}


def test_there_are_ten_and_more() -> None:
    """Issue 3 item 8 asks for ten; no two are the same edit."""
    assert len({tamper.text() for tamper in TAMPERS}) == len({tamper.name for tamper in TAMPERS}) >= 10
    assert role("WebAdmin").endswith("/WebAdmin")


@pytest.mark.parametrize("tamper", [*TAMPERS, UNDENIABLE], ids=lambda tamper: tamper.name)
def test_outcome(tamper: Tamper, tmp_path: Path, moto: str) -> None:
    """The scenario's outcome is what the templates say: `before` by the true ones, `after` by the tampered copy."""
    seen = []
    for templates in ({}, tamper.templates(tmp_path)):
        with StrictStsThread(templates=templates, moto=moto, clock=StillClock()) as strict:
            seen.append(outcome(functools.partial(PROBES[tamper.probe], Bench(strict))))

    assert seen == [tamper.before, tamper.after]


def test_an_edit_that_finds_no_place_is_an_error() -> None:
    """Positive control of the tampers: a template that changed its wording cannot make a tamper into the true text."""
    with pytest.raises(ValueError, match="stands 0 times"):
        Tamper("stale", "production-account.yaml", (("not there", ""),), "A1", "webadmin", "", "").text()


def test_a_policy_that_names_nothing_is_an_error(tmp_path: Path) -> None:
    """The Beanstalk policy's old name is refused; moto would drop it in silence (aws-facts §3)."""
    old = Tamper(
        "superseded", "production-account.yaml",
        (("AdministratorAccess-AWSElasticBeanstalk", "AWSElasticBeanstalkFullAccess"),), "G6", "webadmin", "", "",
    )  # fmt: skip

    with pytest.raises(ValueError, match=r"no managed policy .*AWSElasticBeanstalkFullAccess"):
        StrictStsThread(templates=old.templates(tmp_path))
