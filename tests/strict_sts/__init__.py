"""The strict STS emulator: the oracle of the scenarios. Its API is told in README.md."""

from tests.strict_sts.clocks import LogicalClock
from tests.strict_sts.knobs import READINGS
from tests.strict_sts.live import FRANKLIN, ROBOT, SERIAL, WORLD, StrictSts, StrictStsThread, role

__all__ = ["FRANKLIN", "READINGS", "ROBOT", "SERIAL", "WORLD", "LogicalClock", "StrictSts", "StrictStsThread", "role"]
