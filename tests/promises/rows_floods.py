"""Promises under pressure: floods and slow clients (F-), and the locks that come by themselves (L-).

Rule: as promise.py; durations of interface.md §4, what remains is told in SECURITY.md under "Floods".
"""

from __future__ import annotations

from tests.promises.promise import Break, Promise

_CONNECTION = "vaultd/web/connection.py"
_LIMITS = "vaultd/web/limits.py"
_CONTROL = "vaultd/web/control_connection.py"
_LOCKING = "vaultd/lifecycle/locking.py"
_LOGIND = "vaultd/host/logind.py"
_KEEPER = "vaultd/keeper/keeper.py"
_MARKER = "vaultd/keeper/marker.py"
_REPLIES = "vaultd/web/control_replies.py"
_CATALOG = "vaultd/catalog.py"

FLOODS = (
    Promise(
        name="F-first-byte",
        says="A client that connects and says nothing is closed 2 s later.",
        control=f"{_CONNECTION}: Connection.connection_made",
        tests=("tests/web/test_limits.py::test_first_byte",),
        breaks=(Break(_CONNECTION, "        self._close_in(self._gate.limits.first_byte)\n", ""),),
    ),
    Promise(
        name="F-headers",
        says="A head that does not end is closed 3 s after its first byte.",
        control=f"{_CONNECTION}: Connection.data_received",
        tests=("tests/web/test_limits.py::test_headers", "tests/web/test_limits.py::test_headers_of_a_later_request"),
        breaks=(Break(_CONNECTION, "            self._close_in(self._gate.limits.headers)\n", "            pass\n"),),
    ),
    Promise(
        name="F-byte-now-and-then",
        says="A byte a second buys no time.",
        control=f"{_CONNECTION}: Connection.data_received",
        tests=("tests/web/test_limits.py::test_a_byte_now_and_then_buys_no_time",),
        breaks=(Break(_CONNECTION, "if (whole or not began) and self._at_ease():", "if self._at_ease():"),),
    ),
    Promise(
        name="F-never-reads",
        says="A client that does not read what it asked for is closed.",
        control=f"{_CONNECTION}: Connection.pause_writing",
        tests=("tests/web/test_limits.py::test_client_that_never_reads",),
        breaks=(Break(_CONNECTION, "        self._close_in(self._gate.limits.unread)\n", ""),),
    ),
    Promise(
        name="F-idle",
        says="A kept connection that asks nothing more is closed after 120 s.",
        control=f"{_CONNECTION}: Connection._look_at_clock",
        tests=("tests/web/test_limits.py::test_idle",),
        breaks=(
            Break(
                _CONNECTION,
                "            self._due = self._loop.time() + self._gate.limits.idle\n",
                '            self._due = float("inf")\n',
            ),
        ),
    ),
    Promise(
        name="F-three-quarters",
        says="TCP connections take three quarters of the descriptors at most.",
        control=f"{_LIMITS}: Limits.most",
        tests=("tests/web/test_limits.py::test_three_quarters_of_the_descriptors",),
        breaks=(Break(_LIMITS, "min(self.connections, soft * 3 // 4)", "min(self.connections, soft)"),),
    ),
    Promise(
        name="F-longest-idle-goes",
        says="Past the limit the longest idle connection makes room for the next.",
        control=f"{_LIMITS}: Crowd.make_room",
        tests=(
            "tests/web/test_limits.py::test_longest_idle_makes_room",
            "tests/web/test_limits.py::test_250_idle_connections_lock_nobody_out",
        ),
        breaks=(
            Break(
                _LIMITS,
                "idle = next((each for each in self._members if not each.busy), None)",
                "idle = None",
            ),
        ),
    ),
    Promise(
        name="F-full-is-full",
        says="Where every connection is being answered the new one is closed: there is no way past the limit.",
        control=f"{_CONNECTION}: Connection.connection_made",
        tests=("tests/web/test_limits.py::test_none_is_idle",),
        breaks=(Break(_CONNECTION, "if peer is None or not self._crowd.make_room():", "if peer is None:"),),
    ),
    Promise(
        name="F-control-reserve",
        says="The control socket has 32 descriptors of its own; past them its longest idle connection goes.",
        control=f"{_CONTROL}: ControlConnection.connection_made",
        tests=("tests/web/test_control_connection.py::test_past_the_limit_the_longest_idle_connection_goes",),
        breaks=(Break(_CONTROL, "if len(others) >= CONNECTIONS:", "if False:"),),
    ),
    Promise(
        name="F-doors-bounded",
        says="IMDS ports leave seven eighths of the descriptors.",
        control="vaultd/web/doors.py: Doors",
        tests=("tests/web/test_doors.py::test_there_are_only_so_many",),
        breaks=(Break("vaultd/web/doors.py", "if len(self._sides) >= self._most:", "if False:"),),
    ),
    Promise(
        name="F-holds-bounded",
        says="Held requests are half of the connections at most.",
        control="vaultd/web/hold.py: Holds",
        tests=("tests/web/test_hold.py::test_held_requests_leave_half_of_the_connections",),
        breaks=(
            Break(
                "vaultd/web/hold.py",
                "return len(self._held) >= self._most or self._per_grant",
                "return self._per_grant",
            ),
        ),
    ),
    Promise(
        name="F-line",
        says="A request line above 4 KiB is a 400, to the byte.",
        control="vaultd/web/guard.py: _plain",
        tests=("tests/web/test_guard.py::test_sizes",),
        breaks=(Break("vaultd/web/guard.py", "if len(target) < LINE_LIMIT // 4 - _LINE_REST:", "if target:"),),
    ),
    Promise(
        name="F-field",
        says="A field above 4 KiB is a 400, to the byte, its name and its value together.",
        control="vaultd/web/guard.py: Guard.refusal",
        tests=("tests/web/test_guard.py::test_sizes",),
        breaks=(Break("vaultd/web/guard.py", "if len(raw_name) + len(value) > FIELD_LIMIT:", "if False:"),),
    ),
    Promise(
        name="F-fields",
        says="A request with more than 64 fields is a 400.",
        control=f"{_CONNECTION}: Connection.__init__",
        tests=("tests/web/test_guard.py::test_sizes",),
        breaks=(Break(_CONNECTION, "max_headers=FIELDS_LIMIT,", "max_headers=32768,"),),
    ),
    Promise(
        name="F-no-body",
        says="A request of the SDK side has no body: what announces one is a 400, and nothing of it is kept.",
        control="vaultd/web/guard.py: Guard.refusal",
        tests=("tests/web/test_guard.py::test_bodies_are_refused",),
        breaks=(
            Break(
                "vaultd/web/guard.py",
                'elif name == _TRANSFER or (name == _LENGTH and value.strip(b"0")):',
                "elif False:",
            ),
        ),
    ),
    Promise(
        name="F-control-body",
        says="A body on the control socket has 64 KiB at most.",
        control="vaultd/web/control.py: Control.start",
        tests=("tests/web/test_control_shape.py::test_a_body_over_64_kib_is_refused",),
        breaks=(Break("vaultd/web/control.py", "client_max_size=bodies.BODY_LIMIT)", "client_max_size=1024**3)"),),
    ),
    Promise(
        name="F-endless-stream",
        says="What still comes behind a refused request is dropped, and after 1 s cut: a stream without end takes no "
        "memory.",
        control=f"{_CONNECTION}: Connection._linger",
        tests=("tests/process/test_floods.py::test_a_stream_without_end_takes_no_memory",),
        breaks=(Break(_CONNECTION, "        self._close_in(self._gate.limits.linger)\n", ""),),
    ),
    Promise(
        name="F-few-a-turn",
        says="Where asyncio's own loop serves, no flood takes the last descriptor: it accepts few in one turn.",
        control="vaultd/host/sockets.py: a_turn",
        tests=("tests/host/test_sockets.py::test_no_turn_of_a_loop_takes_the_last_descriptor",),
        note="On a real loop: tests/process/test_floods.py::test_the_loop_of_asyncio_keeps_its_descriptors.",
        breaks=(Break("vaultd/host/sockets.py", "min(100, max(8, soft // 32))", "BACKLOG"),),
    ),
    Promise(
        name="F-no-descriptor",
        says="A daemon without a free descriptor writes one line a minute about it, not one for each try to accept.",
        control="vaultd/logs.py: Rarely",
        tests=("tests/test_logs.py::test_a_listener_without_descriptors_is_one_line_a_minute",),
        breaks=(Break("vaultd/logs.py", "    destination.addFilter(Rarely())\n", ""),),
    ),
    Promise(
        name="F-log-rotates",
        says="The log is rotated by size.",
        control="vaultd/logs.py: FileLog._rotate",
        tests=("tests/test_logs.py::test_the_log_is_rotated_by_size",),
        breaks=(Break("vaultd/logs.py", "if found is not None and found[3] >= MAX_BYTES:", "if False:"),),
    ),
    Promise(
        name="F-denials-counted",
        says="Ten thousand refused connections are a handful of audit lines, each with its count.",
        control="vaultd/engine/audit.py: Audit.denied",
        tests=("tests/engine/test_audit.py::test_a_flood_of_denials_is_few_lines",),
        breaks=(
            Break(
                "vaultd/engine/audit.py",
                'key: Hashable = ("deny", reason, None if grant is None else grant.id, sighting.uid)',
                "key: Hashable = object()",
            ),
        ),
    ),
    Promise(
        name="F-denials-bounded",
        says="However many kinds of denials an attacker makes, they share 65 lines in ten seconds.",
        control="vaultd/engine/audit.py: Audit.denied",
        tests=("tests/engine/test_audit.py::test_denials_of_very_many_kinds_share_lines",),
        breaks=(
            Break(
                "vaultd/engine/audit.py",
                "if len(self._denials) >= MOST_DENIALS and key not in self._denials:",
                "if False:",
            ),
        ),
    ),
    Promise(
        name="F-slow-reader",
        says="A reader of the audit stream that does not read is cut off, and costs no memory.",
        control="vaultd/engine/audit.py: Subscription",
        tests=("tests/engine/test_audit.py::test_a_slow_reader_is_cut_and_costs_no_memory",),
        breaks=(Break("vaultd/engine/audit.py", "if len(self._events) < BACKLOG:", "if True:"),),
    ),
    Promise(
        name="F-many-profiles",
        says="However many profiles there are, `list` and `status` hold the SDKs' loop for 16 rows at a time.",
        control=f"{_REPLIES}: in_slices",
        tests=("tests/web/test_many_profiles.py::test_a_slice_at_a_time",),
        breaks=(Break(_REPLIES, "            await asyncio.sleep(0)\n", "            pass\n"),),
    ),
    Promise(
        name="F-status-of-few",
        says="`status --watch` looks only at profiles that have something to say.",
        control="vaultd/web/routes/daemon.py: _Daemon._at_work",
        tests=("tests/web/test_many_profiles.py::test_status_looks_at_what_is_there",),
        breaks=(
            Break(
                "vaultd/web/routes/daemon.py",
                "        marked = rooms.broker.marked() if catalog is self._planned else None\n",
                "        marked = None\n",
            ),
        ),
    ),
    Promise(
        name="F-plans-kept",
        says="Each profile is planned once for each state of the config file, however many there are.",
        control=f"{_CATALOG}: Catalog.plan",
        tests=("tests/test_catalog.py::test_as_many_plans_as_profiles_are_kept",),
        breaks=(
            Break(
                _CATALOG,
                "            if overrides != _NO_OVERRIDES:\n                self._shaped.append(key)\n",
                "            if True:\n                self._shaped.append(key)\n",
            ),
        ),
    ),
    Promise(
        name="F-config-read-aside",
        says="A config file that changed is read in a thread, once for all who ask.",
        control=f"{_CATALOG}: CatalogWatch.look",
        tests=("tests/test_catalog.py::test_the_loop_goes_on_while_a_file_is_read",),
        breaks=(Break(_CATALOG, "        if self._reading is None:\n", "        if True:\n"),),
    ),
    Promise(
        name="F-near-names",
        says="A wrong name is compared with few others, however many there are.",
        control="vaultd/model/near.py: Names",
        tests=("tests/model/test_near.py::test_a_slip_is_found_among_many_in_bounded_work",),
        breaks=(
            Break(
                "vaultd/model/near.py",
                "        if self._letters * len(wanted) <= WORK:\n",
                "        if self._letters:\n",
            ),
        ),
    ),
)

LOCKS = (
    Promise(
        name="L-forgets",
        says="A lock forgets identity keys, MFA sessions and the data key in memory, in one turn.",
        control=f"{_KEEPER}: DaemonKeeper.close",
        tests=("tests/keeper/test_open.py::test_close_drops_everything_in_one_turn",),
        breaks=(
            Break(
                _KEEPER,
                "        self._identities.close()\n        self._sessions.close()\n        self._codes.close()\n",
                "",
            ),
        ),
    ),
    Promise(
        name="L-nothing-served",
        says="From the turn of a lock on no keys are served, neither what is at hand nor what was being made.",
        control="vaultd/engine/broker.py: Broker.lock_now",
        tests=("tests/engine/test_broker.py::test_lock_serves_nothing_and_drops_late_outcomes",),
        breaks=(
            Break(
                "vaultd/engine/broker.py",
                "        self._flights.cancel()\n        self._cells.lock()\n",
                "        self._flights.cancel()\n",
            ),
        ),
    ),
    Promise(
        name="L-nothing-lands",
        says="What was under way when a lock came is dropped, whatever it brought.",
        control=f"{_KEEPER}: DaemonKeeper._still",
        tests=("tests/keeper/test_mint.py::test_a_role_session_that_lands_after_a_lock_is_dropped",),
        breaks=(
            Break(
                _KEEPER,
                'keeper was closed since `epoch`."""\n        if epoch != self._epoch:',
                'keeper was closed since `epoch`."""\n        if False:',
            ),
        ),
    ),
    Promise(
        name="L-import-in-the-middle",
        says="An import that was begun before a lock offers and stores nothing after it, unlocked or not.",
        control=f"{_KEEPER}: DaemonKeeper.offers, DaemonKeeper.adopt",
        tests=(
            "tests/keeper/test_importing.py::test_locked_in_the_middle[here-offers]",
            "tests/keeper/test_importing.py::test_locked_in_the_middle[here-adopt]",
        ),
        breaks=(
            Break(
                _KEEPER,
                "found = await self._import.offers(source, passphrase=passphrase, names=names)\n"
                "        self._still(epoch)\n",
                "found = await self._import.offers(source, passphrase=passphrase, names=names)\n",
            ),
            Break(
                _KEEPER,
                "key = await self._import.key(source, name, passphrase=passphrase)\n        self._still(epoch)\n",
                "key = await self._import.key(source, name, passphrase=passphrase)\n",
            ),
        ),
        note="Two edits: two calls.",
    ),
    Promise(
        name="L-restart",
        says="A locked daemon starts locked, keyring or passphrase file or not, until `unlock`.",
        control=f"{_KEEPER}: DaemonKeeper._open",
        tests=("tests/keeper/test_open.py::test_locked_survives_a_restart_until_unlock",),
        breaks=(
            Break(
                _KEEPER,
                "if not unlock and self._marker.there():",
                "if False:",
            ),
        ),
    ),
    Promise(
        name="L-said-when-unwritten",
        says="A lock that could not be written, so that a restart would open the store, says so.",
        control=f"{_MARKER}: LockedMarker.put",
        tests=("tests/keeper/test_open.py::test_a_lock_without_disk_still_locks",),
        breaks=(
            Break(
                _MARKER,
                "            raise Unwritable(\n"
                '                f"vaultd is locked, but {self._path} could not be written and a restart would '
                'open the store again: "\n'
                '                f"{_mending(exc)}, then type `vault-client lock` again.",\n'
                "                path=str(self._path),\n"
                "            ) from exc\n",
                "",
            ),
        ),
    ),
    Promise(
        name="L-idle",
        says="With `lock_after_idle` the daemon locks when nobody used it for so long.",
        control=f"{_LOCKING}: Locking.run",
        tests=("tests/presence/test_locking.py::test_nobody_used_it_for_so_long",),
        breaks=(Break(_LOCKING, "if left <= 0 and self._unlocking.openable:", "if False:"),),
    ),
    Promise(
        name="L-idle-after-sleep",
        says="Idle counts the time asleep: the first request after it is refused, whichever timer is late.",
        control=f"{_LOCKING}: Locking.used",
        tests=(
            "tests/presence/test_locking.py::test_the_first_request_after_a_long_sleep_is_refused",
            "tests/presence/test_locking.py::test_a_command_that_comes_too_late_is_refused",
        ),
        breaks=(
            Break(
                _LOCKING,
                "if self._after is not None and now - self._used >= self._after and self._unlocking.openable:",
                "if False:",
            ),
        ),
    ),
    Promise(
        name="L-looking-is-no-use",
        says="What only looks (`status --watch`, `list`, `log`) keeps nothing open.",
        control="vaultd/web/control.py: _looks",
        tests=("tests/presence/test_locking.py::test_looking_does_not",),
        breaks=(Break("vaultd/web/control.py", "using = not _looks(request)", "using = True"),),
    ),
    Promise(
        name="L-suspend",
        says="With `lock_on_suspend` the machine is held up until the keys are forgotten and that is on disk.",
        control=f"{_LOGIND}: Logind._sleeping",
        tests=(
            "tests/presence/test_logind.py::test_a_sleep_waits_for_the_acknowledgement",
            "tests/presence/test_locking.py::test_a_suspend_finds_nothing",
        ),
        breaks=(
            Break(
                _LOGIND,
                '        try:\n            await self._lock("suspend")\n        finally:\n',
                '        self._release()\n        try:\n            await self._lock("suspend")\n        finally:\n',
            ),
        ),
    ),
    Promise(
        name="L-unannounced-sleep",
        says="A sleep that nobody announced locks within 5 s of waking.",
        control="vaultd/host/presence.py: Presence._watch_clocks",
        tests=("tests/presence/test_logind.py::test_a_sleep_that_was_not_announced_locks_after_it",),
        breaks=(Break("vaultd/host/presence.py", "if self._asleep_so_far - before >= _LEAST:", "if False:"),),
    ),
    Promise(
        name="L-screen",
        says="With `lock_on_screen_lock` a locked screen of yours locks the daemon.",
        control=f"{_LOGIND}: Logind._screen_locked",
        tests=(
            "tests/presence/test_logind.py::test_a_screen_of_this_user_locks",
            "tests/presence/test_locking.py::test_a_locked_screen_locks",
        ),
        breaks=(
            Break(
                _LOGIND,
                "        if path in self._mine or not await self._is_anothers(path):\n"
                '            await self._lock("screen")\n',
                "        del path\n",
            ),
        ),
    ),
    Promise(
        name="L-only-logind",
        says="Only logind itself says that the machine sleeps or the screen is locked.",
        control=f"{_LOGIND}: Logind._heard",
        tests=("tests/presence/test_logind.py::test_only_logind_says_so",),
        breaks=(
            Break(
                _LOGIND,
                "elif signal.sender == self._owner and signal.interface == MANAGER.interface:",
                "elif signal.interface == MANAGER.interface:",
            ),
            Break(
                _LOGIND,
                "        elif signal.sender == self._owner:\n            self._sessioned(signal)",
                "        else:\n            self._sessioned(signal)",
            ),
            Break(_LOGIND, "return bool(sender) and sender == self._owner", "return True"),
        ),
        note="One for the machine's signals, one for the sessions', and one for whom the connection reads at all. The "
        "match rules at the bus stand before them.",
    ),
    Promise(
        name="L-strangers-unread",
        says="What another user sends us over the system bus is not read: it costs neither the connection nor memory.",
        control=f"{_LOGIND}: Logind._hears; vaultd/host/system_bus.py: Bus._take",
        tests=("tests/presence/test_logind.py::test_strangers_take_neither_bus_nor_memory",),
        breaks=(Break(_LOGIND, "return bool(sender) and sender == self._owner", "return True"),),
        note="The large one is let pass by its size as well, so it is the garbled one that fails.",
    ),
    Promise(
        name="L-sigusr1",
        says="SIGUSR1 locks.",
        control="vaultd/lifecycle/permanent.py: catch_signals",
        tests=("tests/presence/test_locking.py::test_sigusr1_drops_all",),
        breaks=(
            Break(
                "vaultd/lifecycle/permanent.py",
                "loop.add_signal_handler(signal.SIGUSR1, lock)",
                "loop.add_signal_handler(signal.SIGUSR1, lambda: None)",
            ),
        ),
    ),
    Promise(
        name="L-unlock-slowed",
        says="A wrong passphrase costs 0.1 s more each time, and nothing is ever locked out for good.",
        control="vaultd/lifecycle/unlocking.py: Unlocking._refused",
        tests=("tests/web/test_control_life.py::test_a_wrong_passphrase_costs_more_each_time",),
        breaks=(
            Break(
                "vaultd/lifecycle/unlocking.py",
                "            await self._clock.sleep(min(WRONG_SECONDS * self._wrong, MOST_SECONDS))\n",
                "",
            ),
        ),
    ),
)

PROMISES: tuple[Promise, ...] = (*FLOODS, *LOCKS)
