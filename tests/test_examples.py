"""examples/tutorial: templates that cfn-lint passes, a deploy command each, and a config that stock botocore reads."""

import re
import runpy
import shlex
from pathlib import Path

import pytest
from botocore.configloader import load_config
from cfnlint import lint_file  # type: ignore[import-untyped]

from tests.strict_sts.live import SERIAL, WORLD, role
from tests.strict_sts.templates import read_yaml

TUTORIAL = Path(__file__).parents[1] / "examples" / "tutorial"
TEMPLATES = sorted([*TUTORIAL.glob("*.yaml"), *WORLD.parent.glob("scenario-*.yaml")])


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_cfn_lint(template: Path) -> None:
    """Clean, warnings and hints included."""
    assert [str(match) for match in lint_file(template)] == []


def test_cfn_lint_finds_what_is_wrong(tmp_path: Path) -> None:
    """Positive control: a role without a trust policy is found."""
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("Resources:\n  R:\n    Type: AWS::IAM::Role\n    Properties: {RoleName: x}\n")

    assert lint_file(wrong)


@pytest.mark.parametrize("stack", ["identity", "production"])
def test_deploy_command(stack: str) -> None:
    """One documented command a stack, that names the file, and a value for each parameter that has no default."""
    readme = (TUTORIAL / "README.md").read_text("utf-8")
    (command,) = [
        line for line in readme.splitlines() if line.startswith("aws cloudformation") and f"{stack}-account" in line
    ]
    words = shlex.split(command)
    template = TUTORIAL.parents[1] / words[words.index("--template-file") + 1]
    needed = {name for name, shape in read_yaml(template)["Parameters"].items() if "Default" not in shape}
    given = words[words.index("--parameter-overrides") + 1 :]

    assert all(re.fullmatch(r"\w+=\d{12}", each) for each in given)
    assert {each.partition("=")[0] for each in given} == needed
    assert "CAPABILITY_NAMED_IAM" in words


def test_config_is_the_tutorials(tmp_path: Path) -> None:
    """The profile of the tutorial, with the accounts of the emulator's world and without keys."""
    profiles = load_config(str(TUTORIAL / "aws-config"))["profiles"]

    assert profiles["web-admin"] == {
        "source_profile": "identity",
        "role_arn": role("WebAdmin"),
        "mfa_serial": SERIAL,
        "region": "us-east-1",
    }
    assert list(profiles) == ["web-admin"]


def test_the_demo_tells_its_passphrase(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Whoever plays on locks and unlocks, and what was typed for him was not shown."""
    demo = runpy.run_path(str(TUTORIAL.parent / "demo.py"))
    shell = tmp_path / "bash"
    shell.write_text("#!/bin/sh\necho played\n")
    shell.chmod(0o700)
    demo["play"]({"PATH": str(tmp_path)}, tmp_path, "http://127.0.0.1:1")
    told, _, played = capfd.readouterr().out.partition("Leave with `exit`.")

    assert f"passphrase, after a lock: {demo['PASSPHRASE']}\n" in told
    assert played == "\nplayed\n"
    assert demo["PASSPHRASE"] in demo["CLOSING"]
