"""S3 through boto3."""

import base64
import hashlib
import urllib.request
from typing import Any
from urllib.error import HTTPError

import pytest
from botocore.exceptions import ClientError

from tests.conftest import Outcrop

ODD_KEYS = [
    "a b",
    "ü/漢字",
    "plus+and&amp;",
    "100%",
    "a//b",
    "./x",
    "..",
    "tab\tkey",
    "quote'\"",
    "x" * 1024,
    "emoji🙂",
    "~tilde-_.!*()",
]


@pytest.fixture(scope="module")
def s3(outcrop: Outcrop) -> Any:
    client = outcrop.client("s3")
    client.create_bucket(Bucket="things")
    return client


def code(caught: Any) -> str:
    return str(caught.value.response["Error"]["Code"])


@pytest.mark.parametrize("key", ODD_KEYS)
def test_any_key_comes_back(s3: Any, key: str) -> None:
    s3.put_object(
        Bucket="things", Key=f"odd/{key}"[:1024], Body=key.encode(), Metadata={"note": "x"}, ContentType="text/odd"
    )
    got = s3.get_object(Bucket="things", Key=f"odd/{key}"[:1024])
    assert (got["Body"].read(), got["Metadata"], got["ContentType"]) == (key.encode(), {"note": "x"}, "text/odd")
    listed = [
        entry["Key"]
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket="things", Prefix="odd/")
        for entry in page["Contents"]
    ]
    assert f"odd/{key}"[:1024] in listed


def test_ranges_and_conditions(s3: Any) -> None:
    etag = s3.put_object(Bucket="things", Key="r", Body=b"0123456789")["ETag"]
    assert etag == f'"{hashlib.md5(b"0123456789").hexdigest()}"'
    for given, expected in (
        ("bytes=2-4", b"234"),
        ("bytes=7-", b"789"),
        ("bytes=-2", b"89"),
        ("bytes=0-99", b"0123456789"),
    ):
        got = s3.get_object(Bucket="things", Key="r", Range=given)
        assert got["Body"].read() == expected
        assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket="things", Key="r", Range="bytes=99-100")
    assert code(caught) == "InvalidRange"
    for given, expected in ({"IfMatch": '"x"'}, "PreconditionFailed"), ({"IfNoneMatch": etag}, "304"):
        with pytest.raises(ClientError) as caught:
            s3.get_object(Bucket="things", Key="r", **given)
        assert code(caught) == expected
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket="things", Key="r", Body=b"new", IfNoneMatch="*")
    assert code(caught) == "PreconditionFailed"
    s3.put_object(Bucket="things", Key="r", Body=b"new", IfMatch=etag)
    assert s3.head_object(Bucket="things", Key="r")["ContentLength"] == 3


def test_listing_with_delimiter_and_pages(s3: Any) -> None:
    for number in range(5):
        for folder in ("p/a/", "p/b/", "p/"):
            s3.put_object(Bucket="things", Key=f"{folder}{number}", Body=b"")
    found: list[str] = []
    token: dict[str, str] = {}
    while True:
        page = s3.list_objects_v2(Bucket="things", Prefix="p/", Delimiter="/", MaxKeys=2, **token)
        assert page["KeyCount"] <= 2
        found += [entry["Key"] for entry in page.get("Contents", [])] + [
            entry["Prefix"] for entry in page.get("CommonPrefixes", [])
        ]
        if not page["IsTruncated"]:
            break
        token = {"ContinuationToken": page["NextContinuationToken"]}
    assert sorted(found) == ["p/0", "p/1", "p/2", "p/3", "p/4", "p/a/", "p/b/"]
    assert len(found) == 7
    old = s3.list_objects(Bucket="things", Prefix="p/", Marker="p/3")
    assert [entry["Key"] for entry in old["Contents"]][:2] == ["p/4", "p/a/0"]
    after = s3.list_objects_v2(Bucket="things", Prefix="p/", StartAfter="p/b/3")
    assert [entry["Key"] for entry in after["Contents"]] == ["p/b/4"]


def test_copies_and_deletions(s3: Any) -> None:
    s3.put_object(Bucket="things", Key="c/ü 1", Body=b"data", Metadata={"a": "1"})
    s3.copy_object(Bucket="things", Key="c/2", CopySource={"Bucket": "things", "Key": "c/ü 1"})
    s3.copy_object(
        Bucket="things", Key="c/3", CopySource="things/c/2", MetadataDirective="REPLACE", Metadata={"b": "2"}
    )
    assert s3.head_object(Bucket="things", Key="c/2")["Metadata"] == {"a": "1"}
    assert s3.head_object(Bucket="things", Key="c/3")["Metadata"] == {"b": "2"}
    answer = s3.delete_objects(Bucket="things", Delete={"Objects": [{"Key": "c/2"}, {"Key": "c/nothing"}]})
    assert len(answer["Deleted"]) == 2
    s3.delete_object(Bucket="things", Key="c/3")
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket="things", Prefix="c/")["Contents"]] == ["c/ü 1"]


def test_uploads_in_parts(s3: Any) -> None:
    upload = s3.create_multipart_upload(Bucket="things", Key="m", Metadata={"k": "v"})["UploadId"]
    parts = [b"a" * (5 << 20), b"b" * 100]
    etags = [
        s3.upload_part(Bucket="things", Key="m", UploadId=upload, PartNumber=number, Body=part)["ETag"]
        for number, part in enumerate(parts, 1)
    ]
    assert [part["Size"] for part in s3.list_parts(Bucket="things", Key="m", UploadId=upload)["Parts"]] == [
        5 << 20,
        100,
    ]
    named = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
    with pytest.raises(ClientError) as caught:
        s3.complete_multipart_upload(Bucket="things", Key="m", UploadId=upload, MultipartUpload={"Parts": named[::-1]})
    assert code(caught) == "InvalidPartOrder"
    done = s3.complete_multipart_upload(Bucket="things", Key="m", UploadId=upload, MultipartUpload={"Parts": named})
    assert done["ETag"].endswith('-2"')
    got = s3.get_object(Bucket="things", Key="m")
    assert (got["Body"].read(), got["Metadata"]) == (b"".join(parts), {"k": "v"})
    with pytest.raises(ClientError) as caught:
        s3.abort_multipart_upload(Bucket="things", Key="m", UploadId=upload)
    assert code(caught) == "NoSuchUpload"


def test_a_damaged_body_is_refused_and_leaves_nothing(s3: Any) -> None:
    wrong = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket="things", Key="d", Body=b"data", ContentMD5=wrong)
    assert code(caught) == "BadDigest"
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket="things", Key="d", Body=b"data", ChecksumCRC32="AAAAAA==")
    assert code(caught) == "BadDigest"
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket="things", Key="d")
    assert code(caught) == "NoSuchKey"
    for algorithm in ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"):
        s3.put_object(Bucket="things", Key="d", Body=b"data", ChecksumAlgorithm=algorithm)
        got = s3.get_object(Bucket="things", Key="d", ChecksumMode="ENABLED")
        assert got[f"Checksum{algorithm}"]
        assert got["Body"].read() == b"data"


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_presigned_urls_read_and_write(outcrop: Outcrop, s3: Any, version: str) -> None:
    client = outcrop.client("s3", config={"signature_version": version})
    put = client.generate_presigned_url("put_object", Params={"Bucket": "things", "Key": "signed ü"}, ExpiresIn=60)
    urllib.request.urlopen(urllib.request.Request(put, b"by url", method="PUT", headers={"Content-Type": ""})).close()
    get = client.generate_presigned_url("get_object", Params={"Bucket": "things", "Key": "signed ü"}, ExpiresIn=60)
    with urllib.request.urlopen(get) as answer:
        assert answer.read() == b"by url"
    with pytest.raises(HTTPError) as caught:
        urllib.request.urlopen(get.replace("signed", "sinned"))
    assert caught.value.code == 403
    caught.value.close()


def test_buckets_and_what_is_remembered_of_them(s3: Any) -> None:
    with pytest.raises(ClientError) as caught:
        s3.create_bucket(Bucket="1.2.3.4")
    assert code(caught) == "InvalidBucketName"
    s3.create_bucket(Bucket="euro", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    assert s3.get_bucket_location(Bucket="euro")["LocationConstraint"] == "eu-west-1"
    with pytest.raises(ClientError) as caught:
        s3.get_bucket_policy(Bucket="euro")
    assert code(caught) == "NoSuchBucketPolicy"
    s3.put_bucket_policy(Bucket="euro", Policy='{"a": 1}')
    assert s3.get_bucket_policy(Bucket="euro")["Policy"] == '{"a": 1}'
    rules = [{"AllowedMethods": ["GET"], "AllowedOrigins": ["*"], "AllowedHeaders": ["x"]}]
    s3.put_bucket_cors(Bucket="euro", CORSConfiguration={"CORSRules": rules})
    assert s3.get_bucket_cors(Bucket="euro")["CORSRules"] == rules
    s3.put_object(Bucket="euro", Key="k", Body=b"")
    with pytest.raises(ClientError) as caught:
        s3.delete_bucket(Bucket="euro")
    assert code(caught) == "BucketNotEmpty"
    s3.delete_object(Bucket="euro", Key="k")
    s3.delete_bucket(Bucket="euro")
    with pytest.raises(ClientError) as caught:
        s3.list_objects_v2(Bucket="euro")
    assert code(caught) == "NoSuchBucket"
    with pytest.raises(ClientError) as caught:
        s3.get_object_acl(Bucket="things", Key="r")
    assert code(caught) == "NotImplemented"
