"""Signature Version 4, verified: headers, presigned URLs and signed chunks; and bearer keys.

The canonical forms are AWS's (Signature Version 4 signing process, IAM user guide); tests compare them with botocore's
own signer for each service.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Protocol
from urllib.parse import quote, unquote

from outcrop.errors import Denied

# AWS refuses signatures whose date is further away than this.
SKEW = timedelta(minutes=15)
# AWS's longest life of a presigned URL: seven days.
LONGEST_PRESIGNED_S = 7 * 24 * 3600
UNSIGNED = "UNSIGNED-PAYLOAD"
HARMLESS = {"x-amz-content-sha256", "x-amz-date", "x-amz-user-agent"}


class Keys(Protocol):
    """Who may come in."""

    def secret_of(self, access_key: str) -> str | None:
        """The secret that belongs to an access key, or None when the key is unknown."""

    def accepts_bearer(self, token: str) -> bool:
        """Whether a bearer key is known."""


@dataclass(frozen=True)
class Request:
    """What is signed. `headers` in lower case; `raw_path` and `raw_query` as sent."""

    method: str
    raw_path: str
    raw_query: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Scope:
    """What a request says of itself: who signs, for when and for what."""

    access_key: str
    date: str
    region: str
    service: str
    amz_date: str
    signed_headers: tuple[str, ...]
    signature: str
    expires_s: int | None

    @property
    def text(self) -> str:
        """The credential scope."""
        return f"{self.date}/{self.region}/{self.service}/aws4_request"

    @property
    def is_presigned(self) -> bool:
        """Whether the signature came in the query."""
        return self.expires_s is not None


def query_pairs(raw_query: str) -> list[tuple[str, str]]:
    """The query's decoded names and values in order; "+" stands for itself, as AWS's signers have it."""
    if not raw_query:
        return []
    pairs = []
    for part in raw_query.split("&"):
        if part:
            name, _, value = part.partition("=")
            pairs.append((unquote(name), unquote(value)))
    return pairs


def scope_of(request: Request) -> Scope | None:
    """The signature's scope, or None for a request without one. Raises Denied when it is malformed."""
    header = request.headers.get("authorization", "")
    if header.startswith("AWS4-HMAC-SHA256"):
        fields = dict(part.strip().partition("=")[::2] for part in header[len("AWS4-HMAC-SHA256") :].split(","))
        amz_date, expires = request.headers.get("x-amz-date", ""), None
    elif "X-Amz-Signature=" in request.raw_query:
        query = dict(query_pairs(request.raw_query))
        fields = {
            "Credential": query.get("X-Amz-Credential", ""),
            "SignedHeaders": query.get("X-Amz-SignedHeaders", ""),
            "Signature": query["X-Amz-Signature"],
        }
        amz_date = query.get("X-Amz-Date", "")
        expires = int(query["X-Amz-Expires"]) if query.get("X-Amz-Expires", "").isdigit() else -1
    else:
        return None
    credential = fields.get("Credential", "").split("/")
    if len(credential) < 5 or "Signature" not in fields or not fields.get("SignedHeaders"):
        raise Denied("the signature needs Credential=KEY/DATE/REGION/SERVICE/aws4_request, SignedHeaders and Signature")
    access_key, (date, region, service, _) = "/".join(credential[:-4]), credential[-4:]
    signed = tuple(fields["SignedHeaders"].split(";"))
    return Scope(access_key, date, region, service, amz_date, signed, fields["Signature"], expires)


def verify(request: Request, scope: Scope, secret: str, payload_hash: str, now: datetime) -> None:
    """Raise Denied unless the signature is right and in time. `payload_hash` is what the signer says or the body's own."""
    signed_at = _moment(scope.amz_date)
    if scope.expires_s is None:
        if abs(now - signed_at) > SKEW:
            raise Denied(f"Signature expired: {scope.amz_date} is more than 15 minutes away from {now:%Y%m%dT%H%M%SZ}")
    else:
        # Whoever holds a URL may not add to what it does: a copy source, for one, would read another object.
        added = {name for name in request.headers if name.startswith("x-amz-")} - set(scope.signed_headers) - HARMLESS
        if added:
            raise Denied(f"There were headers present in the request which were not signed: {', '.join(sorted(added))}")
        if not 0 <= scope.expires_s <= LONGEST_PRESIGNED_S:
            raise Denied(f"X-Amz-Expires must lie between 0 and {LONGEST_PRESIGNED_S}")
        if not signed_at - SKEW <= now <= signed_at + timedelta(seconds=scope.expires_s):
            raise Denied("Request has expired")
    if not {"host", ":authority"} & set(scope.signed_headers):
        raise Denied("the signature must cover the host header")
    if not scope.amz_date.startswith(scope.date):
        raise Denied("the signature's date differs from its credential scope")
    expected = signature(request, scope, secret, payload_hash)
    if not hmac.compare_digest(expected.encode(), scope.signature.encode()):
        raise Denied(
            "The request signature we calculated does not match the signature you provided. "
            "Check your AWS Secret Access Key and signing method."
        )


def signature(request: Request, scope: Scope, secret: str, payload_hash: str) -> str:
    """The signature that this request must carry."""
    canonical = canonical_request(request, scope, payload_hash)
    to_sign = f"AWS4-HMAC-SHA256\n{scope.amz_date}\n{scope.text}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = signing_key(secret, scope.date, scope.region, scope.service)
    return hmac.digest(key, to_sign.encode(), "sha256").hex()


def canonical_request(request: Request, scope: Scope, payload_hash: str) -> str:
    """What is hashed and signed. S3 signs the path as sent; the others encode it once more."""
    path = request.raw_path if scope.service == "s3" else _encoded_again(request.raw_path)
    pairs = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, value in query_pairs(request.raw_query)
        if name != "X-Amz-Signature" or not scope.is_presigned
    )
    # The JavaScript SDK signs HTTP/2's pseudo header, which arrives as host.
    values = {**request.headers, ":authority": request.headers.get("host", "")}
    headers = "".join(f"{name}:{' '.join(values.get(name, '').split())}\n" for name in scope.signed_headers)
    query = "&".join(f"{name}={value}" for name, value in pairs)
    return f"{request.method}\n{path}\n{query}\n{headers}\n{';'.join(scope.signed_headers)}\n{payload_hash}"


@lru_cache(maxsize=256)
def signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    """The day's key for a region and service."""
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def chunk_signature(scope: Scope, secret: str, previous: str, data_hash: str) -> str:
    """The signature of one chunk of STREAMING-AWS4-HMAC-SHA256-PAYLOAD, chained to the one before."""
    empty = hashlib.sha256(b"").hexdigest()
    to_sign = f"AWS4-HMAC-SHA256-PAYLOAD\n{scope.amz_date}\n{scope.text}\n{previous}\n{empty}\n{data_hash}"
    key = signing_key(secret, scope.date, scope.region, scope.service)
    return hmac.digest(key, to_sign.encode(), "sha256").hex()


@lru_cache(maxsize=4096)
def _encoded_again(raw_path: str) -> str:
    return quote(_normalized(raw_path), safe="/-_.~")


@lru_cache(maxsize=256)
def _moment(amz_date: str) -> datetime:
    try:
        return datetime.strptime(amz_date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise Denied(f"the signature's date is {amz_date!r}; it must look like 20260131T120000Z") from None


def _normalized(path: str) -> str:
    """The path without empty and dot segments, its last slash kept."""
    if "//" not in path and "/." not in path:
        return path or "/"
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            kept = kept[:-1]
        elif segment not in ("", "."):
            kept.append(segment)
    return "/" + "/".join(kept) + ("/" if path.endswith("/") and kept else "")
