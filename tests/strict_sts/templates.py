"""CloudFormation templates → IAM resources of one account, intrinsics resolved.

Reads what our templates use and refuses the rest by name, so that a tampered copy is never half understood.
"""

import copy
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

NAME_PROPERTY = {
    "AWS::IAM::User": "UserName",
    "AWS::IAM::Group": "GroupName",
    "AWS::IAM::Role": "RoleName",
    "AWS::IAM::ManagedPolicy": "ManagedPolicyName",
    "AWS::IAM::Policy": "PolicyName",
    "AWS::IAM::UserToGroupAddition": "GroupName",
}
ARN_WORD = {
    "AWS::IAM::User": "user",
    "AWS::IAM::Group": "group",
    "AWS::IAM::Role": "role",
    "AWS::IAM::ManagedPolicy": "policy",
}


class _Loader(yaml.SafeLoader):
    """YAML as CloudFormation reads it: short tags, and no dates (`2012-10-17` is a text, scenarios §4.1)."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if tag != "tag:yaml.org,2002:timestamp"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _short_tag(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True) if isinstance(node, yaml.MappingNode) else None
    return {"Ref" if suffix == "Ref" else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _short_tag)


@dataclass(frozen=True)
class Resource:
    """One resource with its properties resolved; `arn` is empty for types that have none."""

    kind: str
    name: str
    arn: str
    properties: Mapping[str, Any]


def read_yaml(path: Path) -> Any:
    """The file's tree, the caller's own; a text is parsed once, since hundreds of tests read the same world."""
    return copy.deepcopy(_parsed(path.read_text("utf-8")))


@functools.lru_cache(maxsize=32)
def _parsed(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)  # a SafeLoader without dates


def resources(path: Path, *, account: str, parameters: Mapping[str, str]) -> list[Resource]:
    """Every resource of the template at `path`, as deployed to `account`. ValueError names what it cannot read."""
    tree = read_yaml(path)
    return _Stack(path.name, tree, account, parameters).resources()


class _Stack:
    """One template while its references are resolved."""

    def __init__(self, name: str, tree: Mapping[str, Any], account: str, given: Mapping[str, str]) -> None:
        self._name = name
        self._account = account
        self._raw: Mapping[str, Any] = tree["Resources"]
        self._values = {"AWS::AccountId": account, "AWS::Partition": "aws", "AWS::Region": "us-east-1"}
        for parameter, shape in tree.get("Parameters", {}).items():
            if parameter not in given and "Default" not in shape:
                raise ValueError(f"{name}: parameter {parameter} has no value")
            self._values[parameter] = str(given.get(parameter, shape.get("Default")))

    def resources(self) -> list[Resource]:
        return [self._resource(logical) for logical in self._raw]

    def _resource(self, logical: str) -> Resource:
        kind = self._kind(logical)
        return Resource(
            kind, self._named(logical), self._arn(logical), self._resolved(self._raw[logical].get("Properties", {}))
        )

    def _kind(self, logical: str) -> str:
        if logical not in self._raw:
            raise ValueError(f"{self._name}: {logical} is neither a parameter nor a resource")
        kind = str(self._raw[logical]["Type"])
        if kind not in NAME_PROPERTY:
            raise ValueError(f"{self._name}: resource {logical} is of the type {kind}, which is not read here")
        return kind

    def _named(self, logical: str) -> str:
        key = NAME_PROPERTY[self._kind(logical)]
        return str(self._resolved(self._raw[logical].get("Properties", {}).get(key, logical)))

    def _arn(self, logical: str) -> str:
        word = ARN_WORD.get(self._kind(logical))
        path = self._resolved(self._raw[logical].get("Properties", {}).get("Path", "/"))
        return f"arn:aws:iam::{self._account}:{word}{path}{self._named(logical)}" if word else ""

    def _ref(self, name: str) -> str:
        if name in self._values:
            return self._values[name]
        return self._arn(name) if self._kind(name) == "AWS::IAM::ManagedPolicy" else self._named(name)

    def _attribute(self, target: str | list[str]) -> str:
        logical, attribute = target.split(".", 1) if isinstance(target, str) else target
        if attribute != "Arn":
            raise ValueError(f"{self._name}: GetAtt {logical}.{attribute} is not read here")
        return self._arn(logical)

    def _sub(self, text: str) -> str:
        def filled(found: re.Match[str]) -> str:
            name = found[1]
            if name.startswith("!"):  # ${!aws:username} is IAM's to fill in, not CloudFormation's
                return "${" + name[1:] + "}"
            return self._attribute(name) if "." in name else self._ref(name)

        return re.sub(r"\$\{([^}]+)\}", filled, text)

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._resolved(each) for each in value]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((name, inner),) = value.items()
            if name == "Ref" or str(name).startswith("Fn::"):
                return self._intrinsic(name, inner)
        return {key: self._resolved(each) for key, each in value.items()}

    def _intrinsic(self, name: str, inner: Any) -> Any:
        if name == "Ref":
            return self._ref(inner)
        if name == "Fn::GetAtt":
            return self._attribute(inner)
        if name == "Fn::Sub" and isinstance(inner, str):
            return self._sub(inner)
        if name == "Fn::Join":
            glue, parts = inner
            return str(glue).join(str(self._resolved(part)) for part in parts)
        raise ValueError(f"{self._name}: {name} is not read here")
