"""One file per kind of job, each readable as the way, top to bottom."""
