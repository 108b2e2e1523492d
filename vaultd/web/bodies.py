"""What the control API accepts: one frozen model a body, and the sentence for each way it can be wrong.

Rule: an unknown or malformed field is 400 BadRequest naming the field (interface.md §6); the value is never echoed,
because it may be a secret. JSON types are taken as they are: "7" is no number, and `true` is not 1.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, ValidationError

from vaultd.engine.seams import ForeignStore
from vaultd.errors import BadRequest
from vaultd.model import limits
from vaultd.model.plan import Overrides
from vaultd.model.secret import Secret
from vaultd.model.text import shown

#: A control body is at most 64 KiB (security.md §2.1 item 10).
BODY_LIMIT = 64 * 1024

#: No grant is asked for longer: far above any `max_age`, and no timedelta overflows.
_LONGEST = 10**9


def _sealed(value: object) -> Secret:
    if not isinstance(value, str) or not value:
        raise ValueError("it must be a text that is not empty")
    return Secret(value)


def _identity_name(value: str) -> str:
    if (wrong := limits.identity_name(value)) is not None:
        raise ValueError(wrong)
    return value


#: A string that becomes a Secret the moment it is parsed.
SecretText = Annotated[Secret, PlainValidator(_sealed)]


class Body(BaseModel):
    """Base of every body: frozen, and strict about types and unknown fields."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True
    )


class GrantBody(Body):
    """POST /v1/grants. `ttl_seconds` and `duration_seconds` are whole seconds; the latter goes to AWS."""

    profile: str = Field(min_length=1, max_length=512)
    kind: Literal["exec", "shell", "lease"]
    pid: int | None = Field(default=None, gt=0)
    imds: bool = False
    ttl_seconds: int | None = Field(default=None, gt=0)
    duration_seconds: int | None = Field(default=None, ge=900, le=43200)
    region: str | None = Field(default=None, pattern=r"^[a-z]{2,}(-[a-z]+)+-\d+$")
    policy: str | None = Field(default=None, max_length=2048)
    policy_arns: tuple[Annotated[str, Field(min_length=20, max_length=2048)], ...] = Field(default=(), max_length=10)
    token_code: SecretText | None = None

    def overrides(self) -> Overrides:
        """What this grant asks for beyond its profile."""
        duration = None if self.duration_seconds is None else timedelta(seconds=self.duration_seconds)
        return Overrides(duration=duration, region=self.region, policy=self.policy, policy_arns=self.policy_arns)

    def ttl(self) -> timedelta | None:
        """How long the grant is asked for; cut to `[grants] max_age`."""
        return None if self.ttl_seconds is None else timedelta(seconds=min(self.ttl_seconds, _LONGEST))


class CodeBody(Body):
    """POST /v1/profiles/{p}/refresh: an optional code, used only when one turns out to be needed."""

    token_code: SecretText | None = None


class SignInBody(Body):
    """POST /v1/profiles/{p}/signin. `service` is a page of the console; `duration_seconds`: how long it lasts."""

    service: str | None = Field(default=None, max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*$")
    region: str | None = Field(default=None, pattern=r"^[a-z]{2,}(-[a-z]+)+-\d+$")
    duration_seconds: int | None = Field(default=None, ge=900, le=43200)
    logout_first: bool = False
    token_code: SecretText | None = None

    def overrides(self) -> Overrides:
        """What this sign-in asks for beyond its profile; the region shapes the page only, not the session."""
        return Overrides(duration=None if self.duration_seconds is None else timedelta(seconds=self.duration_seconds))


class PromptBody(Body):
    """POST /v1/prompts: open (or find) the question of `vault-client mfa`."""

    identity: str | None = Field(default=None, min_length=1, max_length=512)
    token_code: SecretText | None = None


class AnswerBody(Body):
    """POST /v1/prompts/{id}: a code, or for a consent an explicit true or false."""

    token_code: SecretText | None = None
    allow: bool | None = None


class IdentityBody(Body):
    """POST /v1/identities; names as AWS spells them. An identity's name is typed again, so it must be typeable."""

    name: Annotated[str, AfterValidator(_identity_name)]
    AccessKeyId: str = Field(pattern=r"^[A-Z0-9]{16,128}$")
    SecretAccessKey: SecretText
    MfaSerial: str | None = Field(default=None, min_length=9, max_length=256, pattern=r"^[\w+=/:,.@-]+$")
    replace: bool = False


class RotateBody(Body):
    """POST /v1/identities/{name}/rotate: one step. `grace_seconds` is how long the old key is kept Inactive; `go`
    begins a rotation or goes on with it, `on` begins none.
    """

    token_code: SecretText | None = None
    wish: Literal["go", "on", "undo", "abandon"] = "go"
    grace_seconds: int | None = Field(default=None, ge=0, le=90 * 86400)

    def grace(self) -> timedelta | None:
        """None: as it was meant."""
        return None if self.grace_seconds is None else timedelta(seconds=self.grace_seconds)


class CompareBody(Body):
    """POST /v1/identities/{name}/compare: a key that may be the one that is stored."""

    AccessKeyId: str = Field(pattern=r"^[A-Z0-9]{16,128}$")
    SecretAccessKey: SecretText


class ImportBody(Body):
    """POST /v1/imports/aws-vault: what can be imported, of all or of `names`. `place` is a directory by its whole path,
    or the collection's name.
    """

    backend: Literal["file", "secret-service"]
    place: str = Field(min_length=1, max_length=4096)
    passphrase: SecretText | None = None
    names: tuple[Annotated[str, Field(min_length=1, max_length=1024)], ...] = Field(default=(), max_length=500)

    def source(self) -> ForeignStore:
        """The store that is meant."""
        return ForeignStore(self.backend, self.place)


class ImportOneBody(Body):
    """POST /v1/imports/aws-vault/adopt and …/discard: one key of it, by its name there."""

    backend: Literal["file", "secret-service"]
    place: str = Field(min_length=1, max_length=4096)
    passphrase: SecretText | None = None
    name: str = Field(min_length=1, max_length=1024)
    MfaSerial: str | None = Field(default=None, min_length=9, max_length=256, pattern=r"^[\w+=/:,.@-]+$")

    def source(self) -> ForeignStore:
        """The store that is meant."""
        return ForeignStore(self.backend, self.place)


class UnlockBody(Body):
    """POST /v1/unlock: the file store's passphrase; none for the keyring."""

    passphrase: SecretText | None = None
    accept_rollback: bool = False


#: What is wrong with a value of the right type: a pattern is no sentence.
_OUT_OF_BOUNDS = {
    "string_pattern_mismatch", "string_too_short", "string_too_long", "too_long", "literal_error",
    "greater_than", "greater_than_equal", "less_than_equal",
}  # fmt: skip
_BOUNDS = {
    "AccessKeyId": "an access key id is 16 to 128 capital letters and digits",
    "backend": "it is one of file and secret-service",
    "MfaSerial": "an MFA device is named by its ARN or its serial number",
    "grace_seconds": "an old key is kept Inactive for 0 seconds to 90 days",
    "duration_seconds": "sessions of 900 to 43200 seconds are what AWS gives",
    "identity": "an identity's name has 1 to 512 characters",
    "kind": "it is one of exec, shell and lease",
    "name": "a key's name has 1 to 1024 characters",
    "names": "up to 500 names of 1 to 1024 characters each are taken",
    "place": "a directory or a collection has 1 to 4096 characters",
    "pid": "a process id is above 0",
    "policy": "a session policy has up to 2048 characters",
    "policy_arns": "up to 10 ARNs of up to 2048 characters each are taken",
    "profile": "a profile's name has 1 to 512 characters",
    "region": "a region is written like eu-west-1",
    "service": "a page of the console is written like s3, elasticbeanstalk or ec2",
    "ttl_seconds": "a grant lives for more than 0 seconds",
    "wish": "it is one of go, on, undo and abandon",
}

BodyT = TypeVar("BodyT", bound=Body)


def parse(model: type[BodyT], raw: bytes) -> BodyT:
    """The body as `model`; raises BadRequest that names the first bad field and never its value."""
    try:
        return model.model_validate_json(raw or b"{}")
    except ValidationError as exc:
        first = exc.errors(include_input=False, include_url=False)[0]
    raise _refusal(first["type"], first["loc"], first["msg"])


def _refusal(kind: str, where: tuple[int | str, ...], said: str) -> BadRequest:
    if kind == "json_invalid":
        return BadRequest("the body is not JSON in UTF-8: send one JSON object")
    if not where:
        return BadRequest("the body is not a JSON object: send one JSON object")
    field = shown(".".join(str(part) for part in where), limit=60)
    reason = said.removeprefix("Value error, ").rstrip(".")
    if kind in _OUT_OF_BOUNDS:
        reason = _BOUNDS.get(str(where[0]), reason)
    return BadRequest(f"field {field}: {reason[:1].lower()}{reason[1:]}; correct it and send it again", field=field)
