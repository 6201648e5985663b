"""S3 on the embedded object store: what boto3, the AWS CLI and the SDKs need to move files."""

import hashlib
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote

from outcrop.api.call import Call
from outcrop.clock import now
from outcrop.errors import S3Error
from outcrop.storage import StoredObject, Upload
from outcrop.storage.objects import Attributes, Objects
from outcrop.wire import Body

Request = dict[str, Any]

BUCKET_NAME = re.compile(r"(?!xn--)(?!\d+\.\d+\.\d+\.\d+$)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
MOST_KEY_BYTES = 1024
MOST_KEYS = 1000
CHUNK = 1 << 20
SMALLEST_PART = 5 * 1024 * 1024
OWNER = {"ID": hashlib.sha256(b"outcrop").hexdigest(), "DisplayName": "outcrop"}
# What an object keeps of the request that wrote it, and gives back with it.
KEPT = (
    "ContentType", "ContentEncoding", "ContentLanguage", "ContentDisposition", "CacheControl", "Expires", "Metadata",
    "ChecksumCRC32", "ChecksumCRC32C", "ChecksumCRC64NVME", "ChecksumSHA1", "ChecksumSHA256", "ChecksumType",
)  # fmt: skip


# --- buckets -------------------------------------------------------------------------------------------------------


def list_buckets(request: Request, call: Call) -> Request:
    """All buckets."""
    found = call.storage.objects.buckets()
    prefix = request.get("Prefix", "")
    listed = [
        {
            "Name": name,
            "CreationDate": datetime.fromisoformat(attributes["created"]),
            "BucketRegion": attributes["region"],
        }
        for name, attributes in found.items()
        if name.startswith(prefix)
    ]
    return {"Buckets": listed, "Owner": OWNER}


def create_bucket(request: Request, call: Call) -> Request:
    """A new bucket; the owner's own, made again, is no error in us-east-1 and none here."""
    name = request["Bucket"]
    if not BUCKET_NAME.fullmatch(name) or ".." in name:
        raise S3Error("InvalidBucketName", f"The specified bucket is not valid: {name!r}", 400, BucketName=name)
    region = (request.get("CreateBucketConfiguration") or {}).get("LocationConstraint") or call.context.region
    made = call.storage.objects.make_bucket(name, {"created": now().isoformat(), "region": region})
    if not made and region != "us-east-1":
        raise S3Error("BucketAlreadyOwnedByYou", "Your previous request to create the named bucket succeeded.", 409)
    return {"Location": f"/{name}"}


def head_bucket(request: Request, call: Call) -> Request:
    """Whether a bucket is there."""
    return {"BucketRegion": _bucket(request, call)["region"]}


def delete_bucket(request: Request, call: Call) -> Request:
    """Remove an empty bucket."""
    _bucket(request, call)
    if not call.storage.objects.drop_bucket(request["Bucket"]):
        raise S3Error("BucketNotEmpty", "The bucket you tried to delete is not empty", 409)
    return {}


def get_bucket_location(request: Request, call: Call) -> Request:
    """A bucket's region; us-east-1 is written as nothing, as AWS does."""
    region = _bucket(request, call)["region"]
    return {"LocationConstraint": "" if region == "us-east-1" else region}


def get_bucket_versioning(request: Request, call: Call) -> Request:
    """Buckets are never versioned."""
    _bucket(request, call)
    return {}


def put_bucket_policy(request: Request, call: Call) -> Request:
    """Remembered and returned; it grants and refuses nothing."""
    return _set(request, call, "policy", request["Policy"])


def get_bucket_policy(request: Request, call: Call) -> Request:
    """The remembered policy."""
    return {"Policy": _remembered(request, call, "policy", "NoSuchBucketPolicy", "The bucket policy does not exist")}


def delete_bucket_policy(request: Request, call: Call) -> Request:
    """Forget the policy."""
    return _set(request, call, "policy", None)


def put_bucket_cors(request: Request, call: Call) -> Request:
    """Remembered and returned; browsers are not served across origins."""
    return _set(request, call, "cors", request["CORSConfiguration"])


def get_bucket_cors(request: Request, call: Call) -> Request:
    """The remembered rules."""
    message = "The CORS configuration does not exist"
    return dict(_remembered(request, call, "cors", "NoSuchCORSConfiguration", message))


def delete_bucket_cors(request: Request, call: Call) -> Request:
    """Forget the rules."""
    return _set(request, call, "cors", None)


def _bucket(request: Request, call: Call) -> Attributes:
    attributes = call.storage.objects.bucket(request["Bucket"])
    if attributes is None:
        raise S3Error("NoSuchBucket", "The specified bucket does not exist", 404, BucketName=request["Bucket"])
    return attributes


def _set(request: Request, call: Call, name: str, value: Any) -> Request:
    _bucket(request, call)
    call.storage.objects.change_bucket(request["Bucket"], lambda attributes: {**attributes, name: value})
    return {}


def _remembered(request: Request, call: Call, name: str, code: str, message: str) -> Any:
    value = _bucket(request, call).get(name)
    if value is None:
        raise S3Error(code, message, 404)
    return value


# --- objects -------------------------------------------------------------------------------------------------------


def put_object(request: Request, call: Call) -> Request:
    """Keep an object: whole or not at all."""
    _bucket(request, call)
    _check_key(request["Key"])
    body: Body = request.get("Body") or Body(0, "", hashlib.md5(b"", usedforsecurity=False).digest(), b"")
    attributes = _kept(request)
    attributes |= {f"Checksum{name.upper()}": value for name, value in body.checksums.items()}
    objects = call.storage.objects
    file = _taken(body, objects)
    stored = objects.put(request["Bucket"], request["Key"], file, body.md5.hex(), attributes, _put_condition(request))
    return {"ETag": f'"{stored.etag}"', **_checksums(stored)}


def get_object(request: Request, call: Call) -> Request:
    """An object's bytes, or a range of them."""
    _bucket(request, call)
    opened = call.storage.objects.open(request["Bucket"], request["Key"])
    if opened is None:
        raise _no_such_key(request)
    stored, file = opened
    try:
        _check_conditions(request, stored)
        begin, end = _range(request.get("Range"), stored)
    except S3Error:
        file.close()
        raise
    return {**_describe(request, stored, begin, end), "Body": _pieces(file, begin, end - begin)}


def head_object(request: Request, call: Call) -> Request:
    """All about an object but its bytes."""
    _bucket(request, call)
    stored = _object(request, call)
    _check_conditions(request, stored)
    begin, end = _range(request.get("Range"), stored)
    return _describe(request, stored, begin, end)


def delete_object(request: Request, call: Call) -> Request:
    """Remove an object; one that is not there is no error."""
    _bucket(request, call)
    call.storage.objects.remove(request["Bucket"], [request["Key"]])
    return {}


def delete_objects(request: Request, call: Call) -> Request:
    """Remove up to 1,000 objects."""
    _bucket(request, call)
    wanted = request["Delete"].get("Objects", [])
    if not 1 <= len(wanted) <= MOST_KEYS or not all(entry.get("Key") for entry in wanted):
        raise S3Error("MalformedXML", f"Delete needs 1 to {MOST_KEYS} objects, each with a key", 400)
    keys = [entry["Key"] for entry in wanted]
    call.storage.objects.remove(request["Bucket"], keys)
    return {} if request["Delete"].get("Quiet") else {"Deleted": [{"Key": key} for key in keys]}


def copy_object(request: Request, call: Call) -> Request:
    """An object's bytes under another key, its metadata copied or replaced."""
    _bucket(request, call)
    _check_key(request["Key"])
    source = _source(request, call)
    replaces = request.get("MetadataDirective") == "REPLACE"
    same = (source.bucket, source.key) == (request["Bucket"], request["Key"])
    if same and not replaces:
        raise S3Error("InvalidRequest", "An object copied onto itself must change its metadata", 400)
    attributes = _kept(request) if replaces else source.attributes
    objects = call.storage.objects
    file = objects.new_file(_pieces(source.path.open("rb"), 0, source.size))
    stored = objects.put(request["Bucket"], request["Key"], file, source.etag, attributes)
    return {"CopyObjectResult": {"ETag": f'"{stored.etag}"', "LastModified": stored.modified}}


def _source(request: Request, call: Call) -> StoredObject:
    bucket, _, key = unquote(request["CopySource"].partition("?")[0]).removeprefix("/").partition("/")
    _bucket({"Bucket": bucket}, call)
    return _object({"Bucket": bucket, "Key": key}, call)


def _object(request: Request, call: Call) -> StoredObject:
    stored = call.storage.objects.get(request["Bucket"], request["Key"])
    if stored is None:
        raise _no_such_key(request)
    return stored


def _no_such_key(request: Request) -> S3Error:
    return S3Error("NoSuchKey", "The specified key does not exist.", 404, Key=request["Key"])


def _check_key(key: str) -> None:
    if len(key.encode("utf-8", "replace")) > MOST_KEY_BYTES:
        raise S3Error("KeyTooLongError", f"Your key is too long; at most {MOST_KEY_BYTES} bytes", 400)
    if "\x00" in key:
        raise S3Error("InvalidArgument", "a key cannot hold the character NUL", 400)


def _taken(body: Body, objects: Objects) -> Any:
    """The body as a file on the store's disk; one that is already there is taken over."""
    if body.path is None:
        return objects.new_file(body.chunks())
    path, body.path = body.path, None
    return path


def _kept(request: Request) -> Attributes:
    kept = {name: request[name] for name in KEPT if request.get(name)}
    encoding = kept.pop("ContentEncoding", "")
    plain = ",".join(
        part for part in (piece.strip() for piece in encoding.split(",")) if part and part != "aws-chunked"
    )
    if plain:
        kept["ContentEncoding"] = plain
    kept.setdefault("ContentType", "binary/octet-stream")
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in kept.items()}


def _checksums(stored: StoredObject) -> Request:
    return {name: value for name, value in stored.attributes.items() if name.startswith("Checksum")}


def _put_condition(request: Request) -> Callable[[StoredObject | None], None] | None:
    must, must_not = request.get("IfMatch"), request.get("IfNoneMatch")
    if must is None and must_not is None:
        return None

    def check(present: StoredObject | None) -> None:
        if must is not None and present is None:
            raise _no_such_key(request)
        if must is not None and not _etag_fits(must, present):
            raise _precondition("If-Match")
        if must_not is not None and present is not None and _etag_fits(must_not, present):
            raise _precondition("If-None-Match")

    return check


def _check_conditions(request: Request, stored: StoredObject) -> None:
    if (given := request.get("IfMatch")) is not None and not _etag_fits(given, stored):
        raise _precondition("If-Match")
    if (given := request.get("IfNoneMatch")) is not None and _etag_fits(given, stored):
        raise S3Error("304", "Not Modified", 304)
    modified = stored.modified.replace(microsecond=0)
    if (since := request.get("IfModifiedSince")) is not None and modified <= _aware(since):
        raise S3Error("304", "Not Modified", 304)
    if (since := request.get("IfUnmodifiedSince")) is not None and modified > _aware(since):
        raise _precondition("If-Unmodified-Since")


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _etag_fits(given: str, stored: StoredObject | None) -> bool:
    return given.strip() == "*" or (
        stored is not None and stored.etag in [part.strip(' "') for part in given.split(",")]
    )


def _precondition(condition: str) -> S3Error:
    message = "At least one of the pre-conditions you specified did not hold"
    return S3Error("PreconditionFailed", message, 412, Condition=condition)


def _range(given: str | None, stored: StoredObject) -> tuple[int, int]:
    """First byte and the one after the last. What is not a single range of bytes is ignored, as HTTP says."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", given or "")
    if match is None or match.groups() == ("", ""):
        return 0, stored.size
    first, last = match.groups()
    if first and last and int(first) > int(last):
        return 0, stored.size
    begin = int(first) if first else max(0, stored.size - int(last))
    end = min(stored.size, int(last) + 1) if first and last else stored.size
    if begin >= stored.size or begin >= end:
        raise S3Error("InvalidRange", "The requested range is not satisfiable", 416, ActualObjectSize=stored.size)
    return begin, end


def _describe(request: Request, stored: StoredObject, begin: int, end: int) -> Request:
    described: Request = dict(stored.attributes)
    whole = (begin, end) == (0, stored.size)
    if not whole or request.get("ChecksumMode") != "ENABLED":
        described = {name: value for name, value in described.items() if not name.startswith("Checksum")}
    if "Expires" in described:
        described["Expires"] = datetime.fromisoformat(described["Expires"])
    for name in ("ContentType", "ContentDisposition", "ContentEncoding", "ContentLanguage", "CacheControl"):
        if request.get(f"Response{name}"):
            described[name] = request[f"Response{name}"]
    described |= {
        "ETag": f'"{stored.etag}"',
        "LastModified": stored.modified,
        "ContentLength": end - begin,
        "AcceptRanges": "bytes",
    }
    if not whole or re.fullmatch(r"bytes=(0-\d*|-\d+)", request.get("Range") or ""):
        described["ContentRange"] = f"bytes {begin}-{end - 1}/{stored.size}"
    return described


def _pieces(file: Any, begin: int, size: int) -> Iterator[bytes]:
    with file:
        file.seek(begin)
        while size > 0 and (piece := file.read(min(CHUNK, size))):
            size -= len(piece)
            yield piece


# --- listing -------------------------------------------------------------------------------------------------------


def list_objects_v2(request: Request, call: Call) -> Request:
    """Keys in order, a page at a time."""
    after = unquote(request.get("ContinuationToken", "")) or request.get("StartAfter", "")
    listed, prefixes, last, is_cut = _page(request, call, after)
    encode = _encoder(request)
    answer = {
        **_listing(request, encode),
        "Contents": listed,
        "CommonPrefixes": prefixes,
        "KeyCount": len(listed) + len(prefixes),
        "IsTruncated": is_cut,
        "ContinuationToken": request.get("ContinuationToken"),
        "StartAfter": encode(request["StartAfter"]) if request.get("StartAfter") else None,
    }
    if is_cut:
        answer["NextContinuationToken"] = quote(last, safe="")
    return answer


def list_objects(request: Request, call: Call) -> Request:
    """The older listing, with markers."""
    listed, prefixes, last, is_cut = _page(request, call, request.get("Marker", ""))
    encode = _encoder(request)
    answer = {
        **_listing(request, encode),
        "Contents": listed,
        "CommonPrefixes": prefixes,
        "IsTruncated": is_cut,
        "Marker": encode(request.get("Marker", "")),
    }
    if is_cut:
        answer["NextMarker"] = encode(last)
    return answer


def _listing(request: Request, encode: Callable[[str], str]) -> Request:
    return {
        "Name": request["Bucket"],
        "Prefix": encode(request.get("Prefix", "")),
        "Delimiter": encode(request["Delimiter"]) if request.get("Delimiter") else None,
        "MaxKeys": _most(request),
        "EncodingType": request.get("EncodingType"),
    }


def _encoder(request: Request) -> Callable[[str], str]:
    return (lambda text: quote(text, safe="/")) if request.get("EncodingType") == "url" else (lambda text: text)


def _most(request: Request) -> int:
    most = request.get("MaxKeys", MOST_KEYS)
    if most < 0:
        raise S3Error("InvalidArgument", f"max-keys is {most}; it must not be negative", 400)
    return int(min(most, MOST_KEYS))


def _page(request: Request, call: Call, after: str) -> tuple[list[Request], list[Request], str, bool]:
    """Entries, common prefixes, the last thing listed, and whether more follows."""
    _bucket(request, call)
    objects, encode = call.storage.objects, _encoder(request)
    prefix, delimiter, most = request.get("Prefix", ""), request.get("Delimiter", ""), _most(request)
    listed: list[Request] = []
    prefixes: list[Request] = []
    last = after
    stream = objects.keys(request["Bucket"], prefix, after)
    while (stored := next(stream, None)) is not None:
        rest = stored.key[len(prefix) :]
        group = prefix + rest.partition(delimiter)[0] + delimiter if delimiter and delimiter in rest else ""
        if group and after.startswith(group):  # a page ended with this group
            stream = objects.keys(request["Bucket"], prefix, group + "\U0010ffff")
            continue
        if len(listed) + len(prefixes) == most:
            return listed, prefixes, last, most > 0
        if group:
            prefixes.append({"Prefix": encode(group)})
            last = group
            stream = objects.keys(request["Bucket"], prefix, group + "\U0010ffff")
        else:
            entry = {"Key": encode(stored.key), "LastModified": stored.modified, "ETag": f'"{stored.etag}"'}
            listed.append({**entry, "Size": stored.size, "StorageClass": "STANDARD"})
            last = stored.key
    return listed, prefixes, last, False


# --- multipart -----------------------------------------------------------------------------------------------------


def create_multipart_upload(request: Request, call: Call) -> Request:
    """Begin an upload in parts."""
    _bucket(request, call)
    _check_key(request["Key"])
    upload = call.storage.objects.begin_upload(request["Bucket"], request["Key"], _kept(request))
    return {
        "Bucket": upload.bucket, "Key": upload.key, "UploadId": upload.id,
        "ChecksumAlgorithm": request.get("ChecksumAlgorithm"), "ChecksumType": request.get("ChecksumType"),
    }  # fmt: skip


def upload_part(request: Request, call: Call) -> Request:
    """Keep one part."""
    upload, number = _upload(request, call), _part_number(request)
    body: Body = request["Body"]
    objects = call.storage.objects
    part = objects.put_part(upload.id, number, _taken(body, objects), body.md5.hex())
    return {"ETag": f'"{part.etag}"', **{f"Checksum{name.upper()}": value for name, value in body.checksums.items()}}


def upload_part_copy(request: Request, call: Call) -> Request:
    """A part from another object's bytes."""
    upload, number, source = _upload(request, call), _part_number(request), _source(request, call)
    begin, end = _range(request.get("CopySourceRange"), source)
    objects = call.storage.objects
    digest = hashlib.md5(usedforsecurity=False)

    def counted() -> Iterator[bytes]:
        for piece in _pieces(source.path.open("rb"), begin, end - begin):
            digest.update(piece)
            yield piece

    file = objects.new_file(counted())
    part = objects.put_part(upload.id, number, file, digest.hexdigest())
    return {"CopyPartResult": {"ETag": f'"{part.etag}"', "LastModified": part.modified}}


def list_parts(request: Request, call: Call) -> Request:
    """The parts that are there."""
    upload = _upload(request, call)
    after, most = int(request.get("PartNumberMarker") or 0), min(request.get("MaxParts", MOST_KEYS), MOST_KEYS)
    found = [part for part in call.storage.objects.parts(upload.id) if part.number > after]
    listed = [
        {"PartNumber": part.number, "LastModified": part.modified, "ETag": f'"{part.etag}"', "Size": part.size}
        for part in found[:most]
    ]
    return {
        "Bucket": upload.bucket, "Key": upload.key, "UploadId": upload.id, "Parts": listed, "MaxParts": most,
        "IsTruncated": len(found) > most, "NextPartNumberMarker": listed[-1]["PartNumber"] if listed else 0,
    }  # fmt: skip


def complete_multipart_upload(request: Request, call: Call) -> Request:
    """Join the parts into an object."""
    upload = _upload(request, call)
    named = (request.get("MultipartUpload") or {}).get("Parts", [])
    objects = call.storage.objects
    present = {part.number: part for part in objects.parts(upload.id)}
    numbers = [entry.get("PartNumber", 0) for entry in named]
    if not numbers:
        raise S3Error("MalformedXML", "CompleteMultipartUpload names no parts", 400)
    if numbers != sorted(set(numbers)):
        raise S3Error("InvalidPartOrder", "The list of parts was not in ascending order.", 400)
    for entry in named:
        part = present.get(entry["PartNumber"])
        if part is None or entry.get("ETag", "").strip('"') != part.etag:
            raise S3Error("InvalidPart", f"Part {entry['PartNumber']} was not found or its ETag differs.", 400)
    small = [number for number in numbers[:-1] if present[number].size < SMALLEST_PART]
    if small:
        message = f"Part {small[0]} has {present[small[0]].size} bytes; all but the last need {SMALLEST_PART}"
        raise S3Error("EntityTooSmall", message, 400)
    digests = b"".join(bytes.fromhex(present[number].etag) for number in numbers)
    etag = f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(numbers)}"
    file = objects.join_parts(upload.id, numbers)
    objects.put(upload.bucket, upload.key, file, etag, upload.attributes, _put_condition(request))
    objects.end_upload(upload.id)
    location = f"{call.context.origin}/{upload.bucket}/{quote(upload.key)}"
    return {"Bucket": upload.bucket, "Key": upload.key, "ETag": f'"{etag}"', "Location": location}


def abort_multipart_upload(request: Request, call: Call) -> Request:
    """Throw an upload away."""
    call.storage.objects.end_upload(_upload(request, call).id)
    return {}


def list_multipart_uploads(request: Request, call: Call) -> Request:
    """Uploads under way."""
    _bucket(request, call)
    encode = _encoder(request)
    listed = [
        {"Key": encode(upload.key), "UploadId": upload.id, "Initiated": upload.begun, "StorageClass": "STANDARD"}
        for upload in call.storage.objects.uploads(request["Bucket"])
        if upload.key.startswith(request.get("Prefix", ""))
    ]
    return {"Bucket": request["Bucket"], "Uploads": listed[:MOST_KEYS], "IsTruncated": len(listed) > MOST_KEYS}


def _upload(request: Request, call: Call) -> Upload:
    _bucket(request, call)
    upload = call.storage.objects.upload(request["UploadId"])
    if upload is None or (upload.bucket, upload.key) != (request["Bucket"], request["Key"]):
        raise S3Error(
            "NoSuchUpload", "The specified multipart upload does not exist.", 404, UploadId=request["UploadId"]
        )
    return upload


def _part_number(request: Request) -> int:
    number = int(request["PartNumber"])
    if not 1 <= number <= 10_000:
        raise S3Error("InvalidArgument", f"partNumber is {number}; it must lie between 1 and 10000", 400)
    return number
