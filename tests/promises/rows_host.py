"""T6 to T10: relays, servers that fetch URLs, code that runs as you, a stolen disk, and what lies about.

Rule: as in promise.py. Constants of the product that a row is about (a cost, a time, a list) are written out in its
test, since a test that imports them follows the break.
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
_GUARD: Final = "vaultd/web/guard.py"
_IMDS: Final = "vaultd/web/imds.py"
_METADATA: Final = "vaultd/model/metadata_tokens.py"
_FORMAT: Final = "vaultd/store/sealed_format.py"
_LOG: Final = "vaultd/store/sealed_log.py"
_LOGS: Final = "vaultd/logs.py"
_SECRET: Final = "vaultd/model/secret.py"
_FILES: Final = "vaultd/files.py"

_WEB: Final = "tests/web/test_attestation.py::"
_REAL: Final = "tests/process/test_attestation.py::"
_DOOR: Final = "tests/web/test_imds.py::"
_HARD: Final = "tests/host/test_hardening.py::"
_SEALED: Final = "tests/store/test_sealed_file.py::"
_SESSIONS: Final = "tests/store/test_sealed_log.py::"
_LEAKS: Final = "tests/leaks/test_seeded.py::"
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
                "        left = PATIENCE - await self._serving.admitted(grant, plan, sighting)\n",
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
                "        left = PATIENCE - await serving.admitted(self._grant, plan, sighting)\n",
                "        left = PATIENCE\n",
            ),
        ),
    ),
    Promise(
        "T6-attested-on-the-control-socket",
        "The same for keys that go to a caller of the control socket (`export`, `credential-process`).",
        "vaultd/web/routes/profiles.py: Profiles._admit",
        (f"{_REAL}test_listed_programs_alone", f"{_REAL}test_export_of_a_protected_profile_asks"),
        (
            Break(
                "vaultd/web/routes/profiles.py",
                "        await self._admit(request, plan)\n",
                "",
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
        (Break(_ATTESTATION, "if policy.allow is not None and not await", "if False and not await"),),
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
        "vaultd/engine/attestation.py: Attestation._judge",
        (f"{_WEB}test_the_table_of_policies", f"{_WEB}test_a_look_that_takes_too_long"),
        (Break(_ATTESTATION, "            raise _untold(plan.profile)\n", "            return\n"),),
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

_T8: Final = (
    Promise(
        "T8-protected",
        "A program gets a protected profile's keys after a person has allowed it, and not before.",
        "vaultd/engine/attestation.py: Attestation._judge",
        (f"{_WEB}test_the_table_of_policies", f"{_REAL}test_a_person_confirms_each_program_once"),
        (
            Break(
                _ATTESTATION, "            await self._ask(plan, found.program, stays=stays)\n", "            return\n"
            ),
        ),
    ),
    Promise(
        "T8-explicit-yes",
        "Only an explicit yes allows: an empty line, a code or anything else is a no.",
        "client/vault_client/ask.py: _decided",
        ("tests/client/test_ask.py::test_only_an_explicit_yes_allows",),
        (Break("client/vault_client/ask.py", '_YES = frozenset({"y", "yes"})', '_YES = frozenset({"y", "yes", ""})'),),
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
        (Break(_ATTESTATION, "            raise _late(plan.profile)\n", "            return\n"),),
    ),
    Promise(
        "T6-look-up-that-hangs",
        "A look-up that hangs counts after 3 s as one that finds nobody, so that it ends nobody's work.",
        "vaultd/engine/attestation.py: Attestation._look, HANGS",
        (f"{_WEB}test_a_look_that_hangs_ends_nobodys_work",),
        (Break(_ATTESTATION, "None if waited < HANGS else {}", "None"),),
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

_T9: Final = (
    Promise(
        "T9-argon2id-cost",
        "A new store's key is derived with Argon2id, 64 MiB, t=3, p=4.",
        "vaultd/store/sealed_format.py: DEFAULT",
        (f"{_SEALED}test_a_new_store_costs_what_rfc_9106_says",),
        (
            Break(
                _FORMAT,
                "DEFAULT = Kdf(ARGON2ID, m=64 * 1024, t=3, p=4)",
                "DEFAULT = Kdf(ARGON2ID, m=19 * 1024, t=2, p=1)",
            ),
        ),
    ),
    Promise(
        "T9-bounds-before-the-kdf",
        "The header's cost is bounded before anything is derived: neither 16 GiB nor a cheap key is taken.",
        "vaultd/store/sealed_format.py: read_header",
        (f"{_SEALED}test_bounds_hold_before_anything_is_derived",),
        (Break(_FORMAT, "    kdf = Kdf(kind, m, t, p)\n    kdf.check()\n", "    kdf = Kdf(kind, m, t, p)\n"),),
    ),
    Promise(
        "T9-bounds-at-the-kdf",
        "What derives checks the bounds once more, whoever calls it.",
        "vaultd/store/sealed_format.py: derive",
        (f"{_SEALED}test_bounds_hold_before_anything_is_derived",),
        (Break(_FORMAT, "    kdf.check()\n    phrase =", "    phrase ="),),
    ),
    Promise(
        "T9-passphrase-tag",
        "A wrong passphrase is told from damage by a commitment to the key, and opens nothing.",
        "vaultd/store/sealed_format.py: open_items",
        (f"{_SEALED}test_a_wrong_passphrase_is_not_damage",),
        (Break(_FORMAT, "        raise NotTheKey\n", "        pass\n"),),
    ),
    Promise(
        "T9-header-tag",
        "A header that was forged by someone without the passphrase is refused.",
        "vaultd/store/sealed_format.py: open_items, _bound",
        (f"{_SEALED}test_a_forged_header_is_a_typed_error",),
        (
            Break(_FORMAT, '        raise Malformed("its header is forged")\n', "        pass\n"),
            Break(_FORMAT, "    return digest + _COUNT.pack(place)", "    return _COUNT.pack(place)"),
        ),
        "Two edits: behind the header's tag every record is bound to the header's hash.",
    ),
    Promise(
        "T9-record-place",
        "A record of the store opens at its own place only: not copied over another, swapped or repeated.",
        "vaultd/store/sealed_format.py: _bound",
        (f"{_SEALED}test_a_record_opens_at_its_own_place_only",),
        (Break(_FORMAT, "return digest + _COUNT.pack(place) + uuid", "return digest + uuid"),),
    ),
    Promise(
        "T9-record-count",
        "None is dropped or added: the count is sealed too.",
        "vaultd/store/sealed_format.py: _open_records",
        (f"{_SEALED}test_every_shorter_or_longer_file_is_damage",),
        (Break(_FORMAT, "    if start != len(content):\n", "    if False:\n"),),
    ),
    Promise(
        "T9-key-of-one-version",
        "Each version of the store has a data key of its own, so an older version's record does not open in it.",
        "vaultd/store/sealed_format.py: render",
        (f"{_SEALED}test_every_rewrite_has_a_new_data_key",),
        (
            Break(
                _FORMAT,
                "data_key, nonce = secrets.token_bytes(32), secrets.token_bytes(12)",
                "data_key, nonce = bytes(32), bytes(12)",
            ),
        ),
    ),
    Promise(
        "T9-sessions-sealed",
        "Sessions on disk are sealed, their names too.",
        "vaultd/store/sealed_log.py: _Seal.record",
        (f"{_SESSIONS}test_nothing_is_readable_on_disk", f"{_CASE}[T9-session-secrets]"),
        (
            Break(_LOG, "nonce + self._cipher.encrypt(nonce, plain, self._bound(seq))", "nonce + plain + bytes(_TAG)"),
            Break(
                _LOG,
                "            plain = self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], self._bound(seq))\n",
                "            plain = sealed[_NONCE:-_TAG]\n",
            ),
        ),
        "Two edits, as what is not sealed has to be read as such.",
    ),
    Promise(
        "T9-sessions-of-one-store",
        "Sealed sessions open under their own store's data key alone.",
        "vaultd/store/sealed_log.py: _cipher",
        (f"{_SESSIONS}test_another_data_key_opens_nothing",),
        (Break(_LOG, "derive.derive(data_key.reveal_bytes())", "derive.derive(bytes(32))"),),
    ),
    Promise(
        "T9-session-place",
        "A sealed session does not move, repeat or vanish within its file.",
        "vaultd/store/sealed_log.py: _Seal._bound",
        (f"{_SESSIONS}test_records_do_not_move",),
        (Break(_LOG, 'return self._id + seq.to_bytes(8, "little")', "return self._id"),),
    ),
    Promise(
        "T9-dropped-sessions-leave",
        "What was cleared leaves the disk.",
        "vaultd/keeper/keeper.py: Keeper.note",
        ("tests/keeper/test_mint.py::test_clear_takes_sessions_off_the_disk",),
        (
            Break(
                "vaultd/keeper/keeper.py",
                "            self._sessions.drop(lambda handle: handle.identity == note.cell)\n"
                "            self._records.compact()\n",
                "            self._sessions.drop(lambda handle: handle.identity == note.cell)\n",
            ),
        ),
    ),
    Promise(
        "T9-keys-forgotten",
        "A store that is shut keeps neither passphrase nor key in memory.",
        "vaultd/store/sealed_file.py: SealedFile.close",
        (f"{_SEALED}test_a_shut_store_gives_nothing",),
        (Break("vaultd/store/sealed_file.py", "            self._state.keys.wipe()\n", ""),),
    ),
)

_T10: Final = (
    Promise(
        "T10-no-core",
        "Neither process may leave a core file.",
        "vaultd/host/hardening.py: _no_core",
        (
            f"{_HARD}test_harden_leaves_no_core_no_dump_and_private_files",
            "tests/process/test_canaries.py::test_a_crash_leaves_no_core",
        ),
        (
            Break(
                _HARDENING,
                "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))",
                "resource.getrlimit(resource.RLIMIT_CORE)",
            ),
        ),
    ),
    Promise(
        "T10-umask",
        "A file that a library of ours makes is 0600.",
        "vaultd/host/hardening.py: harden",
        (f"{_HARD}test_harden_leaves_no_core_no_dump_and_private_files",),
        (Break(_HARDENING, "os.umask(0o077)", "os.umask(0o022)"),),
    ),
    Promise(
        "T10-environment-given",
        "The background daemon is started with the few variables that it reads: not with your keys.",
        "vaultd/host/hardening.py: handed_on",
        (
            f"{_HARD}test_what_a_daemon_in_the_background_is_started_with",
            "tests/process/test_canaries.py::test_the_callers_keys_are_not_given_to_the_daemon",
        ),
        (Break(_HARDENING, "return {**captured(dict(environ)), **_loader(environ)}", "return dict(environ)"),),
    ),
    Promise(
        "T10-environment-at-start",
        "`vaultd start` starts it so, whatever the shell holds that it is typed in.",
        "vaultd/command/spawning.py: spawned",
        ("tests/process/test_canaries.py::test_the_callers_keys_are_not_given_to_the_daemon",),
        (Break("vaultd/command/spawning.py", "env=handed_on(os.environ),", "env=dict(os.environ),"),),
    ),
    Promise(
        "T10-environment-cut",
        "What is left in the environment of daemon and children is an allow-list without AWS_*, LD_* and PYTHON*.",
        "vaultd/host/hardening.py: captured",
        (f"{_HARD}test_the_environment_is_cut_for_us_and_for_children",),
        (Break(_HARDENING, "            del environ[name]\n", "            continue\n"),),
    ),
    Promise(
        "T10-environment-of-the-keeper",
        "The keeper gets a narrower list: no AWS_*, no proxy, no passphrase file.",
        "vaultd/host/hardening.py: for_keeper",
        ("tests/process/test_keeper.py::test_it_gets_nothing_but_its_socket_and_what_it_needs",),
        (Break(_HARDENING, "in hardened.environ.items() if _keeper_needs(name)}", "in hardened.environ.items()}"),),
    ),
    Promise(
        "T10-command-lines",
        "Of another process's command line no more than its program is read: an argument may be a code.",
        "vaultd/host/processes.py: _argv0",
        (f"{_LEAKS}test_a_peer_has_no_arguments",),
        (
            Break(
                _PROCESSES,
                "return shown(script if runs else os.fsdecode(first)) or None",
                'return shown(Path(f"/proc/{pid}/cmdline").read_text().replace("\\0", " ")) or None',
            ),
        ),
    ),
    Promise(
        "T10-no-echo",
        "A code, a secret key or a passphrase that is typed is not shown.",
        "client/vault_client/ask.py: Terminal",
        ("tests/client/test_ask.py::test_the_code_is_not_on_the_screen",),
        (Break("client/vault_client/ask.py", "& ~termios.ECHO | termios.ICANON", "| termios.ICANON"),),
    ),
    Promise(
        "T10-code-checked-here",
        "What is no code of six digits (a passphrase at the wrong prompt) is never sent to AWS.",
        "vaultd/engine/desk.py: Desk.answer; vaultd/keeper/codes.py: six_digits; client/vault_client/ask.py: _typed",
        ("tests/engine/test_desk.py::test_a_code_of_the_wrong_shape_is_not_sent",),
        (Break(_DESK, "        if digits is None:\n", "        digits = code\n        if digits is None:\n"),),
        "Said three times; the test is of the daemon's own check, and the keeper and the client have theirs.",
    ),
    Promise(
        "T10-code-checked-by-the-client",
        "The client does not even hand it to the daemon.",
        "client/vault_client/ask.py: six_digits",
        ("tests/client/test_ask.py::test_wrong_shape_is_not_sent",),
        (Break("client/vault_client/ask.py", "return code if len(code) == 6 and", "return code if code or"),),
    ),
    Promise(
        "T10-redaction",
        "A key, token or code that gets into a log line is cut out of it.",
        "vaultd/logs.py: redacted",
        (f"{_LEAKS}test_a_log_does_not_tell", "tests/test_logs.py::test_what_looks_like_a_secret_is_cut"),
        (Break(_LOGS, "        text = pattern.sub(replacement, text)\n", "        pass\n"),),
    ),
    Promise(
        "T10-redacted-log",
        "Each line of the log goes through that filter.",
        "vaultd/logs.py: SafeFormatter",
        (f"{_LEAKS}test_a_log_does_not_tell",),
        (
            Break(
                _LOGS,
                'redacted(head + text.replace("\\n", "\\\\n") + trace)',
                'head + text.replace("\\n", "\\\\n") + trace',
            ),
        ),
    ),
    Promise(
        "T10-keeper-log-redacted",
        "So does what the keeper says, before it leaves the keeper.",
        "vaultd/logs.py: carried",
        ("tests/test_logs.py::test_what_another_process_carries_is_redacted_there",),
        (Break(_LOGS, "return redacted(text), redacted(trace)", "return text, trace"),),
    ),
    Promise(
        "T10-foreign-loggers",
        "botocore, urllib3, aiohttp and asyncio say nothing below WARNING, also with --debug.",
        "vaultd/logs.py: _own_or_warning, PINNED",
        (f"{_LEAKS}test_a_log_does_not_tell",),
        (
            Break(_LOGS, "    destination.addFilter(_own_or_warning)\n", ""),
            Break(
                _LOGS,
                "        logging.getLogger(name).setLevel(logging.WARNING)\n",
                "        logging.getLogger(name)\n",
            ),
        ),
        "Said twice, and each of the two has a row of its own.",
    ),
    Promise(
        "T10-loggers-of-ours",
        "Of loggers that are nobody's we know nothing is taken below WARNING either.",
        "vaultd/logs.py: _own_or_warning",
        ("tests/test_logs.py::test_only_our_own_loggers_speak_below_warning",),
        (Break(_LOGS, "    destination.addFilter(_own_or_warning)\n", ""),),
    ),
    Promise(
        "T10-pinned-loggers",
        "They are pinned by name as well, for a library that asks its logger whether to make the text.",
        "vaultd/logs.py: configure",
        ("tests/test_logs.py::test_only_our_own_loggers_speak_below_warning",),
        (
            Break(
                _LOGS,
                "        logging.getLogger(name).setLevel(logging.WARNING)\n",
                "        logging.getLogger(name)\n",
            ),
        ),
    ),
    Promise(
        "T10-tracebacks",
        "An exception in the log is its type and frames: its text, which may quote what it was given, is left out.",
        "vaultd/logs.py: _message",
        (f"{_LEAKS}test_a_log_does_not_tell",),
        (Break(_LOGS, "    if isinstance(exc, _SAID):\n", "    if True:\n"),),
    ),
    Promise(
        "T10-asyncio",
        "asyncio's reports name what failed, never a callback's arguments.",
        "vaultd/logs.py: on_loop_exception, _words",
        (f"{_LEAKS}test_a_log_does_not_tell",),
        (Break(_LOGS, '(str(record.msg) if record.args else "asyncio reported an error")', "record.getMessage()"),),
    ),
    Promise(
        "T10-secret-shown",
        "A secret in the program has no repr, str or format.",
        "vaultd/model/secret.py: Secret",
        (f"{_LEAKS}test_a_secret_does_not_get_out",),
        (
            Break(
                _SECRET,
                '    def __repr__(self) -> str:\n        return "<Secret>"\n',
                "    def __repr__(self) -> str:\n        return self.reveal()\n",
            ),
        ),
    ),
    Promise(
        "T10-secret-formatted",
        "Nor is it written by an f-string.",
        "vaultd/model/secret.py: Secret.__format__",
        (f"{_LEAKS}test_a_secret_does_not_get_out",),
        (
            Break(
                _SECRET,
                '    def __format__(self, spec: str) -> str:\n        return "<Secret>"\n',
                "    def __format__(self, spec: str) -> str:\n        return format(self.reveal(), spec)\n",
            ),
        ),
    ),
    Promise(
        "T10-secret-pickled",
        "Nor pickled or copied.",
        "vaultd/model/secret.py: Secret.__reduce__",
        (f"{_LEAKS}test_a_secret_does_not_get_out",),
        (
            Break(
                _SECRET,
                "    def __reduce__(self) -> NoReturn:\n"
                '        raise TypeError("a Secret is never pickled or copied")\n',
                "    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:\n"
                "        return Secret, (self.reveal(),)\n",
            ),
        ),
    ),
    Promise(
        "T10-secret-revealed",
        "It is revealed in the places that are listed, and no other.",
        "tests/test_imports.py: the list; keeper's codec, model/dialects.py, aws/, store/",
        ("tests/test_imports.py::test_reveal_lives_where_it_is_listed",),
        (
            Break(
                _DESK,
                "        digits = code.digits(6)\n",
                '        digits = Secret("".join(code.reveal().split())).digits(6)\n',
            ),
        ),
    ),
    Promise(
        "T10-constant-400",
        "What cannot be parsed is answered with a constant: no byte of a request comes back.",
        "vaultd/web/connection.py: Connection._answer_parsed",
        ("tests/web/test_app.py::test_nothing_of_a_malformed_request_comes_back",),
        (
            Break(
                "vaultd/web/connection.py",
                "        except HttpProcessingError:\n"
                "            self._finish(Reply(self._gate.malformed, keep=False, linger=True))\n",
                "        except HttpProcessingError as exc:\n"
                "            from vaultd.errors import BadRequest\n"
                "            from vaultd.model.dialects import closing, ecs_error\n"
                "            said = closing(ecs_error(BadRequest(exc.message)))\n"
                "            self._finish(Reply(said, keep=False, linger=True))\n",
            ),
        ),
    ),
    Promise(
        "T10-constant-400-behind",
        "Nor from behind a request that waits, where aiohttp's own loop has the connection.",
        "vaultd/web/connection.py: Connection.handle_error",
        ("tests/web/test_app.py::test_nothing_comes_back_from_behind_a_request_that_waits",),
        (
            Break(
                "vaultd/web/connection.py",
                "            return Reply(self._gate.malformed, keep=False)\n        self.log",
                "            from vaultd.errors import BadRequest\n"
                "            from vaultd.model.dialects import closing, ecs_error\n"
                '            return Reply(closing(ecs_error(BadRequest(message or ""))), keep=False)\n        self.log',
            ),
        ),
    ),
    Promise(
        "T10-constant-500",
        "A failure of ours is answered without detail.",
        "vaultd/web/app.py: SdkSide.answer_now; vaultd/model/dialects.py: seen",
        (
            "tests/web/test_app.py::test_internal_error_is_constant",
            "tests/model/test_dialects.py::test_internal_error_says_nothing",
        ),
        (
            Break(
                "vaultd/web/app.py",
                "            return Reply(_INTERNAL, keep=False)\n",
                "            return Reply(closing(ecs_error(VaultdError(str(exc)))), keep=False)\n",
            ),
            Break(
                "vaultd/model/dialects.py", "VaultdError.code, _HIDDEN", "VaultdError.code, error.message or _HIDDEN"
            ),
        ),
        "Two edits: what makes the bytes hides the text of such an error once more.",
    ),
    Promise(
        "T10-private-files",
        "Every file of ours is made 0600, whatever the umask.",
        "vaultd/files.py: Files",
        ("tests/test_files.py::test_replace_then_read",),
        (
            Break(
                _FILES,
                "os.O_WRONLY | os.O_CREAT | os.O_EXCL | ownership.SAFE, 0o600)",
                "os.O_WRONLY | os.O_CREAT | os.O_EXCL | ownership.SAFE, 0o644)",
            ),
        ),
    ),
    Promise(
        "T10-private-directories",
        "Every directory of ours is made 0700, whatever the umask.",
        "vaultd/files.py: Files.make_dirs",
        ("tests/test_files.py::test_make_dirs_creates_private_directories",),
        (Break(_FILES, "os.mkdir(each, 0o700)", "os.mkdir(each, 0o755)"),),
    ),
    Promise(
        "T10-audit-lines",
        "An audit line has the fields of the contract, its text redacted; of a value of another type its name.",
        "vaultd/engine/audit.py: Audit.record, Audit._plain",
        (f"{_LEAKS}test_the_audit_does_not_tell",),
        (Break("vaultd/engine/audit.py", 'return f"<{type(value).__name__}>"', "return str(value)"),),
    ),
    Promise(
        "T10-audit-redacted",
        "Its free text goes through the log's filter.",
        "vaultd/engine/audit.py: Audit._plain",
        (f"{_LEAKS}test_the_audit_does_not_tell",),
        (Break("vaultd/engine/audit.py", "else self._redact(value))", "else value)"),),
    ),
)

PROMISES: Final[tuple[Promise, ...]] = (*_T6, *_T7, *_T8, *_T9, *_T10)
