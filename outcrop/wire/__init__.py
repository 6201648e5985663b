"""HTTP in AWS's dialect: route, verify, read, check, call, write, refuse, stream.

In: ASGI requests, and a function per operation. Out: responses as the installed botocore's service models describe
them. Nothing is retyped from those models: paths, locations, constraints, statuses and event streams are read at
start. The room does not know what any operation means.
"""

from outcrop.wire.app import Wire
from outcrop.wire.body import Body
from outcrop.wire.context import Context
from outcrop.wire.sigv4 import Keys

__all__ = ["Body", "Context", "Keys", "Wire"]
