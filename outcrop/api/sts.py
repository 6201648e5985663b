"""STS: who am I."""

from typing import Any

from outcrop.api.call import Call


def get_caller_identity(request: dict[str, Any], call: Call) -> dict[str, Any]:
    """The installation's only account."""
    return {"UserId": "AIDAOUTCROP", "Account": call.names.account, "Arn": call.identity}
