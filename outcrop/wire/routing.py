"""Method and raw path -> operation and labels.

The path is matched as it was sent, split on "/" before any decoding, because an ARN inside a label holds slashes.
Clients that send an ARN's slashes raw are understood too: a label may then span segments if it begins with "arn:".
"""

import re
from collections import defaultdict
from dataclasses import dataclass
from urllib.parse import unquote

from outcrop.wire.models import BEDROCK_SERVICES, service_model


@dataclass(frozen=True)
class Route:
    """Where one operation lives. `segments` holds literals, and None for labels."""

    service: str
    operation: str
    method: str
    segments: tuple[str | None, ...]
    labels: tuple[str, ...]
    pattern: re.Pattern[str]
    ends_in_slash: bool


@dataclass(frozen=True)
class Match:
    """The operation that a path names, and the decoded labels by the names the URI template gives them."""

    service: str
    operation: str
    labels: dict[str, str]


class Router:
    """All operations of Bedrock's four services on one port."""

    def __init__(self) -> None:
        self._by_shape: dict[tuple[str, int, str], list[Route]] = defaultdict(list)
        self._all: list[Route] = []
        for service in BEDROCK_SERVICES:
            model = service_model(service)
            for name in model.operation_names:
                http = model.operation_model(name).http
                route = _route(service, name, http["method"], http["requestUri"])
                self._all.append(route)
                self._by_shape[route.method, len(route.segments), str(route.segments[0])].append(route)
        for routes in self._by_shape.values():
            # More literals first: /custom-models/create-custom-model before /custom-models/{modelIdentifier}.
            routes.sort(key=lambda route: sum(segment is None for segment in route.segments))
        self.first_segments = {str(route.segments[0]) for route in self._all}

    def match(self, method: str, raw_path: str) -> Match | None:
        """The operation at a path, or None. `raw_path` is undecoded and without the query."""
        parts = tuple(raw_path.strip("/").split("/"))
        found = [
            (route, [part for part, segment in zip(parts, route.segments, strict=True) if segment is None])
            for route in self._by_shape.get((method, len(parts), parts[0]), ())
            if all(segment is None or segment == part for part, segment in zip(parts, route.segments, strict=True))
            and all(part for part in parts)
        ]
        if not found and "/arn" in raw_path:
            found = [
                (route, list(match.groups()))
                for route in self._all
                if route.method == method and (match := route.pattern.fullmatch(raw_path.rstrip("/")))
            ]
        if not found:
            return None
        # POST /agents/{sessionId} and POST /agents/{agentId}/ differ in the last slash alone; elsewhere it does not matter.
        if len(found) > 1:
            exact = [entry for entry in found if entry[0].ends_in_slash == raw_path.endswith("/")]
            found = exact or found
        # Only /tags/{arn} is in two services: sessions belong to bedrock-agent-runtime, all else to bedrock-agent.
        if len(found) > 1 and found[0][0].segments[0] == "tags":
            owner = "bedrock-agent-runtime" if ":session/" in unquote(found[0][1][0]) else "bedrock-agent"
            found = [entry for entry in found if entry[0].service == owner]
        route, values = found[0]
        labels = {label: unquote(value) for label, value in zip(route.labels, values, strict=True)}
        return Match(route.service, route.operation, labels)


def _route(service: str, operation: str, method: str, uri: str) -> Route:
    path = uri.partition("?")[0].strip("/")
    segments = tuple(None if segment.startswith("{") else segment for segment in path.split("/"))
    labels = tuple(segment.strip("{}+") for segment in path.split("/") if segment.startswith("{"))
    pattern = "".join("/(arn(?::|%3A).+)" if segment is None else f"/{re.escape(segment)}" for segment in segments)
    return Route(service, operation, method, segments, labels, re.compile(pattern, re.IGNORECASE), uri.endswith("/"))
