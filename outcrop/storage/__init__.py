"""Records and blobs: the only room that touches them.

In: typed values and bytes. Out: the same, after a restart too. On one machine records are SQLite and blobs are files.
The room knows no domain: what a record or an object means is its caller's affair.
"""

from outcrop.storage.objects import Objects, StoredObject, Upload
from outcrop.storage.records import Collection, Records, Taken
from outcrop.storage.storage import Storage, sha256_of

__all__ = ["Collection", "Objects", "Records", "Storage", "StoredObject", "Taken", "Upload", "sha256_of"]
