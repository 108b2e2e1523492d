"""One attack as a value: what is promised, to whom it is denied, the attack itself, and what proves that it works.

Rule: an attack returns the bytes that it gained, b"" for none. `control` is the same attack where the protection is
absent (the owner's uid, a server of the tests' own without the check, a program that is not hardened) and must gain
something, else the attack proves nothing. A `residual` is what we openly cannot prevent: there the attack must gain,
and the control must not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.adversary.ground import Ground

#: What it gained.
Attack = Callable[[Ground], bytes]


@dataclass(frozen=True)
class Case:
    name: str
    #: T1 to T13 of security.md §1.
    threat: str
    promise: str
    attack: Attack
    #: In words: where the protection is absent, and what the same attack then gets.
    shows: str
    control: Attack
    residual: bool = False

    @property
    def test(self) -> str:
        return f"tests/adversary/test_cases.py::test_case[{self.name}]"

    def row(self) -> dict[str, str | bool]:
        """For whoever checks a table against the tests."""
        return {
            "case": self.name,
            "threat": self.threat,
            "promise": self.promise,
            "control": self.shows,
            "test": self.test,
            "residual": self.residual,
        }


def once(control: Attack) -> Attack:
    """For a control that starts daemons of its own: what it gains is the same for every case that shares it."""

    def act(ground: Ground) -> bytes:
        if control not in ground.proven:
            ground.proven[control] = control(ground)
        return ground.proven[control]

    return act
