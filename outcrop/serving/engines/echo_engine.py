"""An engine without weights: it answers with the prompt's own tokens. For tests, and for trying out clients."""

import socket
import sys
from itertools import cycle, islice

import msgspec

from outcrop.serving.engines.listening import take_requests
from outcrop.serving.protocol import REQUESTS, Embed, Load, Reply, Score


def answer(connection: socket.socket) -> None:
    """Serve one request."""
    with connection, connection.makefile("rb") as lines:
        try:
            request = REQUESTS.decode(lines.readline())
            if isinstance(request, Score | Embed):
                connection.sendall(
                    msgspec.json.encode(Reply(done="error", reason="the echo engine has no weights")) + b"\n"
                )
                return
            if isinstance(request, Load):
                connection.sendall(msgspec.json.encode(Reply(done="ready")) + b"\n")
                return
            for token in islice(cycle(request.tokens), request.max_tokens):
                connection.sendall(msgspec.json.encode(Reply(token=token)) + b"\n")
            connection.sendall(msgspec.json.encode(Reply(done="length")) + b"\n")
        except msgspec.DecodeError as error:
            connection.sendall(msgspec.json.encode(Reply(done="error", reason=str(error))) + b"\n")
        except OSError:
            return  # the client left


def main(_folder: str, path: str, *_: str) -> None:
    """Listen until the process ends."""
    take_requests(path, answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
