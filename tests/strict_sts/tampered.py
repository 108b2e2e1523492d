"""Wrong versions of the templates: each one named edit, and the scenario (scenarios §4.4) whose outcome it must change.

An edit that the templates no longer contain raises, so that no tamper can silently become the true text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TUTORIAL = Path(__file__).parents[2] / "examples" / "tutorial"
IDENTITY, PRODUCTION = "identity-account.yaml", "production-account.yaml"


@dataclass(frozen=True)
class Tamper:
    """`probe` names what is asked: its outcome is `before` in the true world, `after` in this one."""

    name: str
    template: str
    edits: tuple[tuple[str, str], ...]
    scenario: str
    probe: str
    before: str
    after: str

    def text(self) -> str:
        """The tampered template. Raises ValueError when an edit does not find its place exactly once."""
        text = (TUTORIAL / self.template).read_text("utf-8")
        for old, new in self.edits:
            if text.count(old) != 1:
                raise ValueError(f"tamper {self.name}: {old!r} stands {text.count(old)} times in {self.template}")
            text = text.replace(old, new)
        return text

    def templates(self, directory: Path) -> Mapping[str, Path]:
        """Writes the tampered copy; gives the emulator's `templates=`."""
        copy = directory / self.template
        copy.write_text(self.text(), "utf-8")
        return {self.template: copy}


PRESENT = '                aws:MultiFactorAuthPresent: "true"\n'
AGE = '              NumericLessThan:\n                aws:MultiFactorAuthAge: "3600"\n'
TRUSTED = "AWS: !Ref IdentityAccountId"
MANAGED = (
    "      ManagedPolicyArns:\n"
    '        - !Sub "arn:${AWS::Partition}:iam::aws:policy/AdministratorAccess-AWSElasticBeanstalk"\n'
)
MEMBERS = "      GroupName: !Ref WebAdminGroup\n      Users:\n        - !Ref Person\n"
ASSUME = 'sts:AssumeRole\n            Resource: !Sub "arn:${AWS::Partition}:iam::${ProductionAccountId}:role/WebAdmin"'
FORCED = 'BoolIfExists:\n                aws:MultiFactorAuthPresent: "false"'
DENIED = "AccessDenied"
OK = "allowed"

TAMPERS = (
    Tamper("mfa-condition-dropped", PRODUCTION, ((PRESENT, ""), (AGE, "")),
        "A1", "bare_key_opens_webadmin", DENIED, OK,
    ),
    Tamper(
        "if-exists-added", PRODUCTION, (("Bool:", "BoolIfExists:"), ("NumericLessThan:", "NumericLessThanIfExists:")),
        "A1", "bare_key_opens_webadmin", DENIED, OK,
    ),
    Tamper("age-raised", PRODUCTION, (('Age: "3600"', 'Age: "36000"'),), "B3", "webadmin_at_age_3601", DENIED, OK),
    Tamper("age-lowered", PRODUCTION, (('Age: "3600"', 'Age: "900"'),), "B1", "webadmin_at_age_3400", OK, DENIED),
    Tamper(
        "age-inclusive", PRODUCTION, (("NumericLessThan:", "NumericLessThanEquals:"),),
        "B3", "webadmin_at_age_3600", DENIED, OK,
    ),
    Tamper("age-dropped", PRODUCTION, ((AGE, ""),),
        "B3", "webadmin_at_age_3601", DENIED, OK,
    ),
    Tamper("principal-widened", PRODUCTION, ((TRUSTED, 'AWS: "*"'),),
        "D12", "stranger_opens_webadmin", DENIED, OK,
    ),
    Tamper("principal-of-another-account", PRODUCTION, ((TRUSTED, 'AWS: "999999999999"'),),
        "A1", "webadmin", OK, DENIED,
    ),
    Tamper(
        "max-session-raised", PRODUCTION, (("MaxSessionDuration: 3600", "MaxSessionDuration: 43200"),),
        "C2", "webadmin_for_twelve_hours", "ValidationError", OK,
    ),
    Tamper(
        "secure-transport-inverted", PRODUCTION, (('aws:SecureTransport: "true"', 'aws:SecureTransport: "false"'),),
        "A1", "webadmin", OK, DENIED,
    ),
    Tamper("managed-policy-dropped", PRODUCTION, ((MANAGED, ""),), "G6", "describe_applications", OK, DENIED),
    Tamper("membership-dropped", IDENTITY, ((MEMBERS, MEMBERS.replace("\n        - !Ref Person", " []")),),
        "A1", "webadmin", OK, DENIED,
    ),
    Tamper(
        "assume-role-of-another-role", IDENTITY, ((ASSUME, ASSUME.replace("WebAdmin", "Other")),),
        "A1", "webadmin", OK, DENIED,
    ),
    Tamper(
        "assume-role-widened", IDENTITY, ((ASSUME, 'sts:AssumeRole\n            Resource: "*"'),),
        "D12", "role_nobody_was_given", DENIED, OK,
    ),
    Tamper("force-mfa-dropped", IDENTITY, (("        - !Ref ForceMFAPolicy\n", ""),),
        "E1", "bare_key_lists_keys", DENIED, OK,
    ),
    Tamper(
        "force-mfa-without-if-exists", IDENTITY, ((FORCED, FORCED.replace("IfExists", "")),),
        "E1", "bare_key_lists_keys", DENIED, OK,
    ),
    Tamper("force-mfa-inverted", IDENTITY, ((FORCED, FORCED.replace("false", "true")),),
        "A1", "webadmin", OK, DENIED,
    ),
    Tamper(
        "force-mfa-hides-devices", IDENTITY,
        (("              - iam:ListMFADevices\n              - iam:ListVirtual", "              - iam:ListVirtual"),),
        "A16", "bare_key_lists_devices", OK, DENIED,
    ),
    Tamper("self-service-without-create", IDENTITY, (("              - iam:CreateAccessKey\n", ""),),
        "E1", "create_key", OK, DENIED,
    ),
    Tamper("self-service-without-update", IDENTITY, (("              - iam:UpdateAccessKey\n", ""),),
        "E6", "update_key", OK, DENIED,
    ),
)  # fmt: skip

# The negative control: GetSessionToken cannot be denied by policy (aws-facts §1.1), so this edit changes nothing.
UNDENIABLE = Tamper(
    "force-mfa-without-get-session-token",
    IDENTITY,
    (("              - sts:GetSessionToken\n", ""),),
    "A1",
    "webadmin",
    OK,
    OK,
)
