"""Every case, in one place: `python -m tests.adversary.cases` writes them as JSON, for whoever checks a document."""

from __future__ import annotations

import json

from tests.adversary import (
    t01_other_user_tcp,
    t02_other_user_unix,
    t03_squatting,
    t04_web_page,
    t05_network,
    t06_relays,
    t07_ssrf,
    t08_same_user,
    t09_stolen_disk,
    t10_leaks,
    t11_hostile_config,
    t12_supply_chain,
    t13_wrong_role,
)
from tests.adversary.case import Case

CASES: tuple[Case, ...] = (
    *t01_other_user_tcp.CASES,
    *t02_other_user_unix.CASES,
    *t03_squatting.CASES,
    *t04_web_page.CASES,
    *t05_network.CASES,
    *t06_relays.CASES,
    *t07_ssrf.CASES,
    *t08_same_user.CASES,
    *t09_stolen_disk.CASES,
    *t10_leaks.CASES,
    *t11_hostile_config.CASES,
    *t12_supply_chain.CASES,
    *t13_wrong_role.CASES,
)

if __name__ == "__main__":
    print(json.dumps([each.row() for each in CASES], indent=1))
