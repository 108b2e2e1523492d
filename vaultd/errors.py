"""Every error of ours, in one tree; each class knows its wire code, HTTP status and exit status.

Rule: a message is one sentence that names the thing and ends in what to type; no secret, no token code and no
request byte enters one (architecture.md §9). Edges translate their package's exceptions once, `raise X from exc`.

    VaultdError                      500 InternalError, exit 1: never on purpose
    ├─ BadRequest                    400; names the field
    │  └─ InvalidCode                400; not six digits, nothing was sent
    ├─ Refused                       what the guard and the grants turn away
    │  ├─ InvalidToken               401
    │  ├─ ForbiddenOrigin · ForbiddenPeer · ProfileMismatch      403
    │  ├─ NotFound                   404
    │  │  └─ UnknownProfile · UnknownIdentity · UnknownGrant · UnknownPrompt
    │  ├─ MethodNotAllowed           405
    │  ├─ IdentityExists             409
    │  ├─ NotImported                409: the source of a key is not deleted
    │  └─ ProtocolMismatch           426
    ├─ NeedsPerson                   4xx: a person has to do something
    │  ├─ MfaRequired                403 (409 on the control API, with the prompt), exit 3
    │  │  ├─ CodeRefused             AWS refused the code (aws-facts §1.5 row 1)
    │  │  └─ ConsentRequired         a person has to allow the calling program (`protected`)
    │  ├─ CodeSpent                  409 with retry_after_seconds: that code was sent before
    │  ├─ TooManyAttempts            403 with retry_after_seconds: cool-down
    │  ├─ Locked                     403
    │  ├─ WrongPassphrase            403
    │  ├─ RotationStopped            409: a key's rotation waits for something that a person does at AWS or decides
    │  ├─ IdentityBroken             403: the stored key is wrong, inactive or gone (rows 10, 11)
    │  └─ RoleDenied                 403: AWS said no (rows 2, 5 to 7)
    │     ├─ DeviceRefused           row 3: the MFA serial is not this user's
    │     ├─ ClockSkewed             row 12, with skew_seconds
    │     ├─ RegionDisabled          row 14
    │     ├─ DurationTooLong         rows 16, 17: retried once with 3,600 s by the broker
    │     └─ PolicyTooLarge          row 18
    ├─ Temporary                     503, exit 75, retryable
    │  ├─ StsUnavailable             row 19, with code_sent: whether a token code may have been consumed
    │  │  ├─ Throttled               row 13: clean, so that the one exception to "never send a code twice" applies
    │  │  └─ KeeperEnded             the keeper's process ended under way, and was started again; with code_sent
    │  ├─ SessionRejected            rows 9, 10: the parent session is dead; inside the keeper and the broker only
    │  ├─ TooManyReaders             16 follow the audit events on the control socket already
    │  └─ KeyringBusy                the OS keyring did not answer in 30 s, or is locked
    └─ Misconfigured                 422, exit 78; names file:line and key
       ├─ BadProfile                 a loop, a missing source, a bad value
       ├─ FileRefused                owner, mode, link, FIFO (interface.md §1)
       ├─ StoreUnavailable           no keyring here: says which store to choose and how
       ├─ StoreDamaged · StoreRolledBack
       └─ Unwritable                 disk full, home read-only, port taken: exit 1
"""

from __future__ import annotations

from typing import Any, ClassVar


class VaultdError(Exception):
    """Base of the tree. `details` are JSON values that travel in the error body beside code and message."""

    code: ClassVar[str] = "InternalError"
    status: ClassVar[int] = 500
    exit: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = details

    @property
    def kind(self) -> str:
        """The class name: finer than the wire code, for logs and for errors that cross a process."""
        return type(self).__name__


class BadRequest(VaultdError):
    """The request cannot be understood; the message names the field."""

    code = "BadRequest"
    status = 400


class InvalidCode(BadRequest):
    """Not six ASCII digits; nothing was sent to AWS (aws-facts §1.5 row 4)."""

    code = "InvalidCode"


class Refused(VaultdError):
    """Turned away before any work was done."""

    status = 403


class InvalidToken(Refused):
    """No, wrong, revoked or expired grant token."""

    code = "InvalidToken"
    status = 401


class ForbiddenOrigin(Refused):
    """A wrong Host, or a header that only browsers and proxies send."""

    code = "ForbiddenOrigin"


class ForbiddenPeer(Refused):
    """The other end belongs to another user, or cannot be attested."""

    code = "ForbiddenPeer"


class ProfileMismatch(Refused):
    """The token is of another profile than the path, or the profile has come to mean another role."""

    code = "ProfileMismatch"


class NotFound(Refused):
    """No such path."""

    code = "NotFound"
    status = 404


class UnknownProfile(NotFound):
    """No such section in the AWS config file; the message gives the nearest names."""

    code = "UnknownProfile"


class UnknownIdentity(NotFound):
    """No key is stored under that name; the message ends in `vault-client add IDENTITY`."""

    code = "UnknownIdentity"


class UnknownGrant(NotFound):
    """No live grant has that id."""

    code = "UnknownGrant"


class UnknownPrompt(NotFound):
    """The question was answered elsewhere, or is gone."""

    code = "UnknownPrompt"


class MethodNotAllowed(Refused):
    """A known path under a method it does not have."""

    code = "MethodNotAllowed"
    status = 405


class IdentityExists(Refused):
    """`add` without `--replace` on a name that holds a key."""

    code = "IdentityExists"
    status = 409


class NotImported(Refused):
    """What is in another program's store is not what is stored here, so it is not deleted there."""

    code = "NotImported"
    status = 409


class ProtocolMismatch(Refused):
    """Client and daemon speak different versions of the control API; names both."""

    code = "ProtocolMismatch"
    status = 426


class NeedsPerson(VaultdError):
    """4xx for what a human must mend, because SDKs then stop at once and several show the text (sdk-facts §3)."""

    status = 403


class MfaRequired(NeedsPerson):
    """A token code is needed; `details["prompt"]` is the question's wire form where one is open."""

    code = "MfaRequired"
    exit = 3


class CodeRefused(MfaRequired):
    """AWS refused the code: wrong, reused or stale, which it does not tell apart. Exit 1: a person was there."""

    exit = 1


class ConsentRequired(MfaRequired):
    """A protected profile, and a program that nobody has allowed yet: the question is of kind `consent`, and goes the
    way of every other (interface.md §6: MfaRequired with its prompt).
    """


class CodeSpent(NeedsPerson):
    """That code was sent before; `retry_after_seconds` until the device shows another one."""

    code = "CodeSpent"
    status = 409


class TooManyAttempts(NeedsPerson):
    """Cool-down after refusals or a cancel; carries `retry_after_seconds`."""

    code = "TooManyAttempts"


class Locked(NeedsPerson):
    """Nothing is served until `vault-client unlock`."""

    code = "Locked"


class WrongPassphrase(NeedsPerson):
    """The file store's passphrase does not open it (told apart from damage by the commit tag)."""

    code = "WrongPassphrase"


class IdentityBroken(NeedsPerson):
    """The stored key is unknown to AWS, inactive, or its secret is wrong: re-add it. Never a reason to ask for MFA."""

    code = "IdentityBroken"


class RotationStopped(NeedsPerson):
    """A rotation cannot go on by itself: two keys already, a stray one, a new one that AWS does not take. What stands
    at AWS is in the sentence; nothing was deleted.
    """

    code = "RotationStopped"
    status = 409


class RoleDenied(NeedsPerson):
    """AWS refused, for a reason that neither a code nor patience mends."""

    code = "RoleDenied"


class DeviceRefused(RoleDenied):
    """The MFA serial is unknown or not this user's: detect once, then name the serial; never re-ask blindly."""


class ClockSkewed(RoleDenied):
    """This machine's clock is off; `skew_seconds` is positive when it is ahead."""


class RegionDisabled(RoleDenied):
    """STS is switched off in that region for that account; names both."""


class DurationTooLong(RoleDenied):
    """Above the role's MaxSessionDuration or the one-hour limit of role chaining."""


class PolicyTooLarge(RoleDenied):
    """Session policy or tags exceed the packed limit; the message carries AWS's percentage."""


class Temporary(VaultdError):
    """It may work later; a session that still lives is served meanwhile."""

    code = "StsUnavailable"
    status = 503
    exit = 75
    retryable = True


class StsUnavailable(Temporary):
    """AWS cannot be reached, answered 5xx, or was not done in time. `details["code_sent"]` when a code went along,
    `details["under_way"]` when the call has not failed and goes on.
    """


class Throttled(StsUnavailable):
    """A clean Throttling: AWS did no work, so the same code may go again (twice at most)."""


class KeeperEnded(StsUnavailable):
    """The keeper's process ended before it answered; another one is there. A code that was handed to it counts as sent
    (`code_sent`).
    """


class TooManyReaders(Temporary):
    """As many readers follow the audit events as the control socket has connections for."""

    code = "TooManyReaders"


class SessionRejected(Temporary):
    """The session that signed the call is dead at AWS; the keeper has dropped it. Never reaches a wire."""


class KeyringBusy(Temporary):
    """The OS keyring is locked or does not answer; everything that needs no keyring goes on."""

    code = "KeyringBusy"


class Misconfigured(VaultdError):
    """The user's files or machine need a change; the message names file:line and key."""

    code = "Misconfigured"
    status = 422
    exit = 78


class BadProfile(Misconfigured):
    """A loop, a missing source_profile or a value that AWS would refuse."""

    code = "BadProfile"


class FileRefused(Misconfigured):
    """A file of ours that is another user's, writable by others, a link, a FIFO or a hard link; never followed."""

    code = "FileRefused"


class StoreUnavailable(Misconfigured):
    """The chosen secret store does not exist here; says which one to choose and how."""

    code = "StoreUnavailable"


class StoreDamaged(Misconfigured):
    """The sealed store is missing, cut or forged; it is never replaced by a new one silently."""

    code = "StoreDamaged"


class StoreRolledBack(Misconfigured):
    """The sealed store is older than the one last seen: `vaultd start --accept-rollback`."""

    code = "StoreRolledBack"


class Unwritable(Misconfigured):
    """Disk full, home read-only, port taken: nothing was lost, and nothing was changed."""

    code = "Unwritable"
    exit = 1
