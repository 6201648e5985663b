"""The keys that open an installation: made at the first start, kept in the home folder, readable by its owner alone."""

import json
import os
import secrets
import string
from dataclasses import dataclass
from pathlib import Path

FILE = "keys.json"


@dataclass(frozen=True)
class LocalKeys:
    """One pair for signatures and one bearer key."""

    access_key: str
    secret: str
    bearer: str

    @classmethod
    def of(cls, home: Path) -> "LocalKeys":
        """The home folder's keys; made when there are none."""
        path = home / FILE
        if not path.exists():
            home.mkdir(parents=True, exist_ok=True, mode=0o700)
            letters = string.ascii_uppercase + string.digits
            made = {
                "access_key": "AKIA" + "".join(secrets.choice(letters) for _ in range(16)),
                "secret": secrets.token_urlsafe(30),
                "bearer": "outcrop-" + secrets.token_urlsafe(30),
            }
            unfinished = path.with_suffix(".new")
            with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(made, file)
            unfinished.rename(path)
        return cls(**json.loads(path.read_text()))

    def secret_of(self, access_key: str) -> str | None:
        """The secret that belongs to an access key."""
        return self.secret if secrets.compare_digest(access_key.encode(), self.access_key.encode()) else None

    def accepts_bearer(self, token: str) -> bool:
        """Whether a bearer key is ours."""
        return secrets.compare_digest(token.encode(), self.bearer.encode())
