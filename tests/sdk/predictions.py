"""What each client is expected to make of the daemon's errors and holds, after sdk-facts; measured where it differs.

Rule: a number here is a bound that a test holds on a busy machine, not the figure: docs/sdk-matrix.md has the figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.sdk.programs import Dialect


@dataclass(frozen=True)
class Quits:
    """Seconds in which a client has given up, by what it was told; start-up of a CLI included."""

    refusal: float  # 4xx
    unavailable: float  # 503
    down: float  # nobody listens


@dataclass(frozen=True)
class Prediction:
    """`shows`: the dialects in which its user reads our message. `asks_again`: after a hold that ended without keys."""

    shows: frozenset[Dialect]
    quits: Mapping[Dialect, Quits]
    asks_again: bool = True


def _p(
    *shows: Dialect, ecs: tuple[float, float, float], imds: tuple[float, float, float], asks_again: bool = True
) -> Prediction:
    return Prediction(frozenset(shows), {"ecs": Quits(*ecs), "imds": Quits(*imds)}, asks_again)


#: sdk-facts §10.9 for `shows`, §3 and §6 for the seconds, §10.8 for `asks_again`.
#: botocore: three requests and, measured, a pause of 1 s after the last one, too: 3 s where §3 says 2 s.
PREDICTIONS: Mapping[str, Prediction] = {
    "boto3": _p("ecs", ecs=(6, 8, 6), imds=(3, 3, 3)),
    "aiobotocore": _p("ecs", ecs=(6, 8, 6), imds=(3, 3, 3)),
    "cli-v1": _p("ecs", ecs=(12, 14, 12), imds=(8, 8, 8)),
    "cli-v2": _p("ecs", ecs=(12, 14, 12), imds=(8, 8, 8)),
    "js-v3": _p(ecs=(6, 8, 6), imds=(3, 3, 3)),
    "js-v2": _p(ecs=(3, 6, 3), imds=(3, 3, 3), asks_again=False),
    # measured: at 503 and at a closed port its STS client starts the whole look-up anew twice, 15–17 s where §3 has
    # 2–3.4 s for the bare provider; the pauses are drawn by chance, up to 20 s each
    "go-v2": _p("ecs", ecs=(3, 60, 60), imds=(3, 3, 10), asks_again=False),
    "go-v1": _p(ecs=(3, 15, 5), imds=(3, 3, 5)),
    "java-v2": _p(ecs=(5, 8, 5), imds=(5, 5, 5), asks_again=False),
    # measured: on IMDS its error text has the whole reply in it, our message too; §6 has that for 200 alone
    "rust": _p("imds", ecs=(3, 10, 5), imds=(3, 3, 3)),
    # a 403 on IMDS would end its process (§10.12): its socket is closed, and it tells nothing
    "awscrt": _p(ecs=(3, 6, 5), imds=(3, 3, 3)),
    "pyarrow": _p(ecs=(3, 5, 3), imds=(3, 3, 3)),
    "obstore": _p("ecs", "imds", ecs=(3, 15, 15), imds=(3, 3, 15), asks_again=False),
    "curl": _p("ecs", "imds", ecs=(3, 3, 3), imds=(3, 3, 3), asks_again=False),
}

#: Does it find its way with one form of the token only (sdk-facts §10.6)? FILE alone: not Debian's CLI of 2023.
FILE_ALONE_FAILS = frozenset({"cli-v2"})
ENVIRONMENT_ALONE_FAILS = frozenset({"obstore"})
