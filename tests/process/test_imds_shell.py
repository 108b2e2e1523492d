"""`eval "$(vault-client use --imds P)"` in a real shell, with the CLIs and boto3 that people have (issue 4, Build 1).

`.venv/bin/aws` is AWS CLI 1; Debian's /usr/bin/aws is AWS CLI 2.9, which glues the path to the address.
"""

from __future__ import annotations

import json

import pytest

from tests.process.harness import Emulator, Home, until

pytestmark = pytest.mark.process

ROLE = "arn:aws:sts::234567890123:assumed-role/WebAdmin"
ASK = "sts get-caller-identity --query Arn --output text"
BOTO = """python -c 'import boto3; s = boto3.Session(); print(s.get_credentials().method)'"""
DOCTOR = """vault-client doctor --json --sdk | python -c '
import json, sys
found = json.load(sys.stdin)
first = found["sdk"][0]
print([each["name"] for each in found["checks"] if not each["ok"]], first["source"], first["vaultd"])
'"""


def in_shell(home: Home, script: str, **environment: str) -> list[str]:
    """The lines that a bash script prints; any command that fails ends it."""
    ran = home.run("bash", "-euc", script, environment=environment)
    assert ran.status == 0, ran
    return ran.out.splitlines()


@pytest.fixture
def opened(home: Home, emulator: Emulator) -> Home:
    """A home whose MFA session is there, so that no `use` asks."""
    used = home.client("mfa", "identity", "--token-code", emulator.code())
    assert used.status == 0, used
    return home


@pytest.mark.needs("/usr/bin/aws")
def test_both_dialects_in_one_shell(opened: Home) -> None:
    """Metadata, container, back: both CLIs and boto3 are the role each time, doctor finds nothing to mend, and at the
    end all is as it was. The user's AWS_EC2_METADATA_DISABLED is out of the way in between, and back afterwards.
    """
    tools = f"""aws {ASK}; /usr/bin/aws --endpoint-url "$AWS_ENDPOINT_URL" {ASK}; {BOTO}; {DOCTOR}"""
    script = f"""
env | sort > before
eval "$(vault-client use --imds web-admin 2>/dev/null)"
test -z "${{AWS_EC2_METADATA_DISABLED+x}}"
{tools}
eval "$(vault-client use web-admin 2>/dev/null)"
{tools}
eval "$(vault-client use web-admin --imds 2>/dev/null)"
{tools}
eval "$(vault-client unuse)"
env | sort > after
diff before after
echo "left $AWS_EC2_METADATA_DISABLED."
vault-client grants --json
"""
    script = f"cd {opened.directory}\n{script}"
    lines = in_shell(opened, script, AWS_EC2_METADATA_DISABLED="")
    left = lines.index("left .")

    expected = [("iam-role", "metadata"), ("container-role", "container"), ("iam-role", "metadata")]
    for at, (method, source) in enumerate(expected):
        first, second, boto, doctor = lines[at * 4 : at * 4 + 4]
        assert first.startswith(ROLE)
        assert second.startswith(ROLE)
        assert boto == method
        assert doctor == f"[] {source} True"
    assert json.loads("\n".join(lines[left + 1 :])) == {"grants": []}


def test_exec_and_its_end(opened: Home) -> None:
    """`exec --imds`: CMD has the role, and its port is closed with it."""
    ran = opened.client("exec", "web-admin", "--imds", "--", "bash", "-euc", f"echo $AWS_METADATA_ENDPOINT; aws {ASK}")
    assert ran.status == 0, ran
    address, arn = ran.out.splitlines()

    assert arn.startswith(ROLE)
    refused = 7  # curl's word for a port that nobody listens on
    until(lambda: opened.run("curl", "-s", address).status == refused, "the port of a command that ended", seconds=10)
    assert opened.client("grants", "--json").json() == {"grants": []}


def test_doctor_names_what_went_wrong(opened: Home) -> None:
    """A revoked grant, a key that was set later and a [default]: each a row of its own with what to type."""
    (opened.directory / ".aws/credentials").write_text("[default]\naws_access_key_id = A\naws_secret_access_key = B\n")
    script = """
eval "$(vault-client use --imds web-admin 2>said)"
cat said
vault-client revoke "$VAULTD_GRANT" 2>/dev/null
export AWS_ACCESS_KEY_ID=AKIACANARY
vault-client doctor || echo "exit $?"
"""
    lines = in_shell(opened, f"cd {opened.directory}\n{script}")
    text = "\n".join(lines)

    assert "warning: SDKs prefer the aws_access_key_id of [default] in " in text.partition("BAD")[0]
    rows = [line for line in lines if line.startswith("BAD")]
    assert [row.split()[1] for row in rows][:3] == ["variables", "credentials", "grant"]
    assert "endpoint " not in text  # its door went with it: that is one cause, and one remedy
    assert "vault-client use web-admin --imds" in lines[lines.index(rows[2]) + 1]
    assert lines[-1] == "exit 1"
    assert "AKIACANARY" not in text
