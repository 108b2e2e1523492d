"""T1: another user of the machine at a TCP port, and the token that he would need."""

from __future__ import annotations

from typing import Final

from tests.promises.promise import Break, Promise

_PEERS: Final = "vaultd/host/peers.py"
_LINE: Final = "vaultd/web/connection.py"
_GRANTS: Final = "vaultd/engine/grants.py"
_PEER_TESTS: Final = "tests/host/test_peers.py"
_LIMIT_TESTS: Final = "tests/web/test_limits.py"
_APP_TESTS: Final = "tests/web/test_app.py"
_IMDS_TESTS: Final = "tests/web/test_imds.py"
_GRANT_TESTS: Final = "tests/engine/test_grants.py"


def _case(name: str) -> str:
    return f"tests/adversary/test_cases.py::test_case[{name}]"


T1: Final[tuple[Promise, ...]] = (
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
