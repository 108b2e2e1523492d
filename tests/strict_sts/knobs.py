"""What nobody could verify against real AWS (aws-facts §6), and what a test wants to vary; one immutable value."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Knobs:
    """Defaults are the reading that most reports support."""

    direct_mfa_visible_to_identity_policy: bool = True
    gst_counts_as_chain: bool = True
    code_consumed_when_denied: bool = True
    code_consumed_when_throttled: bool = False
    gst_has_username: bool = True
    mfa_params_accepted_from_gst: bool = True
    skew_s: int = 900
    totp_window: int = 1
    key_propagation_s: Mapping[str, float] = field(default_factory=dict)
    region_disabled_scope: str = "auto"
    denied_style: str = "bare"
    session_token_bytes: int = 400
    packed_limit_bytes: int = 4096
    secure_transport: bool = True
    date_header: str = "wire"

    def turned(self, changes: Mapping[str, object]) -> "Knobs":
        """A copy with these knobs changed. Raises ValueError or TypeError for what does not exist."""
        fields = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        for name, value in changes.items():
            if name not in fields:
                raise ValueError(f"no knob {name!r}; there are {', '.join(sorted(fields))}")
            if not isinstance(value, Mapping if name == "key_propagation_s" else type(fields[name])):
                raise TypeError(f"knob {name} takes {type(fields[name]).__name__}, not {value!r}")
            if value not in CHOICES.get(name, (value,)):
                raise ValueError(f"knob {name} takes one of {', '.join(CHOICES[name])}, not {value!r}")
            fields[name] = value
        return Knobs(**fields)


# What CI runs the scenarios under: both readings of the two that change most (scenarios §4.2).
READINGS: tuple[Mapping[str, bool], ...] = tuple(
    {"direct_mfa_visible_to_identity_policy": visible, "code_consumed_when_denied": consumed}
    for visible in (True, False)
    for consumed in (True, False)
)
CHOICES: Mapping[str, tuple[str, ...]] = {
    "region_disabled_scope": ("auto", "role", "caller", "both"),
    "denied_style": ("bare", "2021", "2026"),
    "date_header": ("wire", "logical"),
}
