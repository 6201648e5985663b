"""Values of a shape as XML and back; used by S3 (rest-xml) and by STS and IAM (query)."""

import base64
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

from botocore.model import ListShape, MapShape, Shape, StructureShape

from outcrop.wire.rest_json import timestamp_text

DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'


def element(name: str, value: Any, shape: Shape, attributes: str = "") -> str:
    """A value as an element of that name."""
    return f"<{name}{attributes}>{_content(value, shape)}</{name}>"


def _content(value: Any, shape: Shape) -> str:
    if isinstance(shape, StructureShape):
        return members(value, shape)
    if isinstance(shape, ListShape):
        item = shape.member.serialization.get("name", "member")
        return "".join(element(item, entry, shape.member) for entry in value)
    if isinstance(shape, MapShape):
        key, content = shape.key.serialization.get("name", "key"), shape.value.serialization.get("name", "value")
        return "".join(
            f"<entry>{element(key, name, shape.key)}{element(content, item, shape.value)}</entry>"
            for name, item in value.items()
        )
    return escape(text(value))


def members(value: dict[str, Any], shape: StructureShape) -> str:
    """A structure's members, those that travel in headers left out."""
    parts = []
    for name, member in shape.members.items():
        given = value.get(name)
        if given is None or member.serialization.get("location"):
            continue
        wire_name = member.serialization.get("name", name)
        if isinstance(member, ListShape) and member.serialization.get("flattened"):
            wire_name = member.member.serialization.get("name", wire_name)
            parts += [element(wire_name, entry, member.member, _namespace(member.member)) for entry in given]
        else:
            parts.append(element(wire_name, given, member, _namespace(member)))
    return "".join(parts)


def text(value: Any) -> str:
    """A scalar as text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return timestamp_text(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value)


def _namespace(shape: Shape) -> str:
    namespace = shape.serialization.get("xmlNamespace")
    if not isinstance(namespace, dict):
        return ""
    prefix = f":{namespace['prefix']}" if "prefix" in namespace else ""
    return f" xmlns{prefix}={quoteattr(namespace['uri'])}"


def parse(document: bytes) -> ElementTree.Element:
    """An XML document's root. Raises ValueError for anything else, document types included."""
    if b"<!DOCTYPE" in document or b"<!ENTITY" in document:
        raise ValueError("document types are not allowed")
    try:
        return ElementTree.fromstring(document)  # noqa: S314 - document types, which carry the attacks, are refused above
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from None


def value_of(node: ElementTree.Element, shape: Shape) -> Any:
    """A node's value by its shape; namespaces are ignored. Raises ValueError."""
    if isinstance(shape, StructureShape):
        children: dict[str, list[ElementTree.Element]] = {}
        for child in node:
            children.setdefault(_local(child.tag), []).append(child)
        result: dict[str, Any] = {}
        for name, member in shape.members.items():
            wire_name = member.serialization.get("name", name)
            if isinstance(member, ListShape) and member.serialization.get("flattened"):
                found = children.get(member.member.serialization.get("name", wire_name), [])
                if found:
                    result[name] = [value_of(child, member.member) for child in found]
            elif wire_name in children:
                result[name] = value_of(children[wire_name][0], member)
        return result
    if isinstance(shape, ListShape):
        return [value_of(child, shape.member) for child in node]
    return scalar(node.text or "", shape)


def scalar(given: str, shape: Shape) -> Any:
    """Text as a scalar of its shape. Raises ValueError."""
    kind = shape.type_name
    if kind == "boolean":
        return given.strip().lower() == "true"
    if kind in ("integer", "long"):
        return int(given)
    if kind in ("float", "double"):
        return float(given)
    if kind == "blob":
        return base64.b64decode(given)
    if kind == "timestamp":
        moment = datetime.fromisoformat(given)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return given


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]
