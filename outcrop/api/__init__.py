"""One function per operation, named as the operation in snake case, in files by resource.

In: checked input and a Call. Out: the operation's output as a dictionary. The wire has checked all that the service
model states; here is checked what it cannot know. Importing this room loads neither torch nor transformers.
"""

from outcrop.api.call import Call, Service
from outcrop.api.table import extensions, functions, second_door

__all__ = ["Call", "Service", "extensions", "functions", "second_door"]
