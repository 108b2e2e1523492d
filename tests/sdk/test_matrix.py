"""The matrix, cell by cell: each client by each dialect against a real daemon. Nothing is skipped.

The play is done once; every test here reads what was seen in it.
"""

from __future__ import annotations

import pytest

from tests.process.harness import ROOT, MovedClock, short_directory
from tests.sdk import play, table
from tests.sdk.build import outdir
from tests.sdk.play import EXPIRIES, LONG, SHORT, UNSCALED, Findings
from tests.sdk.predictions import ENVIRONMENT_ALONE_FAILS, FILE_ALONE_FAILS, PREDICTIONS, Quits
from tests.sdk.programs import CLIENTS, DIALECTS, Dialect
from tests.sdk.rows import DOWN, ROWS, Row

pytestmark = [pytest.mark.sdk, pytest.mark.process]

CELLS = [pytest.param(client, dialect, id=f"{client}-{dialect}") for client in CLIENTS for dialect in DIALECTS]
MET = [
    pytest.param(client, dialect, row, id=f"{client}-{dialect}-{row.name}")
    for client in CLIENTS
    for row in ROWS
    for dialect in row.codes
]
PATIENT = [client for client in CLIENTS if client not in play.CAPPED]
#: Shows: a cancel reaches these within so many seconds.
CANCEL = 5.0
NAMED = ("boto3", "go-v2", "js-v3", "java-v2")


@pytest.fixture(scope="session")
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Findings:
    """The whole play; its table is printed, and written where every client has played."""
    missing = [name for name in CLIENTS if not (outdir(name) / "run").exists()]
    if missing:
        pytest.fail(f"not built: {', '.join(missing)}. Run `make sdk`", pytrace=False)
    with short_directory() as directory:
        seen = play.played(directory, [(client, dialect) for client in CLIENTS for dialect in DIALECTS])
    with short_directory() as directory:
        clock = MovedClock.build(tmp_path_factory.mktemp("clock"))
        seen.lived |= play.unscaled(directory, UNSCALED, clock).lived
    assert table.whole(seen)
    (ROOT / "docs").mkdir(exist_ok=True)
    (ROOT / "docs/sdk-matrix.md").write_text(table.document(seen))
    request.config.stash[table.TABLE] = table.text(table.matrix(seen))
    return seen


@pytest.mark.parametrize(("client", "dialect"), CELLS)
def test_the_first_call(client: str, dialect: Dialect, found: Findings) -> None:
    """From the variables that `use` printed to a verified call, at once, with a key that was issued for it."""
    first = found.first[client, dialect]
    assert first.verified, first
    assert first.answer.arn in {None, f"arn:aws:sts::234567890123:assumed-role/LongOps/{client}-{dialect}-{play.LIFE}"}


def test_a_wrong_key_is_seen(found: Findings) -> None:
    """Positive control: a program with a key of its own has an answer of AWS and does not pass for one of ours."""
    assert found.control is not None
    assert found.control.answer.ok, found.control
    assert not found.control.verified


@pytest.mark.parametrize(("client", "dialect"), CELLS)
def test_three_expiries(client: str, dialect: Dialect, found: Findings) -> None:
    """Calls go on through more than three lives of the session: none fails, and new keys are taken up each time."""
    lived = found.lived[client, dialect]
    assert lived.failed == []
    assert lived.calls >= 4 * EXPIRIES
    assert len(lived.keys) >= EXPIRIES


@pytest.mark.parametrize(("client", "dialect", "row"), MET)
def test_an_error(client: str, dialect: Dialect, row: Row, found: Findings) -> None:
    """The row is met by a failed call, soon, by a program that lives on; its user reads our sentence as predicted."""
    met = found.met[client, dialect, row.name]
    expected = PREDICTIONS[client]
    assert met.truth.code == row.codes[dialect]
    assert not met.answer.ok
    assert met.answer.ended is None, met.answer
    assert met.answer.text
    assert met.answer.seconds <= _bound(expected.quits[dialect], met.truth.code)
    told = met.truth.code != DOWN.codes["ecs"]
    assert met.shows is (told and dialect in expected.shows), met.answer


def _bound(quits: Quits, code: str) -> float:
    return {"StsUnavailable": quits.unavailable, "refused": quits.down}.get(code, quits.refusal)


@pytest.mark.parametrize("row", [row for row in ROWS if row is not DOWN], ids=lambda row: row.name)
def test_an_error_says_what_to_type(row: Row, found: Findings) -> None:
    """Control of the rows themselves: the daemon's own sentence for each is not empty and has a command in it."""
    truths = {met.truth for (_, dialect, name), met in found.met.items() if name == row.name and dialect == "ecs"}
    assert truths
    assert all("`" in truth.message for truth in truths), truths


@pytest.mark.parametrize(("client", "dialect"), CELLS)
def test_proxies_in_the_environment(client: str, dialect: Dialect, found: Findings) -> None:
    """HTTP_PROXY and its kin name a proxy that answers nobody: NO_PROXY as `use` extends it keeps everybody off it."""
    assert found.odd[client, dialect, "proxies"].ok, found.odd[client, dialect, "proxies"]


def test_nobody_asked_the_proxy(found: Findings) -> None:
    """No credential request went to it; control: without NO_PROXY one does."""
    assert found.proxied == 0
    assert found.unguarded > 0


@pytest.mark.parametrize("client", CLIENTS)
def test_the_token_by_environment_alone(client: str, found: Findings) -> None:
    """Whoever knows the variable needs no file; object_store knows only the file (sdk-facts §10.6)."""
    answer = found.odd[client, "ecs", "without AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"]
    assert answer.ok is (client not in ENVIRONMENT_ALONE_FAILS), answer


@pytest.mark.parametrize("client", CLIENTS)
def test_the_token_by_file_alone(client: str, found: Findings) -> None:
    """Whoever knows the file needs no variable; the CLI of 2023 knows only the variable (sdk-facts §10.6)."""
    answer = found.odd[client, "ecs", "without AWS_CONTAINER_AUTHORIZATION_TOKEN"]
    assert answer.ok is (client not in FILE_ALONE_FAILS), answer


@pytest.mark.parametrize("client", CLIENTS)
def test_held_while_a_code_is_typed(client: str, found: Findings) -> None:
    """One request, held by drip, answered with keys: the first call succeeds and nothing was refused."""
    held = found.drip[client]
    assert held.answer.ok, held
    assert held.answer.seconds > SHORT / 2  # a CLI is some seconds late for its hold
    assert (held.serves, held.denials) == (1, 0)


@pytest.mark.parametrize("client", PATIENT)
def test_held_for_a_minute(client: str, found: Findings) -> None:
    """The same while a person looks for the phone."""
    held = found.long[client]
    assert held.answer.ok, held
    assert held.answer.seconds > LONG - SHORT
    assert (held.serves, held.denials) == (1, 0)


@pytest.mark.parametrize("client", PATIENT)
def test_held_and_cancelled(client: str, found: Findings) -> None:
    """Ctrl-C at the question: the call fails in 5 s, in words that are recorded; who asks again hears the reason."""
    held = found.cancelled[client]
    assert not held.answer.ok
    assert held.answer.ended is None, held
    assert held.answer.text
    assert held.after <= CANCEL, held
    assert held.serves == 0
    again = PREDICTIONS[client].asks_again
    assert (held.denials > 1) is again, held
    if client in NAMED:
        assert held.denials >= 1
