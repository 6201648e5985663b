"""A process that looks at one stretch of a file: `python -m outcrop.datasets`, pickles in and out, both our own."""

import pickle
import sys

from outcrop.datasets.scan import Stretch, scan

if __name__ == "__main__":
    stretch = pickle.load(sys.stdin.buffer)  # noqa: S301  # from the process that began this one
    assert isinstance(stretch, Stretch)
    pickle.dump(scan(stretch), sys.stdout.buffer)
