"""T1 to T5: another user of the machine, the port, the page, the network."""

from __future__ import annotations

from typing import Final

from tests.promises.promise import Break, Promise

_PEERS, _LINE, _GUARD = "vaultd/host/peers.py", "vaultd/web/connection.py", "vaultd/web/guard.py"
_GRANTS, _SOCKETS, _APP = "vaultd/engine/grants.py", "vaultd/host/sockets.py", "vaultd/web/app.py"
_POINT, _LINK = "client/vault_client/point.py", "client/vault_client/link.py"
_PEER_TESTS, _LIMIT_TESTS = "tests/host/test_peers.py", "tests/web/test_limits.py"
_GUARD_TESTS, _APP_TESTS, _IMDS_TESTS = "tests/web/test_guard.py", "tests/web/test_app.py", "tests/web/test_imds.py"
_SOCKET_TESTS, _GRANT_TESTS = "tests/host/test_sockets.py", "tests/engine/test_grants.py"
_LINK_TESTS, _FILE_TESTS = "tests/client/test_link.py", "tests/test_files.py"
_HAND_OVER_TESTS = "tests/link_local/test_handover.py"


def _case(name: str) -> str:
    return f"tests/adversary/test_cases.py::test_case[{name}]"


_T1: Final = (
    Promise(
        name="T1-own-uid",
        says="A TCP client is let in only when the kernel says that its socket is this user's.",
        control=f"{_PEERS}: Peers.admits",
        tests=(f"{_PEER_TESTS}::test_another_user_is_refused", _case("T1-stolen-token")),
        breaks=(Break(_PEERS, " and found.uid == self.own_uid and ", " and "),),
    ),
    Promise(
        name="T1-root",
        says="Root is no exception: a socket of uid 0 is refused like any other user's.",
        control=f"{_PEERS}: Peers.admits",
        tests=(f"{_PEER_TESTS}::test_rule", _case("T1-root-himself")),
        breaks=(Break(_PEERS, "found.uid == self.own_uid", "found.uid in {0, self.own_uid}"),),
    ),
    Promise(
        name="T1-orphan",
        says="A socket that nobody holds any more (inode 0, later uid 0) is let in by no uid.",
        control=f"{_PEERS}: Peers.admits",
        tests=(f"{_PEER_TESTS}::test_rule", f"{_PEER_TESTS}::test_uid_0_trap"),
        breaks=(Break(_PEERS, "return found.inode != 0 and ", "return "),),
    ),
    Promise(
        name="T1-states",
        says="Only an established or half-closed socket counts as a client.",
        control=f"{_PEERS}: LIVING",
        tests=(f"{_PEER_TESTS}::test_rule",),
        breaks=(Break(_PEERS, " and found.state in LIVING", ""),),
    ),
    Promise(
        name="T1-fails-closed",
        says="A look-up that ends in an error twice is a refusal.",
        control=f"{_PEERS}: Peers.uid_of",
        tests=(f"{_PEER_TESTS}::test_netlink_socket_is_renewed",),
        breaks=(
            Break(
                _PEERS,
                "                self.close()\n        return None",
                "                self.close()\n        return PeerSocket(self.own_uid, 1, ESTABLISHED)",
            ),
        ),
    ),
    Promise(
        name="T1-answer-fits",
        says="An answer of the kernel counts only when it is one to this very question.",
        control=f"{_PEERS}: Peers._ask",
        tests=(f"{_PEER_TESTS}::test_answers",),
        breaks=(Break(_PEERS, "if kind != _DIAG_BY_FAMILY or ports != ends[:4]:", "if kind != _DIAG_BY_FAMILY:"),),
    ),
    Promise(
        name="T1-not-in-proc",
        says="Without netlink /proc/net/tcp is asked, and who is not in it is refused.",
        control=f"{_PEERS}: Peers._read_proc",
        tests=(f"{_PEER_TESTS}::test_rubbish_in_proc_is_refused",),
        breaks=(
            Break(
                _PEERS,
                "        return None\n\n\ndef _packed",
                "        return PeerSocket(self.own_uid, 1, ESTABLISHED)\n\n\ndef _packed",
            ),
        ),
    ),
    Promise(
        name="T1-at-accept",
        says="Another user's connection is closed at accept, on each listener, before a byte is read or written.",
        control=f"{_LINE}: Connection.connection_made",
        tests=(
            f"{_LIMIT_TESTS}::test_stranger_is_cut_off_before_a_byte",
            f"{_IMDS_TESTS}::test_another_user_gets_not_a_byte",
            _case("T1-scan-of-all-listeners"),
        ),
        breaks=(
            Break(_LINE, "        peer = self._attested()\n", "        peer = self._gate.peers.uid_of(*self.ends)\n"),
        ),
    ),
    Promise(
        name="T1-before-keys",
        says="The client is looked up again between the last wait and the bytes of the keys.",
        control=f"{_LINE}: Connection._send",
        tests=(
            f"{_LIMIT_TESTS}::test_peer_is_looked_up_again_before_the_bytes",
            "tests/web/test_hold.py::test_the_peer_is_looked_up_before_the_head_and_before_the_keys",
        ),
        breaks=(Break(_LINE, "if reply.sent is not None and self._attested() is None:", "if False:"),),
    ),
    Promise(
        name="T1-before-held",
        says="A held answer begins only after the client was looked up again.",
        control=f"{_LINE}: Connection.begin",
        tests=("tests/web/test_hold.py::test_a_stranger_gets_no_head",),
        breaks=(Break(_LINE, "if self.transport is None or self._attested() is None:", "if self.transport is None:"),),
    ),
    Promise(
        name="T1-told",
        says="A user who was turned away is in the audit log.",
        control=f"{_LINE}: Connection._attested",
        tests=(f"{_LIMIT_TESTS}::test_stranger_is_cut_off_before_a_byte",),
        breaks=(
            Break(
                _LINE,
                "            self._gate.turned_away(Sighting(uid=found.uid, inode=None, pid=None))\n",
                "            pass\n",
            ),
        ),
    ),
    Promise(
        name="T1-token",
        says="Nothing opens the credential endpoint but the whole token of a grant, compared as bytes.",
        control=f"{_GRANTS}: Grants.find",
        tests=(f"{_GRANT_TESTS}::test_a_token_finds_its_grant_and_no_other", f"{_APP_TESTS}::test_rows"),
        breaks=(
            Break(
                _GRANTS,
                "living = self._by_digest.get(digest)",
                "living = next(iter(self._by_digest.values()), None)",
            ),
            Break(
                _GRANTS,
                "if living is None or not hmac.compare_digest(living.grant.digest, digest):",
                "if living is None:",
            ),
        ),
        note="two edits: the look-up by SHA-256, and compare_digest behind it",
    ),
    Promise(
        name="T1-token-bytes",
        says="Whatever bytes come as a token are a wrong token, and no error of ours.",
        control=f"{_GRANTS}: Grants.find",
        tests=(f"{_GRANT_TESTS}::test_a_token_finds_its_grant_and_no_other",),
        breaks=(Break(_GRANTS, "sha256(token).digest()", "sha256(token.decode().encode()).digest()"),),
    ),
    Promise(
        name="T1-token-256",
        says="A token is 32 bytes of the system's randomness.",
        control=f"{_GRANTS}: Grants.create",
        tests=(f"{_GRANT_TESTS}::test_only_the_hash_of_a_token_is_kept",),
        breaks=(Break(_GRANTS, "secrets.token_urlsafe(32)", "secrets.token_urlsafe(8)"),),
    ),
    Promise(
        name="T1-token-hashed",
        says="Of a token only its SHA-256 is kept in memory and in grants.json.",
        control=f"{_GRANTS}: Grants.create, Grants.find",
        tests=(f"{_GRANT_TESTS}::test_only_the_hash_of_a_token_is_kept",),
        breaks=(
            Break(_GRANTS, "digest=sha256(token.encode()).digest(),", "digest=token.encode(),"),
            Break(_GRANTS, "        digest = sha256(token).digest()\n", "        digest = token\n"),
        ),
        note="two edits: made and looked up without the hash",
    ),
    Promise(
        name="T1-token-revoked",
        says="A revoked token opens nothing from that turn on.",
        control=f"{_GRANTS}: Grants._end",
        tests=(f"{_APP_TESTS}::test_revoked_and_expired_tokens", f"{_GRANT_TESTS}::test_revoke_ends_one_at_once"),
        breaks=(Break(_GRANTS, "            self._by_digest.pop(grant.digest, None)\n", ""),),
    ),
    Promise(
        name="T1-token-expired",
        says="A token whose grant has ended opens nothing, before any sweep.",
        control=f"{_GRANTS}: Grants._used",
        tests=(f"{_GRANT_TESTS}::test_an_expired_grant_is_no_longer_listed_nor_found",),
        breaks=(
            Break(
                _GRANTS,
                "if boot >= living.deadline or boot - living.used >= self._idle:\n            return None  #",
                "if boot - living.used >= self._idle:\n            return None  #",
            ),
        ),
    ),
    Promise(
        name="T1-token-idle",
        says="A token that was not used for `idle_timeout` opens nothing.",
        control=f"{_GRANTS}: Grants._used",
        tests=(f"{_GRANT_TESTS}::test_an_idle_door_is_not_entered",),
        breaks=(
            Break(
                _GRANTS,
                "if boot >= living.deadline or boot - living.used >= self._idle:\n            return None  #",
                "if boot >= living.deadline:\n            return None  #",
            ),
        ),
    ),
    Promise(
        name="T1-token-process",
        says="The grant of an `exec` ends within 5 s of its command, however that ended.",
        control=f"{_GRANTS}: Grants._orphaned",
        tests=(f"{_GRANT_TESTS}::test_a_grant_ends_with_its_process_within_five_seconds",),
        breaks=(Break(_GRANTS, 'return None if self._alive(bound) else "process ended"', "return None"),),
    ),
    Promise(
        name="T1-door-closes",
        says="Who is connected to an IMDS door is cut off in the turn in which its grant ends.",
        control="vaultd/web/imds.py: DoorSide.close",
        tests=("tests/web/test_doors.py::test_a_port_is_freed_with_its_grant",),
        breaks=(
            Break("vaultd/web/imds.py", "                each.abort()  # type", "                each.busy  # type"),
        ),
    ),
    Promise(
        name="T1-door-has-no-token",
        says="A grant with an IMDS door has no token that opens the credential endpoint.",
        control=f"{_GRANTS}: Grants._admit",
        tests=(f"{_GRANT_TESTS}::test_a_grant_with_a_door_has_no_token_that_opens_anything",),
        breaks=(
            Break(
                _GRANTS,
                "        if living.grant.door is None:\n            self._by_digest",
                "        if True:\n            self._by_digest",
            ),
        ),
    ),
)

_T2: Final = (
    Promise(
        name="T2-directory",
        says="The control socket is made in a directory of the user's with mode 0700 and in no other.",
        control=f"{_SOCKETS}: _check_private",
        tests=(f"{_SOCKET_TESTS}::test_a_directory_that_others_may_enter_is_refused",),
        breaks=(Break(_SOCKETS, " or found.st_mode & 0o077:", ":"),),
    ),
    Promise(
        name="T2-directory-others-write",
        says="A directory of ours into which others may write is refused by name.",
        control="vaultd/files.py: Files._own_dir",
        tests=(f"{_FILE_TESTS}::test_a_directory_that_others_write_to_is_refused",),
        breaks=(Break("vaultd/files.py", "if found.st_mode & _OTHERS_WRITE:", "if False:"),),
    ),
    Promise(
        name="T2-directory-another-users",
        says="A directory that another user put in the place of ours is refused by name.",
        control="vaultd/files.py: Files._own_dir",
        tests=(f"{_FILE_TESTS}::test_a_foreign_directory_is_refused",),
        breaks=(
            Break(
                "vaultd/files.py",
                "        if found.st_uid != os.geteuid():\n            raise ownership",
                "        if False:\n            raise ownership",
            ),
        ),
    ),
    Promise(
        name="T2-directory-link",
        says="A link in the place of a directory of ours is not followed.",
        control="vaultd/files.py: Files._make_dir",
        tests=(f"{_FILE_TESTS}::test_a_link_in_a_directorys_place_is_refused",),
        breaks=(Break("vaultd/files.py", "follow = 0 if is_link else os.O_NOFOLLOW", "follow = 0"),),
    ),
    Promise(
        name="T2-ancestors",
        says="No directory above ours may be written to by others, who could put theirs in its place.",
        control="vaultd/ownership.py: check_ancestors",
        tests=(f"{_FILE_TESTS}::test_an_ancestor_that_others_write_to_is_refused",),
        breaks=(
            Break(
                "vaultd/ownership.py",
                "if mode & stat.S_IWOTH or (mode & stat.S_IWGRP and not _private_group(found)):",
                "if False:",
            ),
        ),
    ),
    Promise(
        name="T2-another-users-home",
        says="Below a directory of another user's (root with a user's HOME) it refuses to start.",
        control="vaultd/ownership.py: check_ancestors",
        tests=(f"{_FILE_TESTS}::test_root_makes_nothing_in_another_users_home",),
        breaks=(Break("vaultd/ownership.py", "if found.st_uid not in trusted:", "if False:"),),
    ),
    Promise(
        name="T2-socket-mode",
        says="The control socket is 0600 from its first moment.",
        control=f"{_SOCKETS}: _bound",
        tests=(
            f"{_SOCKET_TESTS}::test_listen_unix_is_born_private",
            f"{_SOCKET_TESTS}::test_another_user_cannot_connect",
        ),
        breaks=(Break(_SOCKETS, "before = os.umask(0o177)", "before = os.umask(0)"),),
    ),
    Promise(
        name="T2-peercred",
        says="Whatever the modes are, another user's connection to the control socket is closed before a byte is read.",
        control="vaultd/web/control_connection.py: ControlConnection.connection_made",
        tests=(
            "tests/web/test_control_life.py::test_another_user_is_closed_before_any_byte",
            _case("T2-open-modes-new-grant"),
        ),
        breaks=(
            Break(
                "vaultd/web/control_connection.py",
                "if peer is None or peer.uid != processes.own_uid():",
                "if peer is None:",
            ),
        ),
    ),
    Promise(
        name="T2-hand-over-peercred",
        says="The same of the socket over which link-local listeners are handed over.",
        control="vaultd/web/handover.py: Handover._accept",
        tests=(f"{_HAND_OVER_TESTS}::test_another_uid_is_closed_unanswered",),
        breaks=(Break("vaultd/web/handover.py", "if peer is None or peer.uid != self._own_uid:", "if peer is None:"),),
    ),
    Promise(
        name="T2-no-peer",
        says="A connection of which the kernel names no owner is refused.",
        control=f"{_SOCKETS}: peer_of_unix",
        tests=(f"{_SOCKET_TESTS}::test_a_socket_without_a_peer_is_refused",),
        breaks=(
            Break(
                _SOCKETS,
                "        uid, pid = _peer_ids(sock)\n    except OSError:\n        return None",
                "        uid, pid = _peer_ids(sock)\n    except OSError:\n        return Peer(uid=processes.own_uid())",
            ),
        ),
    ),
    Promise(
        name="T2-planted",
        says="A socket that another user put where ours belongs is refused, not taken over.",
        control=f"{_SOCKETS}: _clear_stale",
        tests=(f"{_SOCKET_TESTS}::test_a_socket_of_another_user_is_refused_by_name",),
        breaks=(
            Break(
                _SOCKETS,
                "if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():",
                "if not stat.S_ISSOCK(found.st_mode):",
            ),
        ),
    ),
    Promise(
        name="T2-token-file",
        says="A grant's token file goes with the grant.",
        control=f"{_GRANTS}: Grants._end",
        tests=(f"{_GRANT_TESTS}::test_the_token_file_is_private_and_bare",),
        breaks=(
            Break(
                _GRANTS,
                "            self._remove_token(self.token_path(grant.id))\n            log.info",
                "            log.info",
            ),
        ),
    ),
    Promise(
        name="T2-living",
        says="A control socket that somebody answers on is never removed.",
        control=f"{_SOCKETS}: _clear_stale",
        tests=(f"{_SOCKET_TESTS}::test_a_living_socket_is_never_removed",),
        breaks=(Break(_SOCKETS, "if not locked or _answers(path):", "if not locked:"),),
    ),
)

_T3: Final = (
    Promise(
        name="T3-no-reuseport",
        says="Nobody can share the port: it is not opened with SO_REUSEPORT.",
        control=f"{_SOCKETS}: listen_tcp",
        tests=(f"{_SOCKET_TESTS}::test_listen_tcp_is_on_the_loopback_device_only",),
        breaks=(
            Break(
                _SOCKETS,
                "        _bind_to_loopback(sock)\n        sock.bind",
                "        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)\n"
                "        _bind_to_loopback(sock)\n        sock.bind",
            ),
        ),
    ),
    Promise(
        name="T3-literal",
        says="The URL that is handed out says 127.0.0.1, never localhost, which may be another user's [::1].",
        control="vaultd/model/environment.py: ecs_change, imds_change",
        tests=("tests/model/test_environment.py::test_ecs_variables_are_the_contracts",),
        breaks=(
            Break(
                "vaultd/model/environment.py",
                'f"http://127.0.0.1:{port}{CREDENTIALS_PATH}',
                'f"http://localhost:{port}{CREDENTIALS_PATH}',
            ),
        ),
    ),
    Promise(
        name="T3-literal-imds",
        says="So does the address of an IMDS door.",
        control="vaultd/model/environment.py: imds_change",
        tests=("tests/model/test_environment.py::test_imds_variables_are_the_contracts",),
        breaks=(
            Break(
                "vaultd/model/environment.py",
                'endpoint = f"http://127.0.0.1:{port}/"',
                'endpoint = f"http://localhost:{port}/"',
            ),
        ),
    ),
    Promise(
        name="T3-client-asks-whose",
        says="`use` and `exec` hand out neither URL nor token of a port that another user listens on.",
        control=f"{_POINT}: check_listener",
        tests=(
            "tests/client/test_squatters.py::test_neither_url_nor_token_for_a_port_of_his",
            f"{_LINK_TESTS}::test_a_squatter_gets_no_token",
        ),
        breaks=(
            Break(
                _POINT,
                'check_listener(_own_port(str(variables.get(name, "")), closed=imds), again=again)',
                '_own_port(str(variables.get(name, "")), closed=imds)',
            ),
        ),
    ),
    Promise(
        name="T3-client-fails-closed",
        says="Where the client cannot find out who listens it hands nothing out.",
        control=f"{_LINK}: listeners",
        tests=(f"{_LINK_TESTS}::test_no_table_is_no_proof",),
        breaks=(
            Break(
                _LINK,
                '        raise Stop(f"{table} cannot be read',
                '        return None\n        raise Stop(f"{table} cannot be read',
            ),
        ),
    ),
    Promise(
        name="T3-client-nobody",
        says="A port on which nobody listens is not handed out either.",
        control=f"{_LINK}: check_listener",
        tests=(f"{_LINK_TESTS}::test_nobody_listens",),
        breaks=(
            Break(_LINK, "    if not owners:\n        raise", "    if not owners:\n        return\n        raise"),
        ),
    ),
    Promise(
        name="T3-another-device",
        says="A listener of another user's on another network device does not count as ours, nor against it.",
        control=f"{_LINK}: listeners",
        tests=(f"{_LINK_TESTS}::test_every_listener_of_the_port_is_read",),
        breaks=(
            Break(
                _LINK,
                "                    if found[-1] == os.getuid():\n                        break",
                "                    break",
            ),
        ),
    ),
    Promise(
        name="T3-client-literal",
        says="The client uses no address of the daemon's that is not on 127.0.0.1.",
        control=f"{_POINT}: _own_port",
        tests=(f"{_LINK_TESTS}::test_only_the_literal_loopback",),
        breaks=(Break(_POINT, 'or name != "127.0.0.1" or', 'or name not in {"127.0.0.1", "localhost"} or'),),
    ),
    Promise(
        name="T3-client-peercred",
        says="The client says nothing to a control socket that another user listens on.",
        control=f"{_LINK}: _check_owner",
        tests=(
            f"{_LINK_TESTS}::test_foreign_socket_gets_nothing",
            "tests/client/test_squatters.py::test_nothing_is_said_to_a_control_socket_of_his",
        ),
        breaks=(Break(_LINK, "    if uid != os.getuid():\n        owner", "    if False:\n        owner"),),
    ),
    Promise(
        name="T3-doctor",
        says="`vault-client doctor` names the user who holds the port of this shell.",
        control="client/vault_client/doctor.py: Doctor._listened",
        tests=("tests/client/test_squatters.py::test_doctor_names_him",),
        breaks=(
            Break(
                "client/vault_client/doctor.py",
                '            check_listener(port, again=self._again if self._imds else "")\n',
                "",
            ),
        ),
    ),
    Promise(
        name="T3-start-names",
        says="A start on a taken port fails and names who has it.",
        control=f"{_SOCKETS}: _port_refused",
        tests=(
            f"{_SOCKET_TESTS}::test_a_taken_port_names_its_owner",
            f"{_SOCKET_TESTS}::test_a_port_that_another_user_took_names_the_user",
        ),
        breaks=(Break(_SOCKETS, "is taken by {taken_by(port)}: stop", "is taken by another process: stop"),),
    ),
    Promise(
        name="T3-door-squatted",
        says="An IMDS grant whose port somebody took while vaultd was down is revoked, not moved.",
        control="vaultd/web/doors.py: Doors._lose",
        tests=("tests/web/test_doors.py::test_a_taken_port_costs_the_grant_and_is_named",),
        breaks=(
            Break(
                "vaultd/web/doors.py", "            self._grants.revoke(grant.id, reason=why)\n", "            pass\n"
            ),
        ),
    ),
    Promise(
        name="T3-unit-holds",
        says="With the units installed, systemd holds port and socket while vaultd is down, for the user alone.",
        control="systemd/vaultd.socket",
        tests=(
            "tests/service/test_unit_files.py::test_the_life_of_the_unit",
            "tests/service/test_login.py::test_the_sockets_are_nobody_elses",
        ),
        breaks=(Break("systemd/vaultd.socket", "SocketMode=0600\n", "SocketMode=0666\n"),),
    ),
    Promise(
        name="T3-unit-never-lets-go",
        says="A daemon that cannot start gives the port to nobody, however often it was tried.",
        control="systemd/vaultd.socket",
        tests=("tests/service/test_login.py::test_no_limit_gives_the_port_away[]",),
        breaks=(Break("systemd/vaultd.socket", "TriggerLimitIntervalSec=0\n", "TriggerLimitIntervalSec=60\n"),),
        note="systemd's own interval is 2 s, which a slow machine does not reach",
    ),
    Promise(
        name="T3-unit-keeps",
        says="A daemon that stops leaves the service manager's socket where it is.",
        control="vaultd/lifecycle/listening.py: Listening.open",
        tests=("tests/test_daemon.py::test_activation_keeps_the_managers_sockets",),
        breaks=(
            Break(
                "vaultd/lifecycle/listening.py",
                "            self._made.append(path)  # the manager's own stays",
                "        self._made.append(self._layout.control_sock)  # the manager's own stays",
            ),
        ),
    ),
    Promise(
        name="T3-listen-pid",
        says="Sockets that were passed to another process are not taken for ours.",
        control=f"{_SOCKETS}: activated",
        tests=(f"{_SOCKET_TESTS}::test_activated_is_empty_for_another_process",),
        breaks=(Break(_SOCKETS, "if pid != str(os.getpid()) or not", "if not"),),
    ),
)


def _header(name: str, edit: tuple[str, str]) -> Promise:
    return Promise(
        name=f"T4-{name.lower()}",
        says=f"A request with {name}, even empty, is refused: no SDK sends it.",
        control=f"{_GUARD}: Guard.refusal",
        tests=(f"{_GUARD_TESTS}::test_browser_headers_over_the_socket",),
        breaks=(Break(_GUARD, *edit),),
    )


_T4: Final = (
    Promise(
        name="T4-host",
        says="Host has to be 127.0.0.1 or localhost, with our port or none: a rebound name is refused.",
        control=f"{_GUARD}: Guard.refusal",
        tests=(
            f"{_GUARD_TESTS}::test_host_table",
            f"{_IMDS_TESTS}::test_a_foreign_host_is_400_on_put_and_403_on_get",
        ),
        breaks=(
            Break(_GUARD, " if foreign or hosts[0].lower() not in self._hosts else None", " if foreign else None"),
        ),
    ),
    Promise(
        name="T4-rebinding",
        says="A page in a real Chromium whose own name comes to mean 127.0.0.1 reads nothing, even with a token.",
        control=f"{_GUARD}: Guard.refusal",
        tests=(_case("T4-chromium-dns-rebinding"),),
        breaks=(
            Break(_GUARD, " if foreign or hosts[0].lower() not in self._hosts else None", " if foreign else None"),
            Break(_GUARD, "                foreign = True\n", "                pass\n"),
        ),
        note="two edits: Host, and the headers that browsers send with it; each alone has rows of its own",
    ),
    Promise(
        name="T4-host-port",
        says="Another port in Host is another server's.",
        control=f"{_GUARD}: Guard",
        tests=(f"{_GUARD_TESTS}::test_host_table",),
        breaks=(
            Break(_GUARD, "hosts[0].lower() not in self._hosts", 'hosts[0].lower().split(b":")[0] not in self._hosts'),
        ),
    ),
    Promise(
        name="T4-one-host",
        says="There has to be exactly one Host, and not an empty one.",
        control=f"{_GUARD}: Guard.refusal",
        tests=(f"{_GUARD_TESTS}::test_exactly_one_host",),
        breaks=(Break(_GUARD, "if len(hosts) != 1 or not hosts[0] or", "if not hosts or"),),
    ),
    Promise(
        name="T4-origin-form",
        says="A request target is a path; an absolute form, which aiohttp would read as another Host, is refused.",
        control=f"{_GUARD}: _plain",
        tests=(f"{_GUARD_TESTS}::test_other_protocols_and_forms",),
        breaks=(Break(_GUARD, ' or not target.startswith("/"):', ":"),),
    ),
    Promise(
        name="T4-http-1.1",
        says="HTTP/1.1 alone is spoken, since 1.0 needs no Host.",
        control=f"{_GUARD}: _plain",
        tests=(f"{_GUARD_TESTS}::test_other_protocols_and_forms",),
        breaks=(Break(_GUARD, "if message.version != HttpVersion11 or ", "if "),),
    ),
    Promise(
        name="T4-http-only",
        says="Other protocols that the parser takes (RTSP, ICE) are refused.",
        control=f"{_GUARD}: RequestLines",
        tests=(f"{_GUARD_TESTS}::test_other_protocols_of_the_parser",),
        breaks=(Break(_LINE, "if not self._lines.are_http(data):", "if False:"),),
    ),
    _header("Origin", ('b"origin", ', "")),
    _header("Referer", ('b"referer", ', "")),
    _header("Cookie", ('b"cookie", ', "")),
    _header("Upgrade", ('b"upgrade", ', "")),
    _header("Sec-Fetch", ('(b"sec-fetch-", b"x-forwarded-")', '(b"x-forwarded-",)')),
    _header("Forwarded", (', b"forwarded", b"via"})', ', b"via"})')),
    _header("Via", (', b"forwarded", b"via"})', ', b"forwarded"})')),
    Promise(
        name="T4-even-empty",
        says="Such a header counts by its name, whatever its value.",
        control=f"{_GUARD}: Guard.refusal",
        tests=(
            f"{_GUARD_TESTS}::test_browser_headers_over_the_socket",
            f"{_GUARD_TESTS}::test_browser_headers_property",
        ),
        breaks=(
            Break(
                _GUARD,
                "elif name in BROWSER_HEADERS or name.startswith(BROWSER_PREFIXES):",
                "elif value and (name in BROWSER_HEADERS or name.startswith(BROWSER_PREFIXES)):",
            ),
        ),
    ),
    Promise(
        name="T4-get-only",
        says="Credentials are read with GET; OPTIONS, POST and all else is 405, so a preflight fails.",
        control=f"{_APP}: SdkSide._granted",
        tests=(f"{_APP_TESTS}::test_order_of_checks",),
        breaks=(Break(_APP, '        if message.method != "GET":\n', "        if False:\n"),),
    ),
    Promise(
        name="T4-no-cors",
        says="No reply ever has a CORS header.",
        control="vaultd/model/dialects.py: http_message",
        tests=(f"{_APP_TESTS}::test_credentials_whole_message", f"{_APP_TESTS}::test_rows"),
        breaks=(
            Break(
                "vaultd/model/dialects.py",
                '_HEADERS: Final = "Cache-Control: no-store\\r\\n',
                '_HEADERS: Final = "Access-Control-Allow-Origin: *\\r\\nCache-Control: no-store\\r\\n',
            ),
        ),
    ),
    Promise(
        name="T4-door-guard",
        says="An IMDS door gives no metadata token to a page or a rebound name.",
        control="vaultd/web/imds.py: DoorSide._decided",
        tests=(
            f"{_IMDS_TESTS}::test_a_forwarded_request_is_400_on_put_and_403_on_get",
            _case("T4-door-origin"),
        ),
        breaks=(
            Break(
                "vaultd/web/imds.py",
                "if (refusal := self._guard.refusal(message)) is not None:",
                "if (refusal := self._guard.refusal(message)) is not None and False:",
            ),
        ),
    ),
    Promise(
        name="T4-one-authorization",
        says="Two Authorization fields are none.",
        control=f"{_GUARD}: bare_token",
        tests=(f"{_APP_TESTS}::test_two_tokens_are_none",),
        breaks=(
            Break(
                _GUARD,
                '    if len(found) != 1:\n        return b""\n    token',
                '    if not found:\n        return b""\n    token',
            ),
        ),
    ),
)

_T5: Final = (
    Promise(
        name="T5-loopback-address",
        says="TCP is listened for on 127.0.0.1 alone.",
        control=f"{_SOCKETS}: listen_tcp",
        tests=(f"{_SOCKET_TESTS}::test_listen_tcp_is_on_the_loopback_device_only",),
        breaks=(Break(_SOCKETS, 'sock.bind(("127.0.0.1", port))', 'sock.bind(("0.0.0.0", port))'),),
    ),
    Promise(
        name="T5-loopback-device",
        says="The listener is bound to `lo`: with route_localnet 127.0.0.1 is reached from outside.",
        control=f"{_SOCKETS}: _bind_to_loopback",
        tests=(f"{_SOCKET_TESTS}::test_listen_tcp_is_on_the_loopback_device_only",),
        breaks=(
            Break(
                _SOCKETS,
                '            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\\0")\n',
                "            pass\n",
            ),
        ),
    ),
    Promise(
        name="T5-no-socket-here",
        says="A client of which this network namespace has no socket is refused: LAN, containers, DNAT.",
        control=f"{_LINE}: Connection._attested",
        tests=(f"{_LIMIT_TESTS}::test_peer_is_looked_up_again_before_the_bytes",),
        breaks=(
            Break(
                _LINE,
                "found = peers.uid_of(*self.ends)\n        if found is None or",
                "found = peers.uid_of(*self.ends) or PeerSocket(peers.own_uid, 1, 1)\n        if found is None or",
            ),
        ),
    ),
    Promise(
        name="T5-route-localnet",
        says="A machine on the network gets no byte of 127.0.0.1.",
        control=f"{_SOCKETS}: _bind_to_loopback; {_LINE}: Connection._attested",
        tests=(_case("T5-route-localnet"),),
        breaks=(
            Break(
                _SOCKETS,
                '            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\\0")\n',
                "            pass\n",
            ),
            Break(
                _LINE,
                "found = peers.uid_of(*self.ends)\n        if found is None or",
                "found = peers.uid_of(*self.ends) or PeerSocket(peers.own_uid, 1, 1)\n        if found is None or",
            ),
        ),
        note="two edits: device and peer look-up stand behind each other; each alone has a row of its own",
    ),
    Promise(
        name="T5-unit-device",
        says="The sockets that systemd opens for us are on 127.0.0.1 and bound to `lo`.",
        control="systemd/vaultd.socket",
        tests=("tests/service/test_unit_files.py::test_the_life_of_the_unit",),
        breaks=(Break("systemd/vaultd.socket", "BindToDevice=lo\n", ""),),
    ),
    Promise(
        name="T5-link-local-unit",
        says="So are the ones that it opens on the link-local addresses.",
        control="systemd/vaultd-imds.socket, vaultd-ecs.socket",
        tests=("tests/link_local/test_service.py::test_the_sockets_are_of_the_loopback_device",),
        breaks=(
            Break("systemd/vaultd-imds.socket", "BindToDevice=lo\n", ""),
            Break("systemd/vaultd-ecs.socket", "BindToDevice=lo\n", ""),
        ),
        note="two edits: a unit for each address",
    ),
    Promise(
        name="T5-link-local-device",
        says="A link-local listener is bound to `lo`: its address answers ARP on every device.",
        control="vaultd/host/link_local.py: _keep_on_loopback",
        tests=(f"{_HAND_OVER_TESTS}::test_a_socket_that_is_not_bound_to_lo_is_bound_by_us",),
        breaks=(Break("vaultd/host/link_local.py", "    _keep_on_loopback(sock)\n    return sock", "    return sock"),),
    ),
    Promise(
        name="T5-link-local-kind",
        says="What is handed over is served only when it listens on the link-local address itself.",
        control="vaultd/host/link_local.py: _found",
        tests=(f"{_HAND_OVER_TESTS}::test_a_wrong_descriptor_is_refused_by_name",),
        breaks=(
            Break(
                "vaultd/host/link_local.py",
                "return None if (address, port) == (place.address, place.port) else",
                "return None if (address, port) else",
            ),
        ),
    ),
    Promise(
        name="T5-link-local-host",
        says="On a link-local listener Host has to be that address.",
        control="vaultd/web/link_local.py: _Imds.open",
        tests=("tests/link_local/test_addresses.py::test_a_foreign_host_is_refused",),
        breaks=(
            Break(
                "vaultd/web/link_local.py",
                "hosts=(self._grant.door.address,))",
                'hosts=(self._grant.door.address, "127.0.0.1", "localhost"))',
            ),
        ),
    ),
    Promise(
        name="T5-link-local-one",
        says="A link-local address is served for one process of yours at a time.",
        control="vaultd/web/link_local.py: LinkLocalSide._prepared",
        tests=(f"{_HAND_OVER_TESTS}::test_a_second_holder_is_refused_by_name",),
        breaks=(Break("vaultd/web/link_local.py", "if offer.dialect in self._held:", "if False:"),),
    ),
    Promise(
        name="T5-link-local-revoked",
        says="A link-local grant that was revoked has no successor.",
        control="vaultd/web/link_local.py: LinkLocalSide.ended",
        tests=(f"{_HAND_OVER_TESTS}::test_a_revoked_grant_has_none_and_the_giver_is_told",),
        breaks=(Break("vaultd/web/link_local.py", "        if reason not in _BY_ITSELF:\n", "        if False:\n"),),
    ),
    Promise(
        name="T5-link-local-no-root",
        says="Nothing of ours runs as root for a link-local address.",
        control="systemd/vaultd-imds.service",
        tests=("tests/link_local/test_service.py::test_the_two_systemd_services_are_one_but_for_their_words",),
        breaks=(
            Break("systemd/vaultd-imds.service", "User=@USER@\n", ""),
            Break("systemd/vaultd-ecs.service", "User=@USER@\n", ""),
        ),
        note="two edits, since the two units are held to be alike",
    ),
    Promise(
        name="T5-cloud",
        says="On a machine of a cloud, whose own metadata that is, the addresses are not taken.",
        control="vaultd/host/link_local.py: cloud",
        tests=("tests/link_local/test_service.py::test_a_machine_of_a_cloud_is_refused",),
        breaks=(
            Break(
                "vaultd/host/link_local.py",
                'if text.startswith(mark[1:]) if mark[0] == "^" else mark in text:',
                "if not mark:",
            ),
        ),
    ),
)

PROMISES: Final[tuple[Promise, ...]] = (*_T1, *_T2, *_T3, *_T4, *_T5)
