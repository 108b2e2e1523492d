"""Promises on what is read and kept: hostile settings (T11), planted code and older state (T12), the wrong role (T13).

Rule: as promise.py; the rows of floods and locks are in rows_floods.py, those of crash, keeper, audit and units in
rows_lasting.py.
"""

from __future__ import annotations

from tests.promises import rows_floods, rows_lasting
from tests.promises.promise import Break, Promise

_OWNERSHIP = "vaultd/ownership.py"
_ENDPOINTS = "vaultd/model/endpoints.py"
_PARTITIONS = "vaultd/model/partitions.py"
_KEYRING = "vaultd/store/os_keyring.py"
_SEALED = "vaultd/store/sealed_file.py"

T11 = (
    Promise(
        name="T11-shell-memory",
        says="What an environment holds under names of the shell integration is no command of the shell that reads it.",
        control="client/vault_client/integration.py: Hook; client/vault_client/shell.py: is_kept",
        tests=("tests/client/test_shell_hostile.py::test_memory_of_an_environment",),
        breaks=(
            Break(
                "client/vault_client/shell.py",
                "    return _KEPT.issuperset(words)\n",
                "    return True\n",
            ),
        ),
    ),
    Promise(
        name="T11-shell-function",
        says="`VAULTD_INTEGRATION` of an environment chooses no shell to write for and no holder of its grant.",
        control="client/vault_client/point.py: _hook",
        tests=("tests/client/test_shell_hostile.py::test_a_function_that_is_not_there",),
        breaks=(
            Break(
                "client/vault_client/integration.py",
                "        self.evaluates = not known or reads == self.pid or _reader() == self.pid\n",
                "        self.evaluates = True\n",
            ),
        ),
    ),
    Promise(
        name="T11-config-mode",
        says="A `~/.aws/config` or `config.toml` that others may write to is refused by name, behind a link too.",
        control=f"{_OWNERSHIP}: check_target",
        tests=("tests/test_files.py::test_config_that_others_write_to_is_refused",),
        breaks=(
            Break(
                _OWNERSHIP,
                'f"ls -lL {quoted(path)}")\n    if found.st_mode & _OTHERS_WRITE:',
                'f"ls -lL {quoted(path)}")\n    if False:',
            ),
        ),
    ),
    Promise(
        name="T11-config-owner",
        says="A configuration file of another user is refused by name.",
        control=f"{_OWNERSHIP}: check_target",
        tests=("tests/test_files.py::test_config_of_another_user_is_refused",),
        breaks=(
            Break(
                _OWNERSHIP,
                ', not a file", f"ls -l {quoted(path)}")\n    if found.st_uid != os.geteuid():',
                ', not a file", f"ls -l {quoted(path)}")\n    if False:',
            ),
        ),
    ),
    Promise(
        name="T11-config-link",
        says="A link of another user on the way to a configuration file is refused by name.",
        control=f"{_OWNERSHIP}: check_links",
        tests=("tests/test_files.py::test_config_of_another_user_is_refused",),
        breaks=(
            Break(
                _OWNERSHIP,
                'if found.st_uid != os.geteuid():\n            raise refusal(path, "is another user\'s link"',
                'if False:\n            raise refusal(path, "is another user\'s link"',
            ),
        ),
    ),
    Promise(
        name="T11-config-no-file",
        says="A pipe, device or directory in the place of a configuration file is refused, and waited for by nobody.",
        control=f"{_OWNERSHIP}: check_target",
        tests=("tests/test_files.py::test_config_that_is_no_file_is_refused",),
        breaks=(
            Break(
                _OWNERSHIP,
                'if not stat.S_ISREG(found.st_mode):\n        raise refusal(path, f"is a {_kind(found.st_mode)}, not a'
                ' file", f"ls -l',
                'if False:\n        raise refusal(path, f"is a {_kind(found.st_mode)}, not a file", f"ls -l',
            ),
        ),
    ),
    Promise(
        name="T11-endpoint-of-a-profile",
        says="An `endpoint_url` of a profile that is neither AWS nor listed in `endpoint_allow` is refused, naming it.",
        control=f"{_ENDPOINTS}: _override",
        tests=("tests/model/test_partitions.py::test_a_foreign_override_is_refused_by_name",),
        breaks=(Break(_ENDPOINTS, "if not endpoint_allowed(found.text, allow):", "if False:"),),
    ),
    Promise(
        name="T11-endpoint-of-the-environment",
        says="An AWS_ENDPOINT_URL in the environment of `vaultd start` is refused likewise.",
        control=f"{_ENDPOINTS}: environment_override",
        tests=("tests/model/test_partitions.py::test_a_foreign_override_is_refused_by_name",),
        breaks=(Break(_ENDPOINTS, "if not endpoint_allowed(url, allow):", "if False:"),),
    ),
    Promise(
        name="T11-endpoint-last-gate",
        says="No key and no code leaves for an endpoint that is not allowed, whatever was checked above.",
        control="vaultd/aws/clients.py: Clients._gate",
        tests=("tests/aws/test_sts.py::test_a_url_that_is_not_allowed_gets_nothing",),
        breaks=(
            Break("vaultd/aws/clients.py", "if not endpoint_allowed(url, self._network.endpoint_allow):", "if False:"),
        ),
    ),
    Promise(
        name="T11-endpoint-userinfo",
        says="A user name in a URL does not hide its host.",
        control=f"{_PARTITIONS}: endpoint_allowed",
        tests=("tests/model/test_partitions.py::test_refused_endpoints",),
        breaks=(
            Break(
                _PARTITIONS,
                "if parts is None or parts.username is not None or parts.password is not None:",
                "if parts is None:",
            ),
        ),
    ),
    Promise(
        name="T11-endpoint-https",
        says="AWS is asked over https only.",
        control=f"{_PARTITIONS}: endpoint_allowed",
        tests=("tests/model/test_partitions.py::test_refused_endpoints",),
        breaks=(
            Break(
                _PARTITIONS,
                'return parts.scheme == "https" and _AWS_HOST.fullmatch(host) is not None',
                "return _AWS_HOST.fullmatch(host) is not None",
            ),
        ),
    ),
    Promise(
        name="T11-isolated-botocore",
        says="Nothing of the user's AWS files, variables and proxies reaches the calls to AWS: no `credential_process` "
        "of them is run.",
        control="vaultd/aws/clients.py: _isolated_session",
        tests=("tests/aws/test_isolation.py::test_calls_go_where_they_are_told",),
        breaks=(
            Break(
                "vaultd/aws/clients.py",
                'Session(session_vars=told | {"config_file": nothing, "credentials_file": nothing})',
                "Session()",
            ),
        ),
    ),
    Promise(
        name="T11-keys-of-the-call",
        says="A call is signed by the key that it was given, never by one that botocore's chain finds or asks a "
        "program for.",
        control="vaultd/aws/clients.py: _isolated_session",
        tests=("tests/aws/test_isolation.py::test_calls_go_where_they_are_told",),
        breaks=(
            Break(
                "vaultd/aws/clients.py",
                '    session.register_component("credential_provider", CallKeysProvider())\n',
                "",
            ),
        ),
    ),
    Promise(
        name="T11-programs-notice",
        says="No setting has a program run: `run_executables` and `mfa_process` are taken with a notice that they "
        "change nothing.",
        control="vaultd/config.py: _NOT_YET_NOTICED",
        tests=("tests/test_config.py::test_what_is_harmless_and_not_there_is_a_notice",),
        breaks=(
            Break(
                "vaultd/config.py",
                '    "identities": ("mfa_process",),\n    "profiles": ("run_executables",),\n',
                "",
            ),
        ),
    ),
    Promise(
        name="T11-credential-process",
        says="A profile whose keys come from `credential_process` is refused, and the program is not run.",
        control="vaultd/model/planner.py: _refuse_unserved",
        tests=("tests/model/test_plan.py::test_sources_of_later_issues_are_refused_in_words",),
        breaks=(Break("vaultd/model/planner.py", '    "credential_process": "it",\n', ""),),
    ),
    Promise(
        name="T11-planted-files",
        says="The sh lines of `use` hold no file name pattern, so that `eval $(…)` without quotes runs no file that "
        "somebody planted in the working directory.",
        control="client/vault_client/shell.py: Posix.set",
        tests=("tests/client/test_shell.py::test_no_line_holds_a_pattern",),
        breaks=(Break("client/vault_client/shell.py", "if _BARE.issuperset(value):", 'if "\'" not in value:'),),
    ),
)

T12 = (
    Promise(
        name="T12-isolated-daemon",
        says="The background daemon is a `python -I` in the root directory.",
        control="vaultd/command/spawning.py",
        tests=("tests/test_foreground.py::test_the_background_daemon_is_isolated",),
        breaks=(
            Break(
                "vaultd/command/spawning.py",
                '[sys.executable, "-I", "-m", "vaultd", "start", "--foreground"',
                '[sys.executable, "-m", "vaultd", "start", "--foreground"',
            ),
        ),
    ),
    Promise(
        name="T12-planted-modules",
        says="No module is loaded that lies in the working directory or that the environment names.",
        control="vaultd/command/spawning.py",
        tests=(
            "tests/adversary/test_cases.py::test_case[T12-python-path]",
            "tests/adversary/test_cases.py::test_case[T12-working-directory]",
        ),
        breaks=(
            Break(
                "vaultd/command/spawning.py",
                '[sys.executable, "-I", "-m", "vaultd", "start", "--foreground"',
                '[sys.executable, "-m", "vaultd", "start", "--foreground"',
            ),
            Break(
                "vaultd/command/spawning.py",
                'cwd="/",\n                env=handed_on(os.environ),',
                "env=dict(os.environ),",
            ),
        ),
        note="Said twice: `-I`, and beside it the environment and the working directory that the daemon is given.",
    ),
    Promise(
        name="T12-isolated-keeper",
        says="The keeper is a `python -I`.",
        control="vaultd/lifecycle/keeping.py: Process",
        tests=("tests/process/test_keeper.py::test_it_gets_nothing_but_its_socket_and_what_it_needs",),
        breaks=(Break("vaultd/lifecycle/keeping.py", '"-I", "-m", "vaultd.keeper"', '"-P", "-m", "vaultd.keeper"'),),
    ),
    Promise(
        name="T12-keyring-class",
        says="The keyring's class is chosen from an allow-list; what the environment names is not looked at.",
        control=f"{_KEYRING}: OsKeyring",
        tests=("tests/store/test_os_keyring.py::test_the_environment_does_not_choose",),
        breaks=(
            Break(
                _KEYRING,
                "(lambda: first_of(allowed()))",
                '(lambda: ("keyring", importlib.import_module("keyring").get_keyring()))',
            ),
        ),
        note="The read-back of T12-keyring-read-back would be the next to notice a null backend: the test tells the "
        "two apart by their error.",
    ),
    Promise(
        name="T12-keyring-read-back",
        says="A keyring that keeps nothing, and a planted item that shadows ours, are noticed at the first write.",
        control=f"{_KEYRING}: OsKeyring.save",
        tests=(
            "tests/store/test_os_keyring.py::test_a_backend_that_keeps_nothing_is_noticed",
            "tests/store/test_os_keyring.py::test_a_planted_item_is_noticed",
        ),
        breaks=(Break(_KEYRING, "return _same(chosen.backend.get_password(SERVICE, item), kept)", "return True"),),
    ),
    Promise(
        name="T12-planted-key",
        says="A key that the store holds under an identity's name is used only when it is the one that was added.",
        control="vaultd/keeper/codec.py: key_of",
        tests=("tests/keeper/test_custody.py::test_a_planted_item_is_not_used",),
        breaks=(
            Break(
                "vaultd/keeper/codec.py",
                "if found is None or not found.access_key_id.endswith(identity.key_ending):",
                "if found is None:",
            ),
            Break(
                "vaultd/keeper/codec.py",
                'if fields.get("uuid") != uuid or not isinstance(akid, str)',
                "if not isinstance(akid, str)",
            ),
        ),
    ),
    Promise(
        name="T12-store-switch",
        says="The store that the identities are in is never changed for another one in silence.",
        control="vaultd/keeper/opening.py: Stores",
        tests=(
            "tests/keeper/test_open.py::test_the_recorded_store_is_never_switched",
            "tests/keeper/test_open.py::test_another_keyring_is_a_change_too",
        ),
        breaks=(
            Break("vaultd/keeper/opening.py", "if kind is not None and kinds - {kind}:", "if False:"),
            Break("vaultd/keeper/opening.py", "if recorded - {store.backend}:", "if False:"),
        ),
        note="One for the kind that the settings ask for, one for the keyring that is there: a test for each.",
    ),
    Promise(
        name="T12-rolled-back-store",
        says="A `secrets.sealed` older than the last one seen is refused until `vaultd start --accept-rollback`.",
        control=f"{_SEALED}: SealedFile._newest",
        tests=("tests/store/test_sealed_file.py::test_yesterdays_file_is_noticed",),
        breaks=(
            Break(
                _SEALED,
                "(newest > header.generation or not same_file)",
                "not same_file",
            ),
        ),
    ),
    Promise(
        name="T12-rolled-back-by-the-index",
        says="The index remembers the store's generation too, for a home whose own note was set back as well.",
        control=f"{_SEALED}: SealedFile._newest",
        tests=("tests/store/test_sealed_file.py::test_the_index_remembers_too",),
        breaks=(Break(_SEALED, "newest = max(seen, header.generation,", "newest = max(header.generation,"),),
    ),
    Promise(
        name="T12-foreign-store",
        says="Another home's store in the place of ours is refused.",
        control=f"{_SEALED}: SealedFile._newest",
        tests=("tests/store/test_sealed_file.py::test_another_store_is_not_the_one_last_seen",),
        breaks=(Break(_SEALED, "same_file = known is None or known.file == header.uuid.hex()", "same_file = True"),),
    ),
    Promise(
        name="T12-missing-store",
        says="A store that is gone while identities are listed in it is damage, never a reason for a new one.",
        control="vaultd/keeper/opening.py: Stores._file, and SealedFile._create",
        tests=("tests/keeper/test_open.py::test_a_missing_file_store_is_damage",),
        breaks=(
            Break("vaultd/keeper/opening.py", "if new and expected and not accept_rollback:", "if False:"),
            Break(
                _SEALED,
                "        if expected:\n            raise StoreDamaged(",
                "        if False:\n            raise StoreDamaged(",
            ),
        ),
        note="Said twice: by whoever chooses the store, and by the store itself.",
    ),
    Promise(
        name="T12-older-sessions",
        says="An older `sessions.sealed`, put back, is told, because the audit log knows of a later seal.",
        control="vaultd/engine/audit_chain.py: older_seal",
        tests=("tests/crash/test_swapped.py::test_an_older_sessions_sealed_is_told",),
        breaks=(
            Break(
                "vaultd/engine/audit.py",
                "return said or audit_chain.older_seal(self._files, self._path, head)",
                "return said",
            ),
        ),
    ),
    Promise(
        name="T12-lost-index",
        says="A lost `identities.json` is told where the file store holds keys.",
        control="vaultd/keeper/custody.py: Identities.unlisted",
        tests=("tests/crash/test_swapped.py::test_a_missing_index_over_a_store_forgets_no_key_silently",),
        breaks=(Break("vaultd/keeper/keeper.py", "unlisted = self._identities.unlisted(store)", "unlisted = 0"),),
    ),
    Promise(
        name="T12-older-index",
        says="An older `identities.json`, put back, is told: its digest is sealed with the sessions.",
        control="vaultd/keeper/index_seal.py: IndexSeal",
        tests=("tests/crash/test_swapped.py::test_an_older_index_is_told",),
        breaks=(Break("vaultd/keeper/index_seal.py", "return not known or digest in known", "return True"),),
    ),
    Promise(
        name="T12-pinned-install",
        says="What is installed is checked against the hashes in `constraints.txt`, every package of it.",
        control="Makefile, README.md: pip install --require-hashes",
        tests=("tests/test_pinned.py::test_every_install_checks_hashes",),
        breaks=(
            Break(
                "Makefile",
                "--disable-pip-version-check --require-hashes -r constraints-dev.txt",
                "--disable-pip-version-check -r constraints-dev.txt",
            ),
        ),
    ),
)

T13 = (
    Promise(
        name="T13-one-profile",
        says="A token opens one profile: the path has to name it, byte for byte.",
        control="vaultd/web/ecs.py: Credentials.plan",
        tests=("tests/web/test_app.py::test_mismatch_before_unknown_profile_before_the_rest",),
        breaks=(Break("vaultd/web/ecs.py", "if path != CREDENTIALS_PATH + grant.slug:", "if False:"),),
    ),
    Promise(
        name="T13-role-pinned",
        says="A profile that has come to mean another role than its grant's is refused, not followed.",
        control="vaultd/web/serving.py: _other_meaning",
        tests=("tests/web/test_app.py::test_profile_that_means_another_role",),
        breaks=(
            Break(
                "vaultd/web/serving.py",
                'if plan.role_arn != grant.role_arn:\n        return "role"',
                'if False:\n        return "role"',
            ),
        ),
    ),
    Promise(
        name="T13-user-pinned",
        says="A profile without a role that has come to mean another identity or IAM user is refused, not followed.",
        control="vaultd/web/serving.py: _other_meaning",
        tests=("tests/web/test_app.py::test_profile_without_role_that_means_somebody_else",),
        breaks=(
            Break(
                "vaultd/web/serving.py",
                "(plan.identity, plan.user_arn) == (grant.identity, grant.user_arn)",
                "grant.identity is not None",
            ),
        ),
    ),
    Promise(
        name="T13-verified-key",
        says="A key is stored only after AWS said whose it is, and only an IAM user's.",
        control="vaultd/keeper/verification.py: Verification.user",
        tests=("tests/keeper/test_custody.py::test_only_users_keys_are_stored",),
        breaks=(
            Break(
                "vaultd/keeper/verification.py",
                'if parsed is None or not parsed.resource.startswith("user/"):',
                "if parsed is None:",
            ),
        ),
    ),
    Promise(
        name="T13-key-proved",
        says="A person is asked for a code only for a key that AWS took within the last 10 minutes.",
        control="vaultd/engine/proving.py: Proving.key_of",
        tests=("tests/engine/test_proving.py::test_no_question_for_a_key_that_does_not_work",),
        breaks=(
            Break(
                "vaultd/engine/broker.py",
                "await self._proving.key_of(replace(needed, profile=wish.plan.profile), seconds=self._left(wish))",
                "pass",
            ),
        ),
    ),
    Promise(
        name="T13-sessions-of-their-user",
        says="A session belongs to the IAM user, device, role and settings that it was made by: where one of them "
        "changes, another one is made.",
        control="vaultd/model/planner.py: _fingerprint",
        tests=("tests/model/test_plan.py::test_the_identity_shapes_every_step",),
        breaks=(
            Break(
                "vaultd/model/planner.py",
                "[kind, identity.name, identity.user_arn, mfa_serial,",
                "[kind, identity.name, mfa_serial,",
            ),
        ),
    ),
    Promise(
        name="T13-replaced-key",
        says="Another user's key under an identity's name ends the sessions of the one before.",
        control="vaultd/keeper/keeper.py: DaemonKeeper.add",
        tests=("tests/keeper/test_custody.py::test_another_users_key_ends_the_sessions",),
        breaks=(
            Break(
                "vaultd/keeper/keeper.py",
                "if before is not None and before.user_arn != identity.user_arn and epoch == self._epoch:",
                "if False:",
            ),
        ),
    ),
    Promise(
        name="T13-account",
        says="A key is used for no question when AWS says that it belongs to another account than it was added for.",
        control="vaultd/keeper/minting.py: Minting._prove",
        tests=("tests/keeper/test_mint.py::test_a_key_of_another_account_is_not_used",),
        breaks=(Break("vaultd/keeper/minting.py", "if account != added:", "if False:"),),
    ),
    Promise(
        name="T13-own-door",
        says="A metadata token opens the door of its own grant only.",
        control="vaultd/web/imds.py: DoorSide._entered",
        tests=("tests/web/test_imds.py::test_a_token_of_another_door_is_401",),
        breaks=(
            Break(
                "vaultd/web/imds.py",
                "if not metadata_tokens.check(self._key, token, self._behind.clock.now()):",
                "if not token:",
            ),
        ),
    ),
)

PROMISES: tuple[Promise, ...] = (*T11, *T12, *T13, *rows_floods.PROMISES, *rows_lasting.PROMISES)
