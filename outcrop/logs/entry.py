"""One call of a model, as Bedrock logs it.

Source: AWS user guide, "Monitor model invocation using CloudWatch Logs and Amazon S3".
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

JSON_TYPE = "application/json"


@dataclass(frozen=True)
class Entry:
    """What is known of a call when it ends. Bodies are JSON: values, or `msgspec.Raw` as they came.

    `error` is the code of a call that was refused or failed; it has no output.
    """

    at: datetime
    account: str
    identity: str
    region: str
    request_id: str
    operation: str
    model: str
    input_body: Any
    output_body: Any = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    error: str = ""

    def encode(self) -> bytes:
        """One line of JSON, without its end."""
        given: dict[str, Any] = {"inputContentType": JSON_TYPE, "inputBodyJson": self.input_body}
        if self.input_tokens is not None:
            given["inputTokenCount"] = self.input_tokens
        line: dict[str, Any] = {
            "schemaType": "ModelInvocationLog", "schemaVersion": "1.0", "timestamp": f"{self.at:%Y-%m-%dT%H:%M:%SZ}",
            "accountId": self.account, "identity": {"arn": self.identity}, "region": self.region,
            "requestId": self.request_id, "operation": self.operation, "modelId": self.model, "input": given,
        }  # fmt: skip
        if self.error:
            line["errorCode"] = self.error
        else:
            line["output"] = {"outputContentType": JSON_TYPE, "outputBodyJson": self.output_body}
            if self.output_tokens is not None:
                line["output"]["outputTokenCount"] = self.output_tokens
        if self.metadata:
            line["requestMetadata"] = self.metadata
        return msgspec.json.encode(line)
