"""A model's folder in S3 -> files on this machine."""

import shutil
from pathlib import Path

from outcrop.datasets.source import split_uri
from outcrop.errors import Invalid
from outcrop.storage import Storage

# A folder of more than this is refused; AWS's limit for imported text models is 200 GB.
MOST_BYTES = 200 * 1024**3
MOST_FILES = 2000
# Everything else is left where it is, but for what is known to be pickles, which are refused.
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
POOLING = "1_Pooling/config.json"
TAKEN = (".safetensors", ".json", ".jinja", ".model", ".txt", ".md")


def copy_folder(storage: Storage, uri: str, folder: Path) -> None:
    """The files that stand directly under a prefix, in a new folder. Raises Invalid."""
    bucket, prefix = split_uri(uri)
    prefix = f"{prefix.rstrip('/')}/" if prefix else ""
    found = list(storage.objects.keys(bucket, prefix))
    if not found:
        raise Invalid("there is nothing under this prefix")
    if sum(stored.size for stored in found) > MOST_BYTES or len(found) > MOST_FILES:
        raise Invalid(f"the folder has more than {MOST_BYTES:,} bytes, or more than {MOST_FILES:,} files")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for stored in found:
        name = stored.key[len(prefix) :]
        if ".." in name.split("/") or "\\" in name or "\0" in name or name.startswith("/"):
            raise Invalid(f"the key {stored.key!r} leads out of its folder")
        if "/" not in name and name.endswith(PICKLES) and not any(one.key.endswith(".safetensors") for one in found):
            raise Invalid(f"{name} is a pickle: it can run code and is not read; convert the weights to safetensors")
        if name == POOLING:  # the one file of a folder below that is wanted: how an encoder's states become a vector
            shutil.copyfile(stored.path, folder / "pooling.json")
        if "/" not in name and name.endswith(TAKEN) and not name.startswith("."):
            shutil.copyfile(stored.path, folder / name)
