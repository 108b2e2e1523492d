"""T8: code that runs as you: what a person has to allow, what is closed to it, and what it leaves behind.

Rule: a constant of the product that a row is about (a cost, a time, a list) is written out in its test, since a test
that imports it follows the break.
"""

from __future__ import annotations

from typing import Final

from tests.promises.promise import Break, Promise

_ATTESTATION: Final = "vaultd/engine/attestation.py"
_CONSENTS: Final = "vaultd/engine/consents.py"
_DESK: Final = "vaultd/engine/desk.py"
_PROGRAMS: Final = "vaultd/model/programs.py"
_HOLDERS: Final = "vaultd/host/holders.py"
_PROCESSES: Final = "vaultd/host/processes.py"
_HARDENING: Final = "vaultd/host/hardening.py"
_WEB: Final = "tests/web/test_attestation.py::"
_REAL: Final = "tests/process/test_attestation.py::"
_DOOR: Final = "tests/web/test_imds.py::"
_HARD: Final = "tests/host/test_hardening.py::"
_CASE: Final = "tests/adversary/test_cases.py::test_case"

_T8: Final = (
    Promise(
        "T8-protected",
        "A program gets a protected profile's keys after a person has allowed it, and not before.",
        "vaultd/engine/attestation.py: Attestation._judge, Attestation._still_passed",
        (f"{_WEB}test_the_table_of_policies", f"{_REAL}test_a_person_confirms_each_program_once"),
        (
            Break(
                _ATTESTATION,
                "            await self._ask(plan, found.program, stays=stays, locks=locks)\n",
                "            return\n",
            ),
            Break(
                _ATTESTATION,
                "return not policy.protected or self._desk.consents.hold((profile, badge.program.key))",
                "return True",
            ),
        ),
        "Two edits: the yes is looked at once more when the session is made.",
    ),
    Promise(
        "T8-explicit-yes",
        "Only an explicit yes allows: an empty line, a code or anything else is a no.",
        "client/vault_client/ask.py: _decided; client/vault_client/terminal.py: Terminal.understood",
        ("tests/client/test_ask.py::test_only_an_explicit_yes_allows",),
        (
            Break(
                "client/vault_client/terminal.py",
                '_YES = frozenset({"y", "yes"})',
                '_YES = frozenset({"y", "yes", ""})',
            ),
        ),
    ),
    Promise(
        "T8-code-is-no-consent",
        "A token code answers no question of yes or no.",
        "vaultd/engine/desk.py: Desk.answer",
        (f"{_WEB}test_a_no_cools_down_and_only_codes_take_codes",),
        (
            Break(
                _DESK,
                "        if found.on_code is None:\n",
                "        if found.on_code is None:\n"
                "            return self.decide(question_id, allow=True, by=by)\n"
                "        if found.on_code is None:\n",
            ),
        ),
    ),
    Promise(
        "T8-token-code-is-no-yes",
        "Nor does `--token-code`, given to a command before it knew what would be asked.",
        "client/vault_client/ask.py: settled",
        ("tests/client/test_ask.py::test_a_code_is_no_consent",),
        (
            Break(
                "client/vault_client/ask.py",
                "if token_code is None or consents(refusal.prompt):",
                "if token_code is None:",
            ),
        ),
    ),
    Promise(
        "T8-consent-of-one-program",
        "A yes is for one file as it is: the same path with other bytes is asked about anew.",
        "vaultd/model/programs.py: Program.key",
        (f"{_WEB}test_a_yes_is_for_one_program_until_a_lock_or_eight_hours",),
        (
            Break(
                _PROGRAMS, "return self.exe, self.file, self.script, self.script_file", "return self.exe, self.script"
            ),
        ),
    ),
    Promise(
        "T8-consent-of-one-script",
        "A yes for an interpreter is for the script that it ran.",
        "vaultd/model/programs.py: Program.key",
        (f"{_WEB}test_a_yes_is_for_one_program_until_a_lock_or_eight_hours",),
        (Break(_PROGRAMS, "return self.exe, self.file, self.script, self.script_file", "return self.exe, self.file"),),
    ),
    Promise(
        "T8-file-identity",
        "A program's file is told by device, inode, change time and size, so bytes written anew make another program.",
        "vaultd/host/holders.py: file_id",
        ("tests/host/test_holders.py::test_a_scan_finds_the_holder_and_what_it_runs",),
        (Break(_HOLDERS, "found.st_ctime_ns, found.st_size", "0, found.st_size"),),
    ),
    Promise(
        "T8-consent-of-8-hours",
        "A yes ends after 8 hours, suspended ones included.",
        "vaultd/engine/consents.py: Consents.hold",
        (f"{_WEB}test_a_yes_is_for_one_program_until_a_lock_or_eight_hours",),
        (Break(_CONSENTS, "SECONDS: Final = 8 * 3600.0", "SECONDS: Final = 24 * 3600.0"),),
    ),
    Promise(
        "T8-consent-until-lock",
        "A lock ends every yes.",
        "vaultd/engine/desk.py: Desk.lock",
        (
            f"{_WEB}test_a_yes_is_for_one_program_until_a_lock_or_eight_hours",
            f"{_REAL}test_a_person_confirms_each_program_once",
        ),
        (Break(_DESK, "        self.consents.drop()\n", ""),),
    ),
    Promise(
        "T8-consent-each-request",
        "On a kept connection the yes is looked at with each request.",
        "vaultd/engine/attestation.py: Attestation._still_passed",
        (f"{_WEB}test_a_yes_is_for_one_program_until_a_lock_or_eight_hours",),
        (
            Break(
                _ATTESTATION,
                "return not policy.protected or self._desk.consents.hold((profile, badge.program.key))",
                "return True",
            ),
        ),
    ),
    Promise(
        "T6-late-look-up",
        "Nobody is served on the chance while it is looked who asks: a look-up that is late is 503, and goes on.",
        "vaultd/engine/attestation.py: Attestation.admit",
        (f"{_WEB}test_a_look_that_takes_too_long",),
        (
            Break(
                _ATTESTATION,
                "        if found is None:\n            raise _late(plan.profile)\n",
                "        if found is None:\n            return\n",
            ),
        ),
    ),
    Promise(
        "T6-look-up-that-hangs",
        "A look-up that hangs is left behind after 3 s, so that it ends nobody's work.",
        "vaultd/engine/attestation.py: Attestation._in_time, HANGS",
        (f"{_WEB}test_a_look_that_hangs_ends_nobodys_work",),
        (Break(_ATTESTATION, "if self._clock.boottime() - began >= HANGS:", "if False:"),),
    ),
    Promise(
        "T8-pinned-holder",
        "What was read of a process counts only if it still holds the socket afterwards.",
        "vaultd/host/holders.py: _pin",
        ("tests/host/test_holders.py::test_what_was_read_counts_for_who_holds_the_socket_afterwards",),
        (
            Break(
                _HOLDERS,
                'if program is None or any(_link(directory, f"fd/{place}") != link for link, place in held.items()):',
                "if program is None:",
            ),
        ),
    ),
    Promise(
        "T8-reused-pid",
        "A pid whose start time is another is another process: for a grant's end, and for a caller's program.",
        "vaultd/host/processes.py: alive, look; vaultd/host/holders.py: program_of",
        ("tests/host/test_processes.py::test_another_start_time_is_another_process",),
        (Break(_PROCESSES, "int(stat[_START]) == started and stat[_STATE]", "stat[_STATE]"),),
    ),
    Promise(
        "T8-reused-pid-of-a-caller",
        "The program of a caller on the control socket is read of the process that connected, or not at all.",
        "vaultd/host/holders.py: program_of",
        ("tests/host/test_holders.py::test_a_scan_finds_the_holder_and_what_it_runs",),
        (Break(_HOLDERS, "if program is not None and program.peer.started == started:", "if program is not None:"),),
    ),
    Promise(
        "T8-reused-pid-while-read",
        "A pid that changes hands while it is read is nobody.",
        "vaultd/host/processes.py: look",
        ("tests/host/test_processes.py::test_a_pid_that_changes_hands_while_it_is_read_is_nobody",),
        (Break(_PROCESSES, "return peer if start_time(pid) == started else None", "return peer"),),
    ),
    Promise(
        "T8-not-dumpable",
        "Memory, environment and descriptors of daemon and keeper are closed to your other programs.",
        "vaultd/host/hardening.py: harden",
        (f"{_HARD}test_another_process_of_the_same_user_reads_nothing", f"{_CASE}[T8-memory]"),
        (Break(_HARDENING, "    _no_dump(warnings)\n", ""),),
    ),
    Promise(
        "T8-daemon-hardened",
        "The daemon hardens itself before it reads a setting or opens anything.",
        "vaultd/lifecycle/foreground.py: main",
        ("tests/process/test_keeper.py::test_neither_may_be_read_and_neither_leaves_a_core",),
        (
            Break(
                "vaultd/lifecycle/foreground.py",
                "hardened = hardening.harden()",
                "hardened = hardening.Hardened(hardening.captured(os.environ), ())",
            ),
        ),
    ),
    Promise(
        "T8-every-serve-has-a-line",
        "Keys that go out are in the audit log, with pid, executable and start time of who got them.",
        "vaultd/web/serving.py: Serving._sent",
        (f"{_DOOR}test_a_serve_is_audited_and_stamps_the_grant", f"{_CASE}[T8-every-key-leaves-a-line]"),
        (
            Break(
                "vaultd/web/serving.py",
                "        audit.served(grant=served.grant, session=served.session, sighting=sighting, "
                "identity=served.plan.identity)\n",
                "",
            ),
        ),
    ),
)

PROMISES: Final[tuple[Promise, ...]] = _T8
