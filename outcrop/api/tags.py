"""Tags of Bedrock's resources."""

from typing import Any

import msgspec

from outcrop.api.call import Call
from outcrop.errors import Invalid, NotFound, TooManyTags
from outcrop.names import id_of
from outcrop.storage import Collection

Request = dict[str, Any]

MOST_TAGS = 200


def read_tags(tags: list[dict[str, str]] | None) -> dict[str, str]:
    """A list of key and value as a mapping. Raises Invalid for a key that comes twice."""
    found: dict[str, str] = {}
    for tag in tags or []:
        if tag["key"] in found:
            raise Invalid(f"the tag key {tag['key']!r} comes twice")
        found[tag["key"]] = tag["value"]
    return found


def tag_resource(request: Request, call: Call) -> Request:
    """Add or replace tags."""
    added = read_tags(request["tags"])

    def change(resource: Any) -> Any:
        tags = {**resource.tags, **added}
        if len(tags) > MOST_TAGS:
            raise TooManyTags(
                f"the resource would have {len(tags)} tags; at most {MOST_TAGS}", resourceName=resource.arn
            )
        return msgspec.structs.replace(resource, tags=tags)

    _change(request["resourceARN"], call, change)
    return {}


def untag_resource(request: Request, call: Call) -> Request:
    """Remove tags; keys that are not there are passed over."""
    gone = set(request["tagKeys"])

    def change(resource: Any) -> Any:
        return msgspec.structs.replace(resource, tags={k: v for k, v in resource.tags.items() if k not in gone})

    _change(request["resourceARN"], call, change)
    return {}


def list_tags_for_resource(request: Request, call: Call) -> Request:
    """A resource's tags."""
    _, resource = _find(request["resourceARN"], call)
    return {"tags": [{"key": key, "value": value} for key, value in sorted(resource.tags.items())]}


def _find(arn: str, call: Call) -> tuple[Collection[Any], Any]:
    service = call.service
    places: list[Collection[Any]] = [
        service.jobs.records, service.registry.custom, service.serving.provisioned, service.serving.deployments,
        service.registry.imported,
    ]  # fmt: skip
    for place in places:
        resource = place.get(id_of(arn))
        if resource is not None and resource.arn == arn:
            return place, resource
    raise NotFound(f"There is no resource {arn!r}")


def _change(arn: str, call: Call, change: Any) -> None:
    place, resource = _find(arn, call)
    place.change(resource.id, change)
