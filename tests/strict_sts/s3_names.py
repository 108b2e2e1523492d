"""What an S3 request is called: its operation, and the action that a policy has to allow. S3 names neither on the wire.

Only what real SDKs ask here to see whether their keys are good; anything else has no name, and "s3:Unknown" as action.
"""

from urllib.parse import parse_qs, unquote, urlsplit

ACTIONS = {
    "ListBuckets": "s3:ListAllMyBuckets",
    "ListObjectsV2": "s3:ListBucket",
    "HeadBucket": "s3:ListBucket",
    "CreateBucket": "s3:CreateBucket",
}


def operation(method: str, url: str) -> str:
    """Of a path-style request; the empty string for one that has no name here."""
    parts = urlsplit(url)
    bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
    if key:
        return ""
    if not bucket:
        return "ListBuckets" if method == "GET" else ""
    listing = parse_qs(parts.query).get("list-type") == ["2"]
    return {"GET": "ListObjectsV2" if listing else "", "HEAD": "HeadBucket", "PUT": "CreateBucket"}.get(method, "")


def action(op: str) -> str:
    return ACTIONS.get(op, "s3:Unknown")
