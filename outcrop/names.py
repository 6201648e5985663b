"""Ids and ARNs."""

import re
import secrets
import string
from dataclasses import dataclass

ALPHABET = string.ascii_lowercase + string.digits
# AWS's pattern of a foundation model's id: provider.model, a version, at most one further suffix.
BASE_MODEL_ID = re.compile(r"[a-z0-9-]{1,63}\.[a-z0-9-]{1,63}([.][a-z0-9-]{1,63})?(:[a-z0-9-]{1,63}){0,2}")
# Context suffixes such as :128k or :200k name a customizable variant at AWS; the weights are the same.
# AWS user guide, "Supported Regions and models for inference profiles".
GEOGRAPHY = re.compile(r"^(us|us-gov|eu|apac|au|jp|ca|global)\.(?=\w+\.)")
CONTEXT_SUFFIX = re.compile(r":\d+k$")


def short_id() -> str:
    """12 characters of a-z and 0-9, as Bedrock's resource ids are."""
    return "".join(secrets.choice(ALPHABET) for _ in range(12))


@dataclass(frozen=True)
class Names:
    """Makes ARNs of one account in one region."""

    account: str
    region: str

    def arn(self, kind: str, resource: str) -> str:
        """An ARN of a resource of the account."""
        return f"arn:aws:bedrock:{self.region}:{self.account}:{kind}/{resource}"

    def foundation_model(self, model_id: str) -> str:
        """A foundation model's ARN; it belongs to no account."""
        return f"arn:aws:bedrock:{self.region}::foundation-model/{model_id}"


def resource_of(identifier: str) -> tuple[str, str]:
    """(kind, resource) of an ARN: ("custom-model", "base/abc"); ("", identifier) for what is not an ARN."""
    if not identifier.startswith("arn:"):
        return "", identifier
    kind, _, resource = identifier.split(":", 5)[-1].partition("/")
    return kind, resource


def id_of(identifier: str) -> str:
    """The last part of an ARN, which is the resource's id; what is not an ARN as it is."""
    return resource_of(identifier)[1].rpartition("/")[2] if identifier.startswith("arn:") else identifier


def base_model_id(identifier: str) -> str:
    """The model id in a foundation model's or an inference profile's id or ARN, a context suffix left off."""
    kind, resource = resource_of(identifier)
    return CONTEXT_SUFFIX.sub("", resource if kind in ("foundation-model", "inference-profile") else identifier)


def without_geography(identifier: str) -> str:
    """The model id in a cross-region inference profile's: `us.anthropic.claude...` without its `us.`."""
    return GEOGRAPHY.sub("", identifier)
