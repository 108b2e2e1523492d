"""How a command ends early: one sentence for stderr, which names the thing and what to type, and an exit status."""

from __future__ import annotations

TYPE_CHECKING = False  # the real one costs an import of typing (1.5 ms) at every start
if TYPE_CHECKING:
    from typing import Any

USAGE = 2
NEEDS_PERSON = 3
UNREACHABLE = 69
TEMPORARY = 75
MISCONFIGURED = 78


class Stop(Exception):
    """End this command with `exit_status`, after `vault-client: MESSAGE` on stderr."""

    def __init__(self, message: str, exit_status: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.exit_status = exit_status


class Refusal(Stop):
    """An error body of the control API: `body` is all of it, `status` the HTTP one."""

    def __init__(self, *, status: int, body: dict[str, Any]) -> None:
        wanted = body.get("exit")
        super().__init__(
            str(body.get("message") or f"vaultd answered {status} without a reason: look at it with `vaultd logs`"),
            wanted if isinstance(wanted, int) and wanted > 0 else 1,
        )
        self.status = status
        self.body = body
        self.code = str(body.get("code") or "")

    @property
    def prompt(self) -> dict[str, Any] | None:
        """The question that stands between this call and its answer (409 MfaRequired); `opened`: by this call."""
        prompt = self.body.get("prompt")
        if self.code != "MfaRequired" or not isinstance(prompt, dict):
            return None
        return {**prompt, "opened": self.body.get("opened") is True}
