"""Our canonical forms are botocore's."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import HmacV1QueryAuth, S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from outcrop.errors import Denied
from outcrop.wire import sigv2, sigv4

CREDENTIALS = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
HOST = "http://127.0.0.1:8787"
CASES = [
    ("GET", "/foundation-models", "", b""),
    ("POST", "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Aprovisioned-model%2Fabcdefghijkl/converse", "", b"{}"),
    ("POST", "/model/arn:aws:bedrock:us-east-1:1:x/y/converse", "", b"{}"),
    ("GET", "/tags/a%20b", "tagKeys=a%20b&tagKeys=c&z=%2F%2B", b""),
    ("GET", "/b/key%20with%20%C3%BC%2Bplus", "versionId=&uploads&prefix=a%2Fb", b""),
]  # fmt: skip


def incoming(request: AWSRequest) -> sigv4.Request:
    parts = urlsplit(request.url)
    headers = {name.lower(): str(value) for name, value in request.headers.items()}
    return sigv4.Request(request.method, parts.path, parts.query, {"host": parts.netloc, **headers})


def signed(signer: Any, method: str, path: str, query: str, body: bytes) -> sigv4.Request:
    request = AWSRequest(
        method, f"{HOST}{path}{'?' + query if query else ''}", data=body, headers={"content-type": "application/json"}
    )
    signer.add_auth(request)
    return incoming(request)


def check(
    request: sigv4.Request, payload_hash: str, secret: str = str(CREDENTIALS.secret_key), now: datetime | None = None
) -> None:
    scope = sigv4.scope_of(request)
    assert scope is not None
    sigv4.verify(request, scope, secret, payload_hash, now or datetime.now(UTC))


@pytest.mark.parametrize("case", CASES)
def test_botocores_signature_is_accepted_and_any_change_refused(case: tuple[str, str, str, bytes]) -> None:
    *_, body = case
    request = signed(SigV4Auth(CREDENTIALS, "bedrock", "eu-west-1"), *case)
    digest = hashlib.sha256(body).hexdigest()
    check(request, digest)
    for changed in (
        (request, hashlib.sha256(b"other").hexdigest(), CREDENTIALS.secret_key),
        (request, digest, "another secret"),
        (sigv4.Request("PUT", request.raw_path, request.raw_query, request.headers), digest, CREDENTIALS.secret_key),
        (
            sigv4.Request(request.method, request.raw_path + "x", request.raw_query, request.headers),
            digest,
            CREDENTIALS.secret_key,
        ),
        (sigv4.Request(request.method, request.raw_path, "a=b", request.headers), digest, CREDENTIALS.secret_key),
    ):
        with pytest.raises(Denied):
            check(*changed)


@pytest.mark.parametrize("case", CASES)
def test_s3s_signature_is_accepted(case: tuple[str, str, str, bytes]) -> None:
    request = signed(S3SigV4Auth(CREDENTIALS, "s3", "us-east-1"), *case)
    check(request, request.headers["x-amz-content-sha256"])


def test_presigned_urls_of_both_versions_are_accepted_until_they_expire() -> None:
    later = datetime.now(UTC) + timedelta(seconds=400)
    request = signed(
        S3SigV4QueryAuth(CREDENTIALS, "s3", "us-east-1", expires=300), "GET", "/b/k%20y", "versionId=3", b""
    )
    check(request, sigv4.UNSIGNED)
    with pytest.raises(Denied, match="expired"):
        check(request, sigv4.UNSIGNED, now=later + timedelta(minutes=20))

    plain = AWSRequest("GET", f"{HOST}/b/k%20y?uploads&response-content-type=text%2Fplain")
    HmacV1QueryAuth(CREDENTIALS, expires=300).add_auth(plain)
    old = incoming(plain)
    assert sigv2.access_key_of(old) == CREDENTIALS.access_key
    sigv2.verify(old, str(CREDENTIALS.secret_key), datetime.now(UTC))
    with pytest.raises(Denied, match="does not match"):
        sigv2.verify(old, "another", datetime.now(UTC))
    with pytest.raises(Denied, match="expired"):
        sigv2.verify(old, str(CREDENTIALS.secret_key), later)


def test_an_old_signature_is_refused() -> None:
    request = signed(SigV4Auth(CREDENTIALS, "bedrock", "us-east-1"), "GET", "/guardrails", "", b"")
    with pytest.raises(Denied, match="more than 15 minutes"):
        check(request, hashlib.sha256(b"").hexdigest(), now=datetime.now(UTC) + timedelta(minutes=16))


@pytest.mark.parametrize(
    "header", ["AWS4-HMAC-SHA256 x", "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=1"]
)
def test_a_malformed_signature_is_refused_in_words(header: str) -> None:
    with pytest.raises(Denied, match="the signature needs"):
        sigv4.scope_of(sigv4.Request("GET", "/", "", {"authorization": header}))


def test_a_presigned_url_cannot_be_made_to_do_more() -> None:
    request = signed(S3SigV4QueryAuth(CREDENTIALS, "s3", "us-east-1", expires=300), "PUT", "/b/k", "", b"")
    added = {**request.headers, "x-amz-copy-source": "/other/secret"}
    with pytest.raises(Denied, match="x-amz-copy-source"):
        check(sigv4.Request(request.method, request.raw_path, request.raw_query, added), sigv4.UNSIGNED)
