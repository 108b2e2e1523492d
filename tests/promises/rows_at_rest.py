"""T9: a stolen disk. T10: logs, command lines, environments, core files and answers.

Rule: a constant of the product that a row is about (a cost, a time, a list) is written out in its test, since a test
that imports it follows the break.
"""

from __future__ import annotations

from typing import Final

from tests.promises.promise import Break, Promise

_DESK: Final = "vaultd/engine/desk.py"
_PROCESSES: Final = "vaultd/host/processes.py"
_HARDENING: Final = "vaultd/host/hardening.py"
_FORMAT: Final = "vaultd/store/sealed_format.py"
_LOG: Final = "vaultd/store/sealed_log.py"
_LOGS: Final = "vaultd/logs.py"
_SECRET: Final = "vaultd/model/secret.py"
_FILES: Final = "vaultd/files.py"
_HARD: Final = "tests/host/test_hardening.py::"
_SEALED: Final = "tests/store/test_sealed_file.py::"
_SESSIONS: Final = "tests/store/test_sealed_log.py::"
_LEAKS: Final = "tests/leaks/test_seeded.py::"
_CASE: Final = "tests/adversary/test_cases.py::test_case"

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
        "client/vault_client/terminal.py: Terminal",
        ("tests/client/test_ask.py::test_the_code_is_not_on_the_screen",),
        (Break("client/vault_client/terminal.py", "& ~termios.ECHO | termios.ICANON", "| termios.ICANON"),),
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

PROMISES: Final[tuple[Promise, ...]] = (*_T9, *_T10)
