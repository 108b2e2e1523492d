"""T2 and T3: another user at the control socket, and where our listeners should be."""

from __future__ import annotations

from typing import Final

from tests.promises.promise import Break, Promise

_GRANTS: Final = "vaultd/engine/grants.py"
_SOCKETS: Final = "vaultd/host/sockets.py"
_GRANTING: Final = "client/vault_client/granting.py"
_LINK: Final = "client/vault_client/link.py"
_SOCKET_TESTS: Final = "tests/host/test_sockets.py"
_GRANT_TESTS: Final = "tests/engine/test_grants.py"
_LINK_TESTS: Final = "tests/client/test_link.py"
_FILE_TESTS: Final = "tests/test_files.py"
_HAND_OVER_TESTS: Final = "tests/link_local/test_handover.py"


def _case(name: str) -> str:
    return f"tests/adversary/test_cases.py::test_case[{name}]"


T2: Final[tuple[Promise, ...]] = (
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

T3: Final[tuple[Promise, ...]] = (
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
        control=f"{_GRANTING}: check_listener",
        tests=(
            "tests/client/test_squatters.py::test_neither_url_nor_token_for_a_port_of_his",
            f"{_LINK_TESTS}::test_a_squatter_gets_no_token",
        ),
        breaks=(
            Break(
                _GRANTING,
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
        control=f"{_GRANTING}: _own_port",
        tests=(f"{_LINK_TESTS}::test_only_the_literal_loopback",),
        breaks=(Break(_GRANTING, 'or name != "127.0.0.1" or', 'or name not in {"127.0.0.1", "localhost"} or'),),
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
        control="client/vault_client/used.py: Used._listened",
        tests=("tests/client/test_squatters.py::test_doctor_names_him",),
        breaks=(
            Break(
                "client/vault_client/used.py",
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
