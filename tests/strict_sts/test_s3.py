"""S3 behind the front door: real SDKs' requests have names, and a signature that is verified as S3's."""

import pytest
from botocore.exceptions import ClientError

from tests.strict_sts import s3_names
from tests.strict_sts.bench import Bench
from tests.strict_sts.live import StrictStsThread, role


def allowing(*actions: str) -> dict[str, object]:
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
    return {"Version": "2012-10-17", "Statement": [statement]}


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/", "ListBuckets"),
        ("GET", "/?x-id=ListBuckets", "ListBuckets"),
        ("GET", "/bucket?delimiter=%2F&list-type=2", "ListObjectsV2"),
        ("GET", "/bucket/?list-type=2", "ListObjectsV2"),
        ("HEAD", "/bucket", "HeadBucket"),
        ("PUT", "/bucket", "CreateBucket"),
        ("GET", "/bucket?acl", ""),
        ("GET", "/bucket/key", ""),
        ("PUT", "/bucket/key?list-type=2", ""),
        ("DELETE", "/", ""),
    ],
)
def test_names(method: str, path: str, name: str) -> None:
    """The operation follows from method, path and query; what is not known here has no name."""
    assert s3_names.operation(method, f"http://127.0.0.1:1{path}") == name


def test_an_s3_call_is_verified_authorized_and_logged() -> None:
    """With s3:ListBucket a bucket is listed, all buckets are not; a wrong secret is refused as S3 refuses it."""
    with StrictStsThread(with_moto=True) as strict:
        bench = Bench(strict)
        keys = bench.assume("LongOps", bench.mfa())
        strict.mutate(policy={"principal": role("LongOps"), "name": "s3", "document": allowing("s3:CreateBucket")})
        bench.client("s3", keys).create_bucket(Bucket="a-bucket")
        strict.mutate(policy={"principal": role("LongOps"), "name": "s3", "document": allowing("s3:ListBucket")})
        listed = bench.client("s3", keys).list_objects_v2(Bucket="a-bucket")
        with pytest.raises(ClientError, match="s3:ListAllMyBuckets"):
            bench.client("s3", keys).list_buckets()
        with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
            bench.client("s3", {**keys, "SecretAccessKey": "wrong"}).list_objects_v2(Bucket="a-bucket")
        rows = [(call.op, call.status) for call in strict.calls() if call.service == "s3"]

    assert listed["KeyCount"] == 0
    assert rows == [("CreateBucket", 200), ("ListObjectsV2", 200), ("ListBuckets", 403), ("ListObjectsV2", 403)]
