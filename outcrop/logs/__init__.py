"""What was asked and answered, in Bedrock's invocation-log format, in S3.

In: entries, one for each call of a model. Out: gzipped files of JSON lines under the bucket that a client configured, and
the same entries read back. An entry is in a journal on the disk before its answer is acknowledged; packing and delivery are
off the request's path. The room knows neither HTTP nor models.
"""

from outcrop.logs.entry import Entry
from outcrop.logs.filters import Filter, read_filter
from outcrop.logs.logs import Logs
from outcrop.logs.reading import Logged, read_logs

__all__ = ["Entry", "Filter", "Logged", "Logs", "read_filter", "read_logs"]
