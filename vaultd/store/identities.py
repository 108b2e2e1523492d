"""`identities.json`: which identities there are and under which item their key lies; no secret.

Rule: pydantic reads and writes the file, frozen dataclasses leave this module. The keyring cannot list its items, so
this index is the only list (security.md §3.1). What does not fit the model is an error that names file and field.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from vaultd.errors import Misconfigured
from vaultd.files import Files
from vaultd.model.credentials import Identity
from vaultd.model.rotation import Rotation, Stage
from vaultd.store.sealed_format import HIGHEST_GENERATION

#: active: in use. pending: written, not yet swapped in. retired: swapped out, not yet deleted (aws-facts §2.1).
State = Literal["active", "pending", "retired"]


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One identity and where its key lies: item `uuid` of store `backend`, written at the store's `generation`."""

    identity: Identity
    uuid: str
    backend: str
    state: State = "active"
    generation: int = 0


class IdentityIndex:
    """Loads and saves the whole index; each save is one atomic replace."""

    def __init__(self, files: Files, path: Path) -> None:
        self._files = files
        self._path = path
        #: Of the file as it was loaded or saved last; of nothing, where there was none.
        self.digest = _digest(b"")

    def load(self) -> tuple[IndexEntry, ...]:
        """The entries by name; none when there is no file. Raises FileRefused, Misconfigured."""
        content = self._files.read(self._path)
        self.digest = _digest(content or b"")
        if content is None:
            return ()
        try:
            index = _Index.model_validate_json(content)
        except ValidationError as exc:
            raise self._misfit(exc, empty=not content.strip()) from exc
        return tuple(sorted((line.entry() for line in index.identities), key=lambda entry: entry.identity.name))

    def save(self, entries: tuple[IndexEntry, ...]) -> None:
        """Replace the file. Raises Unwritable; the old index then stands."""
        content = _rendered(entries)
        self._files.replace(self._path, content)
        self.digest = _digest(content)

    def digest_of(self, entries: tuple[IndexEntry, ...]) -> str:
        """What `digest` is once they are saved."""
        return _digest(_rendered(entries))

    def _misfit(self, exc: ValidationError, *, empty: bool) -> Misconfigured:
        first = exc.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        wrong = "the file is empty" if empty else f"{field}: {first['msg']}"
        return Misconfigured(
            f"{self._path}: {wrong}: restore it from a backup, or move it away; a key that only vaultd had, as after a "
            "rotation, is then out of reach, and a new one from the IAM console is needed: run `vault-client add "
            "IDENTITY`.",
            path=str(self._path),
            field=field,
        )


def _rendered(entries: tuple[IndexEntry, ...]) -> bytes:
    index = _Index(version=1, identities=[_Line.of(entry) for entry in entries])
    return index.model_dump_json(indent=2, exclude_none=True).encode() + b"\n"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:  # the first hours of the year 1, east of Greenwich
        raise ValueError("a time that UTC does not have") from None


_Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
_KeyId = Annotated[str, Field(pattern=r"^[A-Z0-9]{16,128}$")]


class _Rotation(BaseModel):
    """Stage and intent of a rotation, kept here and nowhere else (architecture.md §7)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: Stage
    item: UUID
    listed: Annotated[tuple[_KeyId, ...], Field(min_length=1)]
    since: _Moment
    grace_seconds: Annotated[int, Field(ge=0, le=10**9)]
    new: _KeyId | None = None
    stray: tuple[_KeyId, ...] = ()

    @classmethod
    def of(cls, rotation: Rotation) -> Self:
        return cls(
            stage=rotation.stage,
            item=UUID(rotation.item),
            listed=rotation.listed,
            since=rotation.since,
            grace_seconds=int(rotation.grace.total_seconds()),
            new=rotation.new or None,
            stray=rotation.stray,
        )

    def rotation(self) -> Rotation:
        grace = timedelta(seconds=self.grace_seconds)
        return Rotation(self.stage, str(self.item), self.listed, self.since, grace, self.new or "", self.stray)


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    uuid: UUID
    name: Annotated[str, Field(min_length=1)]
    account_id: Annotated[str, Field(pattern=r"^[0-9]{12}$")]
    user_arn: Annotated[str, Field(pattern=r"^arn:[^:]+:iam::[0-9]{12}:")]
    mfa_serial: str | None = None
    key_ending: Annotated[str, Field(pattern=r"^[A-Z0-9]{4}$")]
    created: _Moment
    key_created: _Moment | None = None
    rotation: _Rotation | None = None
    backend: Annotated[str, Field(min_length=1)]
    state: State
    generation: Annotated[int, Field(ge=0, le=HIGHEST_GENERATION)]

    @classmethod
    def of(cls, entry: IndexEntry) -> Self:
        identity = entry.identity
        return cls(
            uuid=UUID(entry.uuid),
            name=identity.name,
            account_id=identity.account_id,
            user_arn=identity.user_arn,
            mfa_serial=identity.mfa_serial,
            key_ending=identity.key_ending,
            created=identity.created,
            key_created=identity.key_created,
            rotation=None if identity.rotation is None else _Rotation.of(identity.rotation),
            backend=entry.backend,
            state=entry.state,
            generation=entry.generation,
        )

    def entry(self) -> IndexEntry:
        identity = Identity(
            name=self.name,
            account_id=self.account_id,
            user_arn=self.user_arn,
            mfa_serial=self.mfa_serial,
            key_ending=self.key_ending,
            created=self.created,
            key_created=self.key_created,
            rotation=None if self.rotation is None else self.rotation.rotation(),
        )
        return IndexEntry(identity, str(self.uuid), self.backend, self.state, self.generation)


class _Index(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1]
    identities: list[_Line]

    @model_validator(mode="after")
    def _one_key_of_a_state_each(self) -> Self:
        seen: set[tuple[str, State]] = set()
        for line in self.identities:
            if (line.name, line.state) in seen:
                raise ValueError(f"two {line.state} keys under one name")
            seen.add((line.name, line.state))
        if len({line.uuid for line in self.identities}) != len(self.identities):
            raise ValueError("one uuid twice")
        return self
