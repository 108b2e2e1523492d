"""T13: the keys of another profile, role or account than the token was given for."""

from __future__ import annotations

from collections.abc import Callable

from tests.adversary import wire
from tests.adversary.case import Attack, Case
from tests.adversary.ground import ROLE_PATH, TOKEN_PATH, TTL, Ground
from tests.adversary.people import OWNER, as_user
from tests.process.harness import until, variables


def asks(path: str) -> Attack:
    """With web-admin's token."""
    return lambda ground: wire.granted(as_user(OWNER, lambda: wire.talk(ground.daemon, ground.get(path))))


def _used(ground: Ground, profile: str, *more: str) -> dict[str, str]:
    used = ground.home.client("use", profile, "--shell", "sh", *more)
    assert used.status == 0, used
    return variables(used.out)


def _keys(ground: Ground, profile: str, token: str) -> bytes:
    sent = ground.get(f"/v1/credentials/{profile}", token=token)
    return wire.granted(as_user(OWNER, lambda: wire.talk(ground.daemon, sent)))


def revoked(*, before: bool) -> Attack:
    def act(ground: Ground) -> bytes:
        made = _used(ground, "web-admin")
        if not before:
            assert ground.home.client("revoke", made["VAULTD_GRANT"]).status == 0
        return _keys(ground, "web-admin", made["AWS_CONTAINER_AUTHORIZATION_TOKEN"])

    return act


def moved(*, before: bool) -> Attack:
    """The profile comes to mean another role after the grant was made."""

    def act(ground: Ground) -> bytes:
        config = ground.home.directory / ".aws/config"
        plain = config.read_text()
        section = "\n[profile moved]\nsource_profile = identity\nrole_arn = arn:aws:iam::234567890123:role/{}\n"
        section += "mfa_serial = arn:aws:iam::123456789012:mfa/franklin\n"
        try:
            config.write_text(plain + section.format("WebAdmin"))
            until(lambda: "moved" in ground.home.client("list").out, "the profile is seen")
            token = _used(ground, "moved")["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
            if before:
                return _keys(ground, "moved", token)
            config.write_text(plain + section.format("LongOps"))
            until(
                lambda: "LongOps" in ground.home.client("list", "--json").out.partition("moved")[2][:300],
                "the other role",
            )
            return _keys(ground, "moved", token)
        finally:
            config.write_text(plain)

    return act


def at_another_door(*, own: bool) -> Attack:
    """A metadata token at the door of another grant."""

    def act(ground: Ground) -> bytes:
        used = ground.home.client("use", "web-admin", "--imds", "--shell", "sh")
        port = int(used.out.split("127.0.0.1:", 1)[1].split("/", 1)[0])
        token = ground.metadata_token
        if own:
            asked = wire.request(f"PUT {TOKEN_PATH}", TTL, host=f"127.0.0.1:{port}")
            token = wire.body(as_user(OWNER, lambda: wire.talk(("127.0.0.1", port), asked))).decode()
        sent = wire.request(f"GET {ROLE_PATH}", f"X-aws-ec2-metadata-token: {token}", host=f"127.0.0.1:{port}")
        return wire.granted(as_user(OWNER, lambda: wire.talk(("127.0.0.1", port), sent)))

    return act


def role_at_the_door(path: str) -> Attack:
    def act(ground: Ground) -> bytes:
        sent = ground.role().replace(ROLE_PATH.encode(), path.encode())
        return wire.granted(as_user(OWNER, lambda: wire.talk(("127.0.0.1", ground.door), sent)))

    return act


def forged(change: Callable[[str], str]) -> Attack:
    """A token that is nearly one."""
    return lambda ground: _keys(ground, "web-admin", change(ground.token))


OWN = "the token's own profile is answered"
PROMISE = "A token serves one profile, by one exact path"
_OWN = asks("/v1/credentials/web-admin")
_PATHS = {
    "another-profile": "/v1/credentials/audit",
    "unknown-profile": "/v1/credentials/nobody",
    "another-case": "/v1/credentials/Web-Admin",
    "escaped": "/v1/credentials/%77eb-admin",
    "dot-segments": "/v1/credentials/audit/../web-admin",
    "closing-slash": "/v1/credentials/web-admin/",
    "double-slash": "/v1//credentials/web-admin",
    "no-profile": "/v1/credentials/",
}

CASES = (
    *(Case(f"T13-{name}", "T13", PROMISE, asks(path), OWN, _OWN) for name, path in _PATHS.items()),
    Case("T13-token-cut", "T13", "A part of a token is none", forged(lambda token: token[:-1]), OWN, _OWN),
    Case("T13-token-longer", "T13", "A token and more is none", forged(lambda token: token + "A"), OWN, _OWN),
    Case("T13-token-other-case", "T13", "A token is compared byte for byte", forged(str.swapcase), OWN, _OWN),
    Case(
        "T13-token-not-ascii", "T13", "Bytes that are no text are no token",
        forged(lambda token: token[:-1] + "\xff"), OWN, _OWN,
    ),
    Case(
        "T13-revoked", "T13", "A revoked token serves nothing",
        revoked(before=False), "before it was revoked it served", revoked(before=True),
    ),
    Case(
        "T13-profile-means-another-role", "T13",
        "A profile that has come to mean another role is refused, not followed",
        moved(before=False), "before the change its token is answered", moved(before=True),
    ),
    Case(
        "T13-metadata-token-of-another-grant", "T13", "A metadata token is good at its own grant's door alone",
        at_another_door(own=False), "the door's own is answered", at_another_door(own=True),
    ),
    Case(
        "T13-another-role-at-the-door", "T13", "A door serves its grant's profile alone",
        role_at_the_door("/latest/meta-data/iam/security-credentials/audit"), "its own is answered",
        role_at_the_door(ROLE_PATH),
    ),
)  # fmt: skip
