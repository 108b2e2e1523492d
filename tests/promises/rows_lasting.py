"""Promises on what lasts: crash (C-), the keeper's process (K-), the audit log (A-), the service manager's units (S-).

Rule: as promise.py. Units are text: a test of a directive's place in it is run everywhere, the probes of what systemd
makes of it (tests/service/test_probes.py) where a systemd runs.
"""

from __future__ import annotations

from tests.promises.promise import Break, Promise

_FILES = "vaultd/files.py"
_CODES = "vaultd/keeper/codes.py"
_KEEPER = "vaultd/keeper/keeper.py"
_LIFE = "vaultd/keeper/life.py"
_CALLS = "vaultd/keeper/calls.py"
_WIRE = "vaultd/keeper/wire.py"
_PROCESS = "vaultd/keeper/process.py"
_GRANTS = "vaultd/engine/grants.py"
_AUDIT = "vaultd/engine/audit.py"
_CHAIN = "vaultd/engine/audit_chain.py"
_PROOF = "vaultd/engine/audit_proof.py"
_SERVICE = "systemd/vaultd.service"
_SOCKET = "systemd/vaultd.socket"
_UNITS = "tests/service/test_unit_files.py"

CRASH = (
    Promise(
        name="C-replaced-whole",
        says="A file of ours is the old or the new one, whenever the process dies.",
        control=f"{_FILES}: Files._put",
        tests=("tests/test_files.py::test_a_kill_at_any_call_leaves_old_or_new",),
        breaks=(
            Break(
                _FILES,
                '            self._write_new(new, content)\n            self._fault("rename", path)\n'
                "            os.rename(new, path)  # noqa",
                "            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)\n"
                "            with _closing(descriptor):\n"
                "                self._write(descriptor, path, content)  # noqa",
            ),
        ),
    ),
    Promise(
        name="C-synced",
        says="What is told as written is on disk: the file is synced before it takes the old one's name.",
        control=f"{_FILES}: Files._write_new",
        tests=("tests/test_files.py::test_what_is_told_as_durable_was_synced",),
        breaks=(
            Break(
                _FILES,
                '            self._write(descriptor, path, content)\n            self._fault("fsync", path)\n'
                "            os.fsync(descriptor)\n",
                '            self._write(descriptor, path, content)\n            self._fault("fsync", path)\n',
            ),
        ),
    ),
    Promise(
        name="C-synced-name",
        says="The name of a file that is told as written is on disk, too: its directory is synced.",
        control=f"{_FILES}: Files._sync_dir",
        tests=("tests/test_files.py::test_what_is_told_as_durable_was_synced",),
        breaks=(
            Break(
                _FILES,
                "os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)\n        with _closing(descriptor):\n"
                "            os.fsync(descriptor)\n",
                "os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)\n        os.close(descriptor)\n",
            ),
        ),
    ),
    Promise(
        name="C-synced-line",
        says="A line of a log that was acknowledged is synced.",
        control=f"{_FILES}: Files.append",
        tests=("tests/test_files.py::test_what_is_told_as_durable_was_synced",),
        breaks=(
            Break(
                _FILES,
                '                        self._fault("fsync", path)\n                        os.fsync(descriptor)\n',
                '                        self._fault("fsync", path)\n',
            ),
        ),
    ),
    Promise(
        name="C-append-cut-back",
        says="A line that a full disk took in part is cut back.",
        control=f"{_FILES}: Files.append",
        tests=("tests/test_files.py::test_a_partial_append_is_cut_back",),
        breaks=(Break(_FILES, "                    os.ftruncate(descriptor, before)\n", ""),),
    ),
    Promise(
        name="C-told-is-undone",
        says="Where the disk refused to make a new file durable, the old one stands: what was told as failed has not "
        "happened.",
        control=f"{_FILES}: Files.replace",
        tests=("tests/test_files.py::test_a_full_or_broken_disk_loses_nothing",),
        breaks=(Break(_FILES, "                    self._put_back(path, old)\n", "                    pass\n"),),
    ),
    Promise(
        name="C-session-sealed-first",
        says="An MFA session, which cost a person a code, is sealed on disk before anybody uses it.",
        control="vaultd/keeper/sessions.py: MfaSessions.put",
        tests=("tests/keeper/test_mint.py::test_an_mfa_session_is_on_disk_before_it_is_told",),
        breaks=(
            Break(
                "vaultd/keeper/sessions.py",
                "            self._records.keep(key, codec.mfa_record(session, region=region))\n",
                "            pass\n",
            ),
        ),
    ),
    Promise(
        name="C-grant-kept",
        says="A grant that was acknowledged is there after a kill.",
        control=f"{_GRANTS}: Grants._keep",
        tests=("tests/engine/test_grants.py::test_a_grant_survives_a_restart_with_everything",),
        breaks=(
            Break(
                _GRANTS,
                "self._files.replace(self.token_path(grant.id), token.encode())\n            self._write()\n",
                "self._files.replace(self.token_path(grant.id), token.encode())\n",
            ),
        ),
    ),
    Promise(
        name="C-revoke-kept",
        says="A grant that was revoked stays revoked after a kill, or `revoke` says that it may not.",
        control=f"{_GRANTS}: Grants._write_revoked",
        tests=("tests/engine/test_grants.py::test_revoke_ends_one_at_once",),
        breaks=(
            Break(
                _GRANTS,
                "    def _write_revoked(self) -> None:\n        try:\n            self._write()\n",
                "    def _write_revoked(self) -> None:\n        try:\n            pass\n",
            ),
        ),
    ),
    Promise(
        name="C-grants-not-reset",
        says="A `grants.json` that cannot be read refuses the start; it is never replaced by an empty one.",
        control=f"{_GRANTS}: Grants.load",
        tests=("tests/engine/test_grants.py::test_an_unreadable_grants_json_refuses_the_start",),
        breaks=(
            Break(
                _GRANTS,
                "OverflowError, RecursionError) as exc:\n            raise Misconfigured(\n",
                "OverflowError, RecursionError) as exc:\n            return []\n            raise Misconfigured(\n",
            ),
        ),
    ),
    Promise(
        name="C-code-written-first",
        says="A code is written down as sent before it is sent: after a kill in flight it is not sent again.",
        control=f"{_CODES}: Codes._write",
        tests=("tests/keeper/test_codes.py::test_a_code_is_refused_after_a_restart_too",),
        breaks=(
            Break(
                _CODES,
                '        self._records.keep(_PREFIX + serial, json.dumps({"v": 1, "sent": lines}).encode())\n',
                "        del lines\n",
            ),
        ),
    ),
    Promise(
        name="C-code-once",
        says="A code that was sent is refused for as long as a device shows it.",
        control=f"{_CODES}: Codes.spend",
        tests=("tests/keeper/test_codes.py::test_a_code_goes_once_per_device",),
        breaks=(Break(_CODES, "if before is not None and before.spent:", "if False:"),),
    ),
    Promise(
        name="C-code-unknown",
        says="Where it is not known which codes were sent, none is taken for the first 30 s.",
        control=f"{_CODES}: Codes.spend",
        tests=("tests/keeper/test_open.py::test_codes_wait_where_the_log_was_lost",),
        breaks=(Break(_CODES, "if boot < self._free:", "if False:"),),
    ),
    Promise(
        name="C-code-hashed",
        says="What is remembered of a code is a keyed hash.",
        control=f"{_CODES}: Codes._mac",
        tests=("tests/keeper/test_codes.py::test_the_code_itself_is_nowhere",),
        breaks=(
            Break(
                _CODES,
                'return hmac.new(self._data_key.reveal_bytes(), message, "sha256").hexdigest()',
                "return message.hex() and code.reveal()",
            ),
        ),
    ),
    Promise(
        name="C-codes-limited",
        says="Six codes in ten minutes go to AWS for one device, at most.",
        control=f"{_CODES}: Codes.spend",
        tests=("tests/keeper/test_codes.py::test_at_most_six_codes_in_ten_minutes",),
        breaks=(Break(_CODES, "if len(spent) >= _LIMIT:", "if False:"),),
    ),
    Promise(
        name="C-damaged-log-kept",
        says="A damaged `sessions.sealed` is set aside and told, not overwritten.",
        control="vaultd/store/sealed_log.py: SealedLogFile._set_aside",
        tests=("tests/store/test_sealed_log.py::test_every_flipped_byte_is_noticed",),
        breaks=(
            Break(
                "vaultd/store/sealed_log.py",
                "                self._set_aside(str(exc))\n",
                "                _log.warning('drop log reason=%s', exc)\n",
            ),
        ),
    ),
    Promise(
        name="C-one-daemon",
        says="One daemon at a time writes in a home.",
        control="vaultd/flock.py: take",
        tests=("tests/test_files.py::test_one_lock_at_a_time",),
        breaks=(Break("vaultd/flock.py", "        _flock(descriptor, path)\n", ""),),
    ),
)

KEEPER = (
    Promise(
        name="K-a-process-of-its-own",
        says="Identity keys, MFA sessions and the data key are in the keeper's process, none in the one that listens.",
        control="vaultd/lifecycle/foreground.py: _built",
        tests=("tests/process/test_keeper.py::test_no_key_is_in_the_memory_of_the_process_that_listens[apart]",),
        breaks=(
            Break(
                "vaultd/lifecycle/foreground.py",
                "apart = settings.keeper.process\n",
                "apart = False\n",
            ),
        ),
    ),
    Promise(
        name="K-by-default",
        says="The keeper is a process of its own unless `[keeper] process = false`.",
        control="vaultd/config.py: KeeperProcess",
        tests=("tests/test_config.py::test_an_absent_file_means_the_contracts_defaults",),
        breaks=(Break("vaultd/config.py", "    process: bool = True\n", "    process: bool = False\n"),),
    ),
    Promise(
        name="K-nothing-of-ours",
        says="The keeper has one end of a socketpair, no listener, no other descriptor of the daemon's, and an "
        "environment of its own.",
        control="vaultd/lifecycle/keeping.py: Process",
        tests=("tests/process/test_keeper.py::test_it_gets_nothing_but_its_socket_and_what_it_needs",),
        breaks=(
            Break(
                "vaultd/lifecycle/foreground.py",
                "spawn_keeper(around, hardening.for_keeper(hardened), log_level=level)",
                "spawn_keeper(around, hardened.environ, log_level=level)",
            ),
        ),
    ),
    Promise(
        name="K-no-sdk-beside-the-listeners",
        says="The process that listens imports no boto3, no keyring and no cryptography.",
        control="vaultd/lifecycle/foreground.py: main",
        tests=("tests/process/test_keeper.py::test_the_process_that_listens_imports_no_store_and_no_sdk[apart]",),
        breaks=(
            Break(
                "vaultd/lifecycle/foreground.py",
                "        import vaultd.web.app\n",
                "        import vaultd.web.app\n        import cryptography.hazmat.primitives.ciphers.aead\n",
            ),
        ),
    ),
    Promise(
        name="K-declared-calls",
        says="The keeper takes the calls of its seams and no other.",
        control=f"{_WIRE}: called",
        tests=("tests/keeper/test_wire.py::test_what_no_seam_declares_is_refused",),
        breaks=(
            Break(_WIRE, "    if set(given) != set(takes):\n        raise Malformed\n", ""),
            Break(
                _WIRE,
                "{key: unpacked(kind, given[key]) for key, kind in takes.items()}",
                "{key: unpacked(takes[key], each) for key, each in given.items()}",
            ),
        ),
        note="Two edits of one check: without the second the first would be a KeyError.",
    ),
    Promise(
        name="K-declared-types",
        says="The keeper takes its calls in exactly their declared types.",
        control=f"{_WIRE}: unpacked",
        tests=("tests/keeper/test_wire.py::test_what_no_seam_declares_is_refused",),
        breaks=(Break(_WIRE, "return _checked(value, ok=type(value) in _PLAIN[kind])", "return value"),),
    ),
    Promise(
        name="K-frames-bounded",
        says="A frame between the two is bounded, and bytes that are none end the line.",
        control=f"{_WIRE}: Frames.feed",
        tests=("tests/keeper/test_wire.py::test_what_is_no_frame_is_refused",),
        breaks=(Break(_WIRE, "            if size > MOST_BYTES:\n                raise Malformed\n", ""),),
    ),
    Promise(
        name="K-hardened",
        says="The keeper may leave no core and is not dumpable, before it is told a secret.",
        control=f"{_PROCESS}: main",
        tests=("tests/process/test_keeper.py::test_neither_may_be_read_and_neither_leaves_a_core",),
        breaks=(
            Break(
                _PROCESS,
                "hardened = hardening.harden()",
                "hardened = hardening.Hardened(environ=hardening.captured(os.environ), warnings=())",
            ),
        ),
    ),
    Promise(
        name="K-ends-with-the-daemon",
        says="The keeper ends with the daemon, however that ends.",
        control=f"{_PROCESS}: main, _serve",
        tests=("tests/process/test_keeper.py::test_it_ends_with_the_daemon",),
        breaks=(
            Break(_PROCESS, "    hardening.die_with_parent()\n", ""),
            Break(_PROCESS, "gone=lambda _: over.set_result(None))", "gone=lambda _: None)"),
        ),
        note="Said twice: the kernel's signal at the parent's death, and the end of the socketpair.",
    ),
    Promise(
        name="K-replaced",
        says="When the keeper dies another one is started and opened as a start would; what is at hand is served "
        "meanwhile.",
        control=f"{_LIFE}: Life.watch",
        tests=("tests/keeper/test_remote.py::test_calls_wait_until_the_next_one_is_open",),
        breaks=(Break(_LIFE, "                await reopen(said)\n", "                pass\n"),),
    ),
    Promise(
        name="K-stays-locked",
        says="A keeper that dies while a person has locked the daemon is not opened again, written or not.",
        control="vaultd/lifecycle/unlocking.py: Unlocking.reopen",
        tests=("tests/test_unlocking.py::test_a_keeper_that_dies_of_a_lock_without_a_marker_is_not_opened_again",),
        breaks=(
            Break(
                "vaultd/lifecycle/unlocking.py",
                "        if self._person_needed():\n            return\n        self._sealed = None\n",
                "        self._sealed = None\n",
            ),
        ),
        note="Where the lock was written its marker keeps the store shut as well: L-restart.",
    ),
    Promise(
        name="K-served-on",
        says="Where a new keeper needs a typed passphrase, what is at hand is served on and nothing is made until "
        "`unlock`, and status says so.",
        control="vaultd/lifecycle/unlocking.py: Unlocking._strand",
        tests=("tests/process/test_keeper.py::test_without_a_passphrase_on_file_it_stays_shut_and_says_so",),
        breaks=(Break("vaultd/lifecycle/unlocking.py", "self._broker.lose_keeper()", "self._broker.lock_now()"),),
    ),
    Promise(
        name="K-code-counts-as-sent",
        says="A code that was under way when the keeper died counts as sent.",
        control=f"{_CALLS}: Calls.fail",
        tests=("tests/keeper/test_remote.py::test_what_is_under_way_ends_typed_and_its_code_counts_as_sent",),
        breaks=(Break(_CALLS, 'told.details |= {"code_sent": each.code}', 'told.details |= {"code_sent": False}'),),
    ),
    Promise(
        name="K-five-deaths",
        says="Five deaths in a minute end the daemon, with the reason in log and audit.",
        control=f"{_LIFE}: Life._replaced",
        tests=("tests/keeper/test_remote.py::test_five_deaths_in_a_minute_end_it",),
        breaks=(
            Break(
                _LIFE,
                "if len(self._died) == DEATHS and now - self._died[0] < DEATHS_SECONDS:",
                "if False:",
            ),
        ),
    ),
    Promise(
        name="K-hung-is-killed",
        says="A keeper that does not answer in time is killed and replaced.",
        control=f"{_LIFE}: Life.hung",
        tests=("tests/keeper/test_remote.py::test_one_that_does_not_answer_is_killed",),
        breaks=(
            Break(
                _LIFE,
                "        if self._child is not None:\n            self._child.kill()\n",
                "",
            ),
        ),
    ),
    Promise(
        name="K-nonsense-is-killed",
        says="A keeper whose answers are none that a seam declares is killed and replaced.",
        control="vaultd/keeper/line.py: Line._readable",
        tests=("tests/keeper/test_remote.py::test_one_that_talks_nonsense_is_replaced",),
        breaks=(Break("vaultd/keeper/line.py", "            self._end(nonsense=True)\n", "            pass\n"),),
    ),
)

AUDIT = (
    Promise(
        name="A-edited",
        says="`vaultd check --audit` names a line that was edited.",
        control=f"{_PROOF}: _chain",
        tests=("tests/engine/test_audit_proof.py::test_each_tampering_is_named",),
        breaks=(Break(_PROOF, "elif line.prev != before.digest:", "elif False:"),),
    ),
    Promise(
        name="A-deleted",
        says="`vaultd check --audit` names a line that was deleted, over rotated files as well.",
        control=f"{_PROOF}: _jump",
        tests=("tests/engine/test_audit_proof.py::test_each_tampering_is_named[a line deleted]",),
        breaks=(
            Break(_PROOF, "elif line.seq != before.seq + 1:", "elif line.seq <= before.seq:"),
            Break(
                _PROOF,
                "elif line.prev != before.digest:",
                "elif line.seq == before.seq + 1 and line.prev != before.digest:",
            ),
        ),
        note="The hash of the line before shows it too, as an edit: the second edit takes that away.",
    ),
    Promise(
        name="A-reordered",
        says="`vaultd check --audit` names lines that were moved or repeated.",
        control=f"{_PROOF}: _jump",
        tests=(
            "tests/engine/test_audit_proof.py::test_each_tampering_is_named[two lines swapped]",
            "tests/engine/test_audit_proof.py::test_each_tampering_is_named[a line twice]",
        ),
        breaks=(
            Break(
                _PROOF,
                "        elif line.seq != before.seq + 1:\n"
                "            yield from _jump(line, line.seq, before.seq, counts)\n",
                "",
            ),
        ),
    ),
    Promise(
        name="A-cut",
        says="`vaultd check --audit` names a tail that was cut, which the sealed end of the log shows.",
        control=f"{_PROOF}: _end",
        tests=(
            "tests/engine/test_audit_proof.py::test_each_tampering_is_named[the tail cut]",
            "tests/engine/test_audit_proof.py::test_a_log_that_is_gone_is_a_cut_one",
        ),
        breaks=(Break(_PROOF, "    if head.seq > last:\n", "    if False:\n"),),
    ),
    Promise(
        name="A-last-line",
        says="`vaultd check --audit` names an edited last line, which nothing follows.",
        control=f"{_PROOF}: _end",
        tests=("tests/engine/test_audit_proof.py::test_each_tampering_is_named[the very last line edited]",),
        breaks=(Break(_PROOF, "if line.seq == head.seq and line.digest != head.digest:", "if False:"),),
    ),
    Promise(
        name="A-cut-seen-at-start",
        says="A tail that was cut while the daemon was down is told when the store is open again.",
        control=f"{_CHAIN}: compare",
        tests=(
            "tests/engine/test_audit.py::test_a_tail_cut_while_the_daemon_was_down_is_seen_at_resume",
            "tests/test_daemon.py::test_a_cut_audit_log_is_seen",
        ),
        breaks=(
            Break(
                _CHAIN,
                "    if head.seq > now.seq:\n",
                "    if False:\n",
            ),
        ),
    ),
    Promise(
        name="A-forgotten-keys",
        says="The keys that a rotation leaves at AWS when it is forgotten are in the audit log.",
        control="vaultd/engine/rotations.py: Rotations.forgotten",
        tests=("tests/web/test_rotate.py::test_what_a_forgotten_rotation_leaves_is_named",),
        breaks=(
            Break(
                "vaultd/engine/rotations.py",
                'self._note(before, each[-4:], "forgotten", by, decision="allow")',
                "pass",
            ),
        ),
    ),
    Promise(
        name="A-rotated",
        says="The chain goes on over rotation by size, and over a restart.",
        control=f"{_AUDIT}: Audit._rotate, {_CHAIN}: read_tail",
        tests=("tests/engine/test_audit.py::test_after_rotation_a_missing_current_file_goes_on_from_the_old_one",),
        breaks=(
            Break(
                _CHAIN,
                '(content[:size], *(files.read(other) or b"" for other in kept(path)[1:2]))',
                "(content[:size],)",
            ),
        ),
    ),
    Promise(
        name="A-bounded",
        says="The log takes a bounded number of bytes.",
        control=f"{_AUDIT}: Audit._rotate",
        tests=("tests/engine/test_audit.py::test_the_chain_goes_on_over_restart_and_rotation",),
        breaks=(
            Break(
                _AUDIT,
                "if not self._size or self._size + length <= self._max_bytes:",
                "if True:",
            ),
        ),
    ),
    Promise(
        name="A-torn-line",
        says="A line that a kill tore is cut and said, and never joins the next.",
        control=f"{_AUDIT}: Audit._find_tail",
        tests=("tests/engine/test_audit.py::test_a_torn_last_line_is_cut_and_said",),
        breaks=(Break(_AUDIT, "            self._files.cut(self._path, tail.size)\n", ""),),
    ),
    Promise(
        name="A-lost-lines-told",
        says="A line that the disk did not take is counted, and status says so.",
        control=f"{_AUDIT}: Audit._write",
        tests=("tests/engine/test_audit.py::test_a_full_disk_costs_lines_and_nothing_else",),
        breaks=(Break(_AUDIT, "            self.lost += 1\n", ""),),
    ),
    Promise(
        name="A-head-sealed",
        says="The end of the log is sealed with every lock and stop, so that it is known after them.",
        control=f"{_KEEPER}: DaemonKeeper.close",
        tests=("tests/keeper/test_open.py::test_a_restart_brings_everything_back",),
        breaks=(
            Break(
                _KEEPER,
                "                seal_head(self._records, head)\n",
                "                pass\n",
            ),
        ),
    ),
)

UNITS = (
    Promise(
        name="S-no-new-privileges",
        says="The unit takes the way to more privileges: every directive that a probe shows to be enforced is shipped.",
        control=_SERVICE,
        tests=(f"{_UNITS}::test_every_directive_that_was_probed_is_shipped",),
        breaks=(Break(_SERVICE, "NoNewPrivileges=yes\n", ""),),
    ),
    Promise(
        name="S-system-calls",
        says="The unit filters system calls.",
        control=_SERVICE,
        tests=(f"{_UNITS}::test_every_directive_that_was_probed_is_shipped",),
        breaks=(Break(_SERVICE, "SystemCallFilter=~@privileged @debug @resources\n", ""),),
    ),
    Promise(
        name="S-no-writable-code",
        says="The unit allows no memory that is writable and executable.",
        control=_SERVICE,
        tests=(f"{_UNITS}::test_every_directive_that_was_probed_is_shipped",),
        breaks=(Break(_SERVICE, "MemoryDenyWriteExecute=yes\n", ""),),
    ),
    Promise(
        name="S-no-core",
        says="The unit allows no core.",
        control=_SERVICE,
        tests=(f"{_UNITS}::test_every_directive_that_was_probed_is_shipped",),
        breaks=(Break(_SERVICE, "LimitCORE=0\n", ""),),
    ),
    Promise(
        name="S-strict",
        says="With `--strict` the unit writes to its own files only, in a user namespace of its own.",
        control="systemd/vaultd-strict.conf",
        tests=(f"{_UNITS}::test_every_directive_that_was_probed_is_shipped",),
        breaks=(Break("systemd/vaultd-strict.conf", "PrivateUsers=yes\n", ""),),
    ),
    Promise(
        name="S-nothing-ignored",
        says="No directive is claimed that a user's systemd ignores.",
        control=_SERVICE,
        tests=(f"{_UNITS}::test_no_directive_is_known_to_be_ignored_or_to_break",),
        breaks=(Break(_SERVICE, "LimitCORE=0\n", "LimitCORE=0\nProtectHome=yes\nIPAddressDeny=any\n"),),
    ),
    Promise(
        name="S-netlink",
        says="The sandbox leaves the daemon what tells whose a client is.",
        control=_SERVICE,
        tests=(f"{_UNITS}::test_families_keep_the_one_that_tells_whose_a_client_is",),
        breaks=(Break(_SERVICE, "AF_UNIX AF_INET AF_INET6 AF_NETLINK\n", "AF_UNIX AF_INET AF_INET6\n"),),
    ),
    Promise(
        name="S-bound-to-lo",
        says="The TCP socket that systemd holds is bound to `lo`.",
        control=_SOCKET,
        tests=(f"{_UNITS}::test_the_life_of_the_unit",),
        breaks=(Break(_SOCKET, "BindToDevice=lo\n", ""),),
    ),
    Promise(
        name="S-port-kept",
        says="A daemon that cannot start gives its port to nobody, however often it is asked for.",
        control=_SERVICE,
        tests=(f"{_UNITS}::test_the_life_of_the_unit",),
        breaks=(Break(_SERVICE, "StartLimitIntervalSec=0\n", ""),),
        note="What systemd makes of it: tests/service/test_login.py::test_no_limit_gives_the_port_away.",
    ),
    Promise(
        name="S-loopback-only",
        says="A socket of the service manager that is open to the network is refused.",
        control="vaultd/lifecycle/listening.py: Listening._activated",
        tests=("tests/test_daemon.py::test_an_activated_socket_on_the_network_is_refused",),
        breaks=(
            Break(
                "vaultd/lifecycle/listening.py",
                'if tcp is not None and (address := tcp.getsockname()[0]) != "127.0.0.1":',
                "if tcp is not None and not (address := tcp.getsockname()[0]):",
            ),
        ),
    ),
    Promise(
        name="S-passphrase-file",
        says="A passphrase file or credential that others may read is not taken.",
        control="vaultd/ownership.py: check_secret",
        tests=(
            "tests/test_files.py::test_a_secret_that_others_may_read_is_refused",
            "tests/test_daemon.py::test_a_passphrase_that_others_may_read_is_not_taken",
        ),
        breaks=(
            Break(
                "vaultd/ownership.py",
                "if found.st_mode & (_OTHERS & ~stat.S_IRGRP if delivered else _OTHERS):",
                "if False:",
            ),
        ),
    ),
    Promise(
        name="S-passphrase-credential",
        says="The service manager's credential opens the store; no passphrase stands in a unit's environment.",
        control="vaultd/lifecycle/passphrase.py: PassphraseFile",
        tests=("tests/test_daemon.py::test_the_service_managers_passphrase_is_taken",),
        breaks=(
            Break(
                "vaultd/lifecycle/passphrase.py",
                'Path(directory) / "vaultd-passphrase" if directory else None',
                "None",
            ),
        ),
    ),
    Promise(
        name="S-no-password-in-a-unit",
        says="A proxy's URL with a login in it is written into no unit.",
        control="vaultd/command/installing.py: _environment",
        tests=("tests/service/test_installing.py::test_what_the_daemon_would_have_read_of_the_shell_is_in_the_unit",),
        breaks=(Break("vaultd/command/installing.py", "hidden = set(_left_out(environ))", "hidden: set[str] = set()"),),
    ),
    Promise(
        name="S-others-units",
        says="A unit that somebody wrote or changed is named and left alone.",
        control="vaultd/command/installing.py: _readable",
        tests=("tests/service/test_installing.py::test_what_is_somebodys_is_named_and_left_alone",),
        breaks=(
            Break(
                "vaultd/command/installing.py",
                "        state = units.unchanged(text)\n        if not state:\n",
                "        state = units.unchanged(text)\n        if False:\n",
            ),
        ),
    ),
    Promise(
        name="S-watchdog-loop",
        says="A loop that is stuck does not feed the watchdog.",
        control="vaultd/lifecycle/watchdog.py: Watchdog._turned",
        tests=("tests/service/test_watchdog.py::test_a_loop_that_is_stuck_again_and_again_starves_it",),
        breaks=(
            Break(
                "vaultd/lifecycle/watchdog.py",
                '            log.warning("turn loop late seconds=%.1f", over)\n',
                '            self._notify("WATCHDOG=1")\n',
            ),
        ),
    ),
    Promise(
        name="S-watchdog-refresher",
        says="A daemon whose refresher is overdue does not feed the watchdog.",
        control="vaultd/lifecycle/watchdog.py: Watchdog._turned",
        tests=("tests/service/test_watchdog.py::test_an_overdue_refresher_starves_it",),
        breaks=(Break("vaultd/lifecycle/watchdog.py", "elif self._overdue() and not self._in_grace:", "elif False:"),),
    ),
    Promise(
        name="S-ready",
        says="The service manager is told READY once everything is open, and STOPPING at the end.",
        control="vaultd/daemon.py: Daemon.run",
        tests=("tests/test_daemon.py::test_what_a_start_leaves_and_a_stop_takes_away",),
        breaks=(Break("vaultd/daemon.py", '            sockets.notify("READY=1")\n', ""),),
    ),
)

PROMISES: tuple[Promise, ...] = (*CRASH, *KEEPER, *AUDIT, *UNITS)
