"""Token codes: shape, once only, six in ten minutes, over kill and restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes import FakeClock
from vaultd.errors import CodeSpent, InvalidCode, TooManyAttempts
from vaultd.files import Files
from vaultd.keeper.codes import Codes, six_digits
from vaultd.keeper.records import Records
from vaultd.model.secret import Secret
from vaultd.store.sealed_log import SealedLogFile

DEVICE = "arn:aws:iam::123456789012:mfa/franklin"
DATA_KEY = b"k" * 32


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


def opened(directory: Path, clock: FakeClock) -> Codes:
    """As after a start: nothing is in memory but what the log holds."""
    records = Records(SealedLogFile(Files(), directory / "sessions.sealed"))
    codes = Codes(records=records, clock=clock)
    codes.open(Secret(DATA_KEY), records.open(Secret(DATA_KEY)))
    return codes


@pytest.mark.parametrize(
    "text",
    [
        "12345",
        "1234567",
        "12a456",
        "",
        " ",
        "\u0661\u0662\u0663\u0664\u0665\u0666",
        "\uff11\uff12\uff13\uff14\uff15\uff16",
        "hunter2 horse",
        "-12345",
    ],
)
def test_only_six_ascii_digits_are_a_code(text: str) -> None:
    """aws-facts §1.4: botocore passes 7 digits, letters and Arabic-Indic digits; scenario A12."""
    with pytest.raises(InvalidCode) as refused:
        six_digits(Secret(text))

    assert refused.value.message == "the code must be six digits; type the six digits that the device shows"
    assert text.strip() == "" or text not in refused.value.message


@pytest.mark.parametrize("text", ["123456", " 123 456 ", "123\t456\n"])
def test_spaces_are_no_part_of_a_code(text: str) -> None:
    """Phones show `123 456`."""
    assert six_digits(Secret(text)).reveal() == "123456"


def test_a_code_goes_once_per_device(directory: Path, clock: FakeClock) -> None:
    """A second time is CodeSpent with the seconds to the next step; another device's equal code is another code."""
    codes = opened(directory, clock)
    codes.spend(DEVICE, Secret("123456"))
    clock.jump(7)

    with pytest.raises(CodeSpent) as refused:
        codes.spend(DEVICE, Secret("123456"))

    assert refused.value.details == {"retry_after_seconds": 23}
    assert refused.value.message == (f"that code of {DEVICE} was sent before; wait 23 s for the next one and type that")
    codes.spend(DEVICE, Secret("654321"))
    codes.spend("other", Secret("123456"))


@pytest.mark.parametrize("age", [1, 89, 91, 599])
def test_a_code_is_refused_after_a_restart_too(directory: Path, clock: FakeClock, age: int) -> None:
    """One in flight at a kill counts as sent: it is sealed before the call."""
    opened(directory, clock).spend(DEVICE, Secret("123456"))
    clock.jump(age)

    with pytest.raises(CodeSpent):
        opened(directory, clock).spend(DEVICE, Secret("123456"))


def test_codes_are_forgotten_after_ten_minutes(directory: Path, clock: FakeClock) -> None:
    """By then no device shows it; what is kept for ever would refuse a code that comes round again."""
    opened(directory, clock).spend(DEVICE, Secret("123456"))
    clock.jump(600)

    opened(directory, clock).spend(DEVICE, Secret("123456"))


@pytest.mark.parametrize("wall", [601, -601, 86400, -86400])
async def test_a_clock_that_is_set_frees_no_code(directory: Path, clock: FakeClock, wall: float) -> None:
    """A phone still shows it: only boottime makes it old, also over a lock; and then it is forgotten."""
    codes = opened(directory, clock)
    codes.spend(DEVICE, Secret("123456"))
    clock.jump(wall)
    with pytest.raises(CodeSpent):
        codes.spend(DEVICE, Secret("123456"))

    records = Records(SealedLogFile(Files(), directory / "sessions.sealed"))
    codes.close()
    codes.open(Secret(DATA_KEY), records.open(Secret(DATA_KEY)))
    with pytest.raises(CodeSpent):
        codes.spend(DEVICE, Secret("123456"))

    await clock.advance(1202)  # the wall clock may say 10 min twice: before that time, and after it
    codes.spend(DEVICE, Secret("123456"))


async def test_a_clock_that_was_years_ahead_locks_no_device(directory: Path, clock: FakeClock) -> None:
    """Entries of a far future are not remembered; those of a few minutes ahead are."""
    codes = opened(directory, clock)
    codes.spend(DEVICE, Secret("123456"))
    clock.jump(-60)
    with pytest.raises(CodeSpent):
        codes.spend(DEVICE, Secret("123456"))
    clock.jump(-3600)
    await clock.advance(600)

    codes.spend(DEVICE, Secret("123456"))


def test_only_two_throttlings_free_a_code(directory: Path, clock: FakeClock) -> None:
    """Row 13: a clean Throttling un-marks it, twice at most; a restart in between does not reset the count."""
    codes = opened(directory, clock)
    assert codes.unmark(codes.spend(DEVICE, Secret("123456")))
    codes = opened(directory, clock)
    assert codes.unmark(codes.spend(DEVICE, Secret("123456")))

    assert not codes.unmark(codes.spend(DEVICE, Secret("123456")))

    with pytest.raises(CodeSpent):
        codes.spend(DEVICE, Secret("123456"))


async def test_at_most_six_codes_in_ten_minutes(directory: Path, clock: FakeClock) -> None:
    """interface.md §3; the seventh names the seconds, an un-marked one does not count, another device is free."""
    codes = opened(directory, clock)
    codes.unmark(codes.spend(DEVICE, Secret("999999")))
    for number in range(6):
        codes.spend(DEVICE, Secret(f"00000{number}"))
        await clock.advance(30)

    with pytest.raises(TooManyAttempts) as refused:
        codes.spend(DEVICE, Secret("000009"))

    assert refused.value.details == {"retry_after_seconds": 421}
    assert refused.value.message == (
        f"6 codes were sent for {DEVICE} in 10 minutes; wait 421 s, then run `vault-client mfa`"
    )
    codes.spend("other", Secret("000009"))
    await clock.advance(421)
    codes.spend(DEVICE, Secret("000009"))


def test_the_code_itself_is_nowhere(directory: Path, clock: FakeClock) -> None:
    """The log's plain text holds a MAC under the data key, which a list of all million codes does not open."""
    codes = opened(directory, clock)
    codes.spend(DEVICE, Secret("731846"))

    living = SealedLogFile(Files(), directory / "sessions.sealed").open(Secret(DATA_KEY))

    assert set(living) == {"codes", f"codes:{DEVICE}"}
    assert b"731846" not in living[f"codes:{DEVICE}"]
    assert "731846" not in repr(codes._sent)
