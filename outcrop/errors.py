"""What can go wrong, named as the client will see it.

Each class carries the error name that AWS's service models declare. The wire looks the name up in
the model of the operation that failed and takes the HTTP status from there, because the same name
has different statuses in different services (ConflictException: 400 in bedrock, 409 in bedrock-agent).
To add one: add a class here with AWS's name; nothing else needs to know.
"""


class OutcropError(Exception):
    """Anything we refuse or fail in words. `members` are further fields that the error's model declares."""

    code = "InternalServerException"

    def __init__(self, message: str, **members: object) -> None:
        super().__init__(message)
        self.message = message
        self.members = members


class Invalid(OutcropError):
    """The request or the data is wrong; the message says what was given, what was expected and where."""

    code = "ValidationException"


class Denied(OutcropError):
    """The caller's credentials are missing, unknown or do not fit the request."""

    code = "AccessDeniedException"


class NotFound(OutcropError):
    """There is nothing under the name or ARN given."""

    code = "ResourceNotFoundException"


class Conflict(OutcropError):
    """The name is taken, the token was used for something else, or the resource is in a state that forbids it."""

    code = "ConflictException"


class TooManyTags(OutcropError):
    """A resource would carry more than 200 tags."""

    code = "TooManyTagsException"


class Throttled(OutcropError):
    """More requests at once than the deployment's capacity takes; the client may try again."""

    code = "ThrottlingException"


class NotReady(OutcropError):
    """The model is being loaded; botocore tries again by itself."""

    code = "ModelNotReadyException"


class ModelFailed(OutcropError):
    """The engine failed while it answered."""

    code = "ModelErrorException"


class ModelTimedOut(OutcropError):
    """The engine did not answer in time."""

    code = "ModelTimeoutException"


class Unsupported(OutcropError):
    """A true operation of the service that Outcrop does not do. Said in words, never answered as if done."""

    code = "ValidationException"


class Diverged(OutcropError):
    """Training produced a loss or gradient that is not finite."""

    code = "ValidationException"


class S3Error(OutcropError):
    """An S3 error: S3 declares few of its errors in the model, so code and status are given here."""

    def __init__(self, code: str, message: str, status: int, **members: object) -> None:
        super().__init__(message, **members)
        self.code = code
        self.status = status
