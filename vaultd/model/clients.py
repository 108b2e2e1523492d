"""Which client a request is of, as far as its header fields tell, and what it bears: sdk-facts as data.

Rules
- A heuristic, and nothing that opens anything: it decides how long an answer may be dripped (interface.md §4 "Hold"),
  and whether an error is told or the socket closed (§5), never whether keys go out.
- A client that nobody knows bears the drip: of all that were measured only PHP does not (sdk-facts §9, §10.8).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

#: 170 s were borne by 17 of 19 clients at one request each (sdk-facts §5); nobody waits longer for a person.
LONGEST: Final = timedelta(seconds=120)


@dataclass(frozen=True, slots=True)
class Bearing:
    """`hold`: from the request's arrival to the last byte of its answer; None: it is never held."""

    name: str
    hold: timedelta | None


_RUST: Final = Bearing("rust", timedelta(seconds=21))  # §10.8: 21.6 s; older SDK clients stop at 5 s in any case (§3)
_STORE: Final = timedelta(seconds=25)  # §10.8: 30 s for the whole family
_UNKNOWN: Final = Bearing("unknown", LONGEST)  # §9
_OTHERS: Final = Bearing("no-agent", LONGEST)  # §2: JS v3 sends no agent and no Accept, opendal `accept: */*`

#: What a User-Agent begins with, in lower case.
_AGENTS: Final[tuple[tuple[bytes, Bearing], ...]] = (
    (b"python-urllib3/", Bearing("botocore", LONGEST)),  # §2; minio-py too: 170 s as well (§5)
    (b"go-http-client/", Bearing("go", LONGEST)),  # §2: Go v2 and minio-go; §10: "Go and minio drip"
    (b"aws-sdk-go/", Bearing("go-v1", LONGEST)),  # §2, §5
    (b"aws-sdk-nodejs/", Bearing("js-v2", LONGEST)),  # §2, §5
    (b"aws-sdk-crt/", Bearing("crt", LONGEST)),  # §2, §5
    (b"aws-sdk-cpp/", Bearing("cpp", LONGEST)),  # §2, §5
    (b"aws-sdk-java/", Bearing("java", LONGEST)),  # §10.8: works, as long as no gap is 1 s
    (b"object_store/", Bearing("object_store", _STORE)),  # §2, §10.8
    (b"polars/", Bearing("polars", _STORE)),  # §2: object_store below; §10.8 saw 45 s, §7 says 30 s
    (b"obstore/", Bearing("obstore", _STORE)),  # §10.8
    (b"deltalake/", Bearing("deltalake", _STORE)),  # §10.8
    (b"rust-s3/", Bearing("rust-s3", _STORE)),  # §10.8
    (b"attohttpc/", Bearing("rust-s3", _STORE)),  # the HTTP client that it asks with, by its own name (read, not run)
    (b"aws-sdk-php/", Bearing("php", None)),  # §10.8: 1 s in all for one try, whatever drips
    (b"guzzlehttp/", Bearing("php", None)),  # the HTTP client below it
)


def bearing(fields: Iterable[tuple[bytes, bytes]]) -> Bearing:
    """By the header fields as they came: names and values, in the client's own spelling."""
    agent, accept, lower = b"", b"", True
    for name, value in fields:
        lower = lower and name.islower()
        match name.lower():
            case b"user-agent":
                agent = value.strip().lower()
            case b"accept":
                accept = value
    if agent:
        return next((known for begins, known in _AGENTS if agent.startswith(begins)), _UNKNOWN)
    return _RUST if lower and accept == b"application/json" else _OTHERS


def closes_on_error(user_agent: bytes) -> bool:
    """Whether an error body on the IMDS credentials path would abort the client's process (sdk-facts §6, §10.12)."""
    return user_agent.startswith(b"aws-sdk-crt/")
