"""STS: who am I."""

from typing import Any

from outcrop.api.call import Call


def get_caller_identity(request: dict[str, Any], call: Call) -> dict[str, Any]:
    """The installation's only account."""
    account = call.names.account
    return {"UserId": "AIDAOUTCROP", "Account": account, "Arn": f"arn:aws:iam::{account}:root"}
