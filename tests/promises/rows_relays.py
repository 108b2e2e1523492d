"""T6: a container or machine behind a relay of yours. T7: a server of yours that is made to fetch URLs.

Rule: a constant of the product that a row is about (a cost, a time, a list) is written out in its test, since a test
that imports it follows the break.
"""

from __future__ import annotations

from typing import Final

from tests.promises.promise import Break, Promise

_ATTESTATION: Final = "vaultd/engine/attestation.py"
_PROGRAMS: Final = "vaultd/model/programs.py"
_HOLDERS: Final = "vaultd/host/holders.py"
_GUARD: Final = "vaultd/web/guard.py"
_IMDS: Final = "vaultd/web/imds.py"
_METADATA: Final = "vaultd/model/metadata_tokens.py"
_WEB: Final = "tests/web/test_attestation.py::"
_REAL: Final = "tests/process/test_attestation.py::"
_DOOR: Final = "tests/web/test_imds.py::"
_CASE: Final = "tests/adversary/test_cases.py::test_case"

_T6: Final = (
    Promise(
        "T6-relay-refused",
        "A program whose name is a known relay's gets no keys, unless the profile allows it.",
        "vaultd/model/programs.py: Policy.refused_relay",
        (f"{_WEB}test_the_table_of_policies", f"{_REAL}test_relays_are_refused_unless_a_profile_allows_one"),
        (Break(_PROGRAMS, "each not in self.relays), None)", "False), None)"),),
    ),
    Promise(
        "T6-one-relay-allowed",
        "`relays` allows the families that it names, and no other.",
        "vaultd/model/programs.py: Policy.refused_relay",
        (f"{_WEB}test_the_table_of_policies",),
        (Break(_PROGRAMS, "and each not in self.relays", "and not self.relays"),),
    ),
    Promise(
        "T6-relay-list",
        "The relays of security.md §5 are known, each by the names that it really has.",
        "vaultd/model/programs.py: RELAYS",
        (f"{_WEB}test_relays_are_told_by_name",),
        (Break(_PROGRAMS, '    "gvproxy": ("gvproxy*",),\n', ""),),
    ),
    Promise(
        "T6-relay-by-script",
        "A relay that is a script under an interpreter is one by its script's name.",
        "vaultd/model/programs.py: Program.__post_init__",
        (f"{_WEB}test_relays_are_told_by_name", f"{_REAL}test_relays_are_refused_unless_a_profile_allows_one"),
        (
            Break(
                _PROGRAMS,
                "relay_family(self.name) or (relay_family(name_of(self.script)) if self.script else None)",
                "relay_family(self.name)",
            ),
        ),
    ),
    Promise(
        "T6-hidden-relay",
        "A process that may not be looked into counts as the relay whose name it has.",
        "vaultd/model/programs.py: Policy.refused_relay; vaultd/host/holders.py: Holders.look",
        (f"{_WEB}test_the_table_of_policies",),
        (Break(_PROGRAMS, "map(relay_family, found.hidden) if known is None", "() if known is None"),),
    ),
    Promise(
        "T6-hidden-told",
        "A client that is not dumpable is told by its name, as a possibility.",
        "vaultd/host/holders.py: _bounded",
        ("tests/host/test_holders.py::test_what_hides_is_told_by_name_as_a_possibility",),
        (Break(_HOLDERS, "                unseen.add(name)\n", "                continue\n"),),
    ),
    Promise(
        "T6-more-rights",
        "So is one with more rights than the daemon, whose descriptors can be listed and not read.",
        "vaultd/host/holders.py: _sockets",
        ("tests/host/test_holders.py::test_who_lets_only_list_his_descriptors_hides_as_well",),
        (Break(_HOLDERS, "            except FileNotFoundError:\n", "            except OSError:\n"),),
    ),
    Promise(
        "T6-relays-first",
        "Nobody fills a scan in front of a relay: what has a relay's name is looked at before all others.",
        "vaultd/host/holders.py: _descriptors",
        ("tests/host/test_holders.py::test_nobody_is_in_the_way_of_a_relay",),
        (Break(_HOLDERS, "        if may_relay(name_of(_exe_of(pid))):\n", "        if False:\n"),),
    ),
    Promise(
        "T6-relay-not-reached",
        "A relay that a scan did not come to is a possibility, and not nobody.",
        "vaultd/host/holders.py: _descriptors",
        ("tests/host/test_holders.py::test_a_relay_that_was_not_looked_through_is_a_possibility",),
        (Break(_HOLDERS, "    unseen.update(name_of(_exe_of(pid)) for pid in cut)\n", ""),),
    ),
    Promise(
        "T6-attested-on-the-endpoint",
        "Before keys go out on the credential endpoint, the program behind the connection is looked at.",
        "vaultd/web/ecs.py: Credentials.made",
        (f"{_WEB}test_the_table_of_policies",),
        (
            Break(
                "vaultd/web/ecs.py",
                "        left = await self._serving.admitted(grant, plan, sighting, patience=PATIENCE)\n",
                "        left = PATIENCE\n",
            ),
        ),
    ),
    Promise(
        "T6-attested-at-the-door",
        "The same at a metadata door, whose token says nothing of the program.",
        "vaultd/web/imds.py: DoorSide._made",
        (f"{_REAL}test_a_door_refuses_relays_where_keys_are",),
        (
            Break(
                _IMDS,
                "        left = await serving.admitted(self._grant, plan, sighting, patience=PATIENCE)\n",
                "        left = PATIENCE\n",
            ),
        ),
    ),
    Promise(
        "T6-attested-on-the-control-socket",
        "The same for keys that go to a caller of the control socket (`export`, `credential-process`, `login`).",
        "vaultd/web/routes/profiles.py: Profiles._admit",
        (
            f"{_REAL}test_listed_programs_alone",
            f"{_REAL}test_export_of_a_protected_profile_asks",
            "tests/web/test_signin.py::test_a_program_that_may_not",
        ),
        (
            Break(
                "vaultd/web/routes/profiles.py",
                "await self._rooms.attestation.admit_caller(plan, caller(request))",
                "pass",
            ),
        ),
    ),
    Promise(
        "T6-known-relay",
        "A relay that called before is refused without a new look-up.",
        "vaultd/engine/attestation.py: Attestation.clears",
        (f"{_WEB}test_a_known_program_costs_no_scan",),
        (Break(_ATTESTATION, "if program.relay is not None:", "if False:"),),
    ),
    Promise(
        "T6-execve",
        "A process that has become another program by execve is looked at anew on its next connection.",
        "vaultd/host/holders.py: Holders._again",
        ("tests/host/test_holders.py::test_another_program_by_execve_is_not_taken_for_the_old",),
        (Break(_HOLDERS, 'if _link(pinned.directory, "exe") != pinned.program.exe:', "if False:"),),
    ),
    Promise(
        "T6-allow-list",
        "With `allow_executables` no other program gets keys.",
        "vaultd/engine/attestation.py: Attestation._judge",
        (f"{_WEB}test_the_table_of_policies", f"{_REAL}test_listed_programs_alone"),
        (Break(_ATTESTATION, "            if not listed:\n", "            if False:\n"),),
    ),
    Promise(
        "T6-allow-list-by-file",
        "An entry means the file at that path: another one of the same name is another program.",
        "vaultd/lifecycle/clients.py: Clients.listed",
        (f"{_REAL}test_listed_programs_alone",),
        (
            Break(
                "vaultd/lifecycle/clients.py",
                "any(file_id(each) in own for each in entries)",
                "any(each.rpartition('/')[2] == program.path.rpartition('/')[2] for each in entries)",
            ),
        ),
    ),
    Promise(
        "T6-untold-refused",
        "With `allow_executables` or `protected` a program that cannot be told is refused.",
        "vaultd/engine/attestation.py: Attestation._judge, Attestation._still_passed",
        (f"{_WEB}test_the_table_of_policies", f"{_WEB}test_a_look_that_fails_is_one_that_finds_nobody"),
        (
            Break(_ATTESTATION, "            raise _untold(plan.profile)\n", "            return\n"),
            Break(
                _ATTESTATION, "if badge.passed != grant_id or badge.program is None:", "if badge.passed != grant_id:"
            ),
        ),
        "Two edits: who is admitted is asked for once more when the session is made.",
    ),
)

_T7: Final = (
    Promise(
        "T7-no-imdsv1",
        "Every GET at a door needs a live metadata token: IMDSv1 is never answered.",
        "vaultd/web/imds.py: DoorSide._entered",
        (f"{_DOOR}test_a_get_without_a_live_token_is_401", f"{_CASE}[T7-imdsv1-keys]"),
        (
            Break(
                _IMDS,
                "if not metadata_tokens.check(",
                "if token and not metadata_tokens.check(",
            ),
        ),
    ),
    Promise(
        "T7-ttl-required",
        "A PUT without a TTL gets no metadata token.",
        "vaultd/web/imds.py: DoorSide._token",
        (f"{_DOOR}test_a_bad_ttl_is_400",),
        (Break(_IMDS, "<= _TTL_DIGITS else 0", "<= _TTL_DIGITS else metadata_tokens.LONGEST_TTL"),),
    ),
    Promise(
        "T7-ttl-bounds",
        "A TTL is from 1 to 21,600 seconds.",
        "vaultd/web/imds.py: DoorSide._token",
        (f"{_DOOR}test_a_bad_ttl_is_400",),
        (Break(_IMDS, "if not 1 <= ttl <= metadata_tokens.LONGEST_TTL:", "if not 1 <= ttl:"),),
    ),
    Promise(
        "T7-put-only",
        "A metadata token is given for a PUT alone, which a page's or a server's plain GET is not.",
        "vaultd/web/imds.py: DoorSide._token",
        (f"{_DOOR}test_the_token_path_is_put_only",),
        (Break(_IMDS, 'if message.method != "PUT":', 'if message.method not in {"PUT", "POST", "GET"}:'),),
    ),
    Promise(
        "T7-metadata-token-genuine",
        "A metadata token is a MAC under the key of its own door.",
        "vaultd/model/metadata_tokens.py: check",
        (
            "tests/model/test_metadata_tokens.py::test_a_token_is_of_one_key",
            f"{_DOOR}test_a_token_of_another_door_is_401",
        ),
        (Break(_METADATA, "genuine = hmac.compare_digest(_token(key, claim), token)", "genuine = True"),),
    ),
    Promise(
        "T7-metadata-token-ends",
        "A metadata token ends with its TTL.",
        "vaultd/model/metadata_tokens.py: check",
        (f"{_DOOR}test_a_token_ends_with_its_ttl",),
        (Break(_METADATA, " and now.timestamp() < expiry", ""),),
    ),
    Promise(
        "T7-one-metadata-token",
        "Two metadata tokens in one request are none.",
        "vaultd/web/imds.py: _only",
        (f"{_DOOR}test_two_tokens_are_none", f"{_DOOR}test_two_ttls_are_400"),
        (Break(_IMDS, "return found[0] if len(found) == 1", "return found[0] if found"),),
    ),
    Promise(
        "T7-forwarded-headers",
        "A request with X-Forwarded-*, X-Real-IP, Forwarded or Via is refused, even with an empty value.",
        "vaultd/web/guard.py: BROWSER_HEADERS, BROWSER_PREFIXES",
        (f"{_DOOR}test_a_forwarded_request_is_400_on_put_and_403_on_get",),
        (
            Break(
                _GUARD, 'b"upgrade", b"x-real-ip", b"forwarded", b"via"})', 'b"upgrade", b"x-real-ip", b"forwarded"})'
            ),
        ),
    ),
    Promise(
        "T7-forwarded-prefix",
        "X-Forwarded-For is only one of them: whatever begins so is refused.",
        "vaultd/web/guard.py: Guard.refusal",
        (
            f"{_DOOR}test_a_forwarded_request_is_400_on_put_and_403_on_get",
            "tests/web/test_guard.py::test_browser_headers_property",
        ),
        (Break(_GUARD, "or name.startswith(BROWSER_PREFIXES)", 'or name == b"x-forwarded-for"'),),
    ),
    Promise(
        "T7-forwarded-on-every-method",
        "That is so on GET as on PUT, with a live token as without.",
        "vaultd/web/imds.py: DoorSide._decided",
        (f"{_DOOR}test_a_forwarded_request_is_400_on_put_and_403_on_get", f"{_CASE}[T7-get-x-forwarded-for]"),
        (
            Break(
                _IMDS,
                "if (refusal := self._guard.refusal(message)) is not None:",
                'if message.method == "PUT" and (refusal := self._guard.refusal(message)) is not None:',
            ),
        ),
    ),
    Promise(
        "T7-exact-path",
        "A path is compared byte for byte: a query, an escape or a dot segment reaches nothing.",
        "vaultd/web/app.py: _is_credentials",
        ("tests/web/test_app.py::test_path_is_compared_byte_for_byte",),
        (Break("vaultd/web/app.py", "bool(_SLUG.fullmatch(slug))", 'bool(_SLUG.fullmatch(slug.partition("?")[0]))'),),
    ),
)

PROMISES: Final[tuple[Promise, ...]] = (*_T6, *_T7)
