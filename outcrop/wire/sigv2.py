"""Presigned S3 URLs of Signature Version 2, which boto3 and the AWS CLI still make in us-east-1 unless told otherwise.

Only the query form is taken; requests signed in headers use version 4 everywhere. Canonical form: AWS, "Signing and
authenticating REST requests (Signature Version 2)"; a test compares it with botocore's signer.
"""

import base64
import hmac
from collections.abc import Mapping
from datetime import datetime

from outcrop.errors import Denied
from outcrop.wire.sigv4 import Request, query_pairs

# The query names that are part of what is signed.
SIGNED_QUERY = frozenset(
    """accelerate acl analytics cors defaultObjectAcl delete inventory lifecycle location logging metrics notification
    object-lock partNumber policy replication requestPayment response-cache-control response-content-disposition
    response-content-encoding response-content-language response-content-type response-expires restore select select-type
    storageClass tagging torrent uploadId uploads versionId versioning versions website""".split()
)


def access_key_of(request: Request) -> str | None:
    """The access key of a URL presigned in version 2, or None for any other request."""
    if "AWSAccessKeyId=" not in request.raw_query or "Signature=" not in request.raw_query:
        return None
    return dict(query_pairs(request.raw_query)).get("AWSAccessKeyId")


def verify(request: Request, secret: str, now: datetime) -> None:
    """Raise Denied unless the URL's signature is right and in time."""
    query = dict(query_pairs(request.raw_query))
    expires = query.get("Expires", "")
    if not expires.isdigit() or now.timestamp() > int(expires):
        raise Denied("Request has expired")
    to_sign = string_to_sign(request, expires)
    expected = base64.b64encode(hmac.digest(secret.encode(), to_sign.encode(), "sha1")).decode()
    if not hmac.compare_digest(expected.encode(), query.get("Signature", "").encode()):
        raise Denied("The request signature we calculated does not match the signature you provided.")


def string_to_sign(request: Request, expires: str) -> str:
    """What a version 2 URL signs."""
    headers = request.headers
    lines = [request.method, headers.get("content-md5", ""), headers.get("content-type", ""), expires]
    lines += [f"{name}:{value.strip()}" for name, value in sorted(_amz(headers).items())]
    pairs = sorted((name, value) for name, value in query_pairs(request.raw_query) if name in SIGNED_QUERY)
    signed = "&".join(f"{name}={value}" if value else name for name, value in pairs)
    return "\n".join(lines) + "\n" + request.raw_path + (f"?{signed}" if signed else "")


def _amz(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.startswith("x-amz-")}
