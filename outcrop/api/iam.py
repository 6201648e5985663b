"""IAM as far as published notebooks need it: roles and policies are remembered and returned, and grant nothing."""

import secrets
import string
from datetime import datetime
from typing import Any
from urllib.parse import quote

import msgspec

from outcrop.api.call import Call
from outcrop.clock import now
from outcrop.errors import Conflict, NotFound
from outcrop.storage import Collection, Taken

Request = dict[str, Any]


class Role(msgspec.Struct, frozen=True):
    """A role."""

    id: str
    name: str
    arn: str
    path: str
    created_at: datetime
    trust: str
    description: str = ""
    longest_session_s: int = 3600
    attached: list[str] = []
    inline: dict[str, str] = {}


class Policy(msgspec.Struct, frozen=True):
    """A managed policy."""

    id: str
    name: str
    arn: str
    path: str
    created_at: datetime
    document: str
    description: str = ""


def create_role(request: Request, call: Call) -> Request:
    """Remember a role."""
    path = request.get("Path", "/")
    role = Role(
        id=_id("AROA"), name=request["RoleName"], path=path, created_at=now(),
        arn=f"arn:aws:iam::{call.names.account}:role{path}{request['RoleName']}",
        trust=request["AssumeRolePolicyDocument"], description=request.get("Description", ""),
        longest_session_s=int(request.get("MaxSessionDuration", 3600)),
    )  # fmt: skip
    try:
        _roles(call).add(role)
    except Taken:
        raise Conflict(f"Role with name {role.name} already exists.") from None
    return {"Role": _shown(role)}


def get_role(request: Request, call: Call) -> Request:
    """A role."""
    return {"Role": _shown(_role(request, call))}


def delete_role(request: Request, call: Call) -> Request:
    """Forget a role that has no policies."""
    role = _role(request, call)
    if role.attached or role.inline:
        raise Conflict("Cannot delete entity, must detach all policies first.")
    _roles(call).remove(role.id)
    return {}


def put_role_policy(request: Request, call: Call) -> Request:
    """Remember a role's inline policy."""
    name, document = request["PolicyName"], request["PolicyDocument"]
    return _change(request, call, lambda role: {"inline": {**role.inline, name: document}})


def create_policy(request: Request, call: Call) -> Request:
    """Remember a policy."""
    path = request.get("Path", "/")
    policy = Policy(
        id=_id("ANPA"), name=request["PolicyName"], path=path, created_at=now(),
        arn=f"arn:aws:iam::{call.names.account}:policy{path}{request['PolicyName']}",
        document=request["PolicyDocument"], description=request.get("Description", ""),
    )  # fmt: skip
    try:
        _policies(call).add(policy)
    except Taken:
        raise Conflict(f"A policy called {policy.name} already exists.") from None
    shown = {"PolicyName": policy.name, "PolicyId": policy.id, "Arn": policy.arn, "Path": path}
    return {"Policy": {**shown, "CreateDate": policy.created_at, "IsAttachable": True, "DefaultVersionId": "v1"}}


def delete_policy(request: Request, call: Call) -> Request:
    """Forget a policy that is attached nowhere."""
    arn = request["PolicyArn"]
    found = [policy for policy in _policies(call).all() if policy.arn == arn]
    if not found:
        raise NotFound(f"Policy {arn} does not exist or is not attachable.")
    if any(arn in role.attached for role in _roles(call).all()):
        raise Conflict("Cannot delete a policy attached to entities.")
    _policies(call).remove(found[0].id)
    return {}


def attach_role_policy(request: Request, call: Call) -> Request:
    """Remember that a role has a policy."""
    arn = request["PolicyArn"]
    return _change(request, call, lambda role: {"attached": [*(one for one in role.attached if one != arn), arn]})


def detach_role_policy(request: Request, call: Call) -> Request:
    """Forget that a role has a policy."""
    arn = request["PolicyArn"]
    if arn not in _role(request, call).attached:
        raise NotFound(f"Policy {arn} was not found.")
    return _change(request, call, lambda role: {"attached": [one for one in role.attached if one != arn]})


def _roles(call: Call) -> Collection[Role]:
    return call.storage.records.collection("iam-role", Role)


def _policies(call: Call) -> Collection[Policy]:
    return call.storage.records.collection("iam-policy", Policy)


def _role(request: Request, call: Call) -> Role:
    role = _roles(call).named(request["RoleName"])
    if role is None:
        raise NotFound(f"The role with name {request['RoleName']} cannot be found.")
    return role


def _change(request: Request, call: Call, fields: Any) -> Request:
    _roles(call).change(_role(request, call).id, lambda role: msgspec.structs.replace(role, **fields(role)))
    return {}


def _id(prefix: str) -> str:
    return prefix + "".join(secrets.choice(string.ascii_uppercase + string.digits) for _ in range(17))


def _shown(role: Role) -> Request:
    return {
        "RoleName": role.name, "RoleId": role.id, "Arn": role.arn, "Path": role.path, "CreateDate": role.created_at,
        "AssumeRolePolicyDocument": quote(role.trust, safe=""), "Description": role.description,
        "MaxSessionDuration": role.longest_session_s,
    }  # fmt: skip
