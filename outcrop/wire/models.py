"""The installed botocore's service models."""

from functools import cache

from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel

BEDROCK_SERVICES = ("bedrock", "bedrock-runtime", "bedrock-agent", "bedrock-agent-runtime")
QUERY_SERVICES = ("sts", "iam")


@cache
def service_model(service: str) -> ServiceModel:
    """One service's model, loaded at the first use."""
    return ServiceModel(Loader().load_service_model(service, "service-2"), service)


@cache
def operation_model(service: str, operation: str) -> OperationModel:
    """One operation's model."""
    return service_model(service).operation_model(operation)
