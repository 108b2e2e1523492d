"""T4 and T5: a web page, and machines beyond this one."""

from __future__ import annotations

from typing import Final

from tests.promises.promise import Break, Promise

_LINE: Final = "vaultd/web/connection.py"
_GUARD: Final = "vaultd/web/guard.py"
_SOCKETS: Final = "vaultd/host/sockets.py"
_APP: Final = "vaultd/web/app.py"
_LIMIT_TESTS: Final = "tests/web/test_limits.py"
_GUARD_TESTS: Final = "tests/web/test_guard.py"
_APP_TESTS: Final = "tests/web/test_app.py"
_IMDS_TESTS: Final = "tests/web/test_imds.py"
_SOCKET_TESTS: Final = "tests/host/test_sockets.py"
_HAND_OVER_TESTS: Final = "tests/link_local/test_handover.py"


def _case(name: str) -> str:
    return f"tests/adversary/test_cases.py::test_case[{name}]"


def _header(name: str, edit: tuple[str, str]) -> Promise:
    return Promise(
        name=f"T4-{name.lower()}",
        says=f"A request with {name}, even empty, is refused: no SDK sends it.",
        control=f"{_GUARD}: Guard.refusal",
        tests=(f"{_GUARD_TESTS}::test_browser_headers_over_the_socket",),
        breaks=(Break(_GUARD, *edit),),
    )


T4: Final[tuple[Promise, ...]] = (
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

T5: Final[tuple[Promise, ...]] = (
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
