"""What goes back on the wire: an error as AWS words it, or the XML of the query protocol."""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree as ET

NAMESPACES = {"sts": "https://sts.amazonaws.com/doc/2011-06-15/", "iam": "https://iam.amazonaws.com/doc/2010-05-08/"}


class AwsError(Exception):
    """An error as AWS words it (aws-facts §1.5): status, code, message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Reply:
    """One HTTP answer."""

    status: int
    body: bytes
    content_type: str = "text/xml"
    headers: Mapping[str, str] = field(default_factory=dict)


def request_id() -> str:
    raw = secrets.token_hex(16)
    return "-".join((raw[:8], raw[8:12], raw[12:16], raw[16:20], raw[20:]))


def success(service: str, op: str, result: Mapping[str, Any], rid: str) -> Reply:
    """`result` as <OpResult>: mappings nest, sequences become <member>, None is left out."""
    root = ET.Element(f"{op}Response", xmlns=NAMESPACES[service])
    _fill(ET.SubElement(root, f"{op}Result"), result)
    _fill(ET.SubElement(root, "ResponseMetadata"), {"RequestId": rid})
    return Reply(200, _bytes(root), headers={"x-amzn-RequestId": rid})


def failure(error: AwsError, rid: str, *, service: str, json_protocol: bool = False) -> Reply:
    """The error in the dialect of the service that was called."""
    if json_protocol:
        body = json.dumps({"__type": error.code, "message": error.message}).encode()
        return Reply(error.status, body, "application/x-amz-json-1.1", {"x-amzn-RequestId": rid})
    side = "Receiver" if error.status >= 500 else "Sender"
    root = ET.Element("ErrorResponse", xmlns=NAMESPACES.get(service, "http://webservices.amazon.com/"))
    _fill(ET.SubElement(root, "Error"), {"Type": side, "Code": error.code, "Message": error.message})
    _fill(root, {"RequestId": rid})
    if service == "s3":
        root = root[0]
    return Reply(error.status, _bytes(root), headers={"x-amzn-RequestId": rid})


def _fill(parent: ET.Element, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if value is not None:
            _put(ET.SubElement(parent, name), value)


def _put(element: ET.Element, value: Any) -> None:
    if isinstance(value, Mapping):
        _fill(element, value)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            _put(ET.SubElement(element, "member"), item)
    else:
        element.text = str(value).lower() if isinstance(value, bool) else str(value)


def _bytes(root: ET.Element) -> bytes:
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document


# What the wire rules say in one place, since several files raise them.


def invalid_token() -> AwsError:
    """aws-facts §1.5 row 10: unknown, inactive, deleted, not yet propagated key, or not this key's token."""
    return AwsError(403, "InvalidClientTokenId", "The security token included in the request is invalid.")


def invalid_action(op: str, version: str) -> AwsError:
    """AWS answers 400 where moto answers 500 (aws-facts §3), which botocore would retry."""
    return AwsError(
        400, "InvalidAction", f"Could not find operation {op} for version {version or 'NO_VERSION_SPECIFIED'}"
    )


def validation(*complaints: str) -> AwsError:
    """aws-facts §1.5 rows 4 and 15; the message echoes the value, token codes included."""
    count = len(complaints)
    noun = "validation error" if count == 1 else "validation errors"
    return AwsError(400, "ValidationError", f"{count} {noun} detected: {'; '.join(complaints)}")
