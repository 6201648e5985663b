"""The engine's process: `python -m outcrop.serving.engines.loop FOLDER SOCKET THREADS SLOTS FORMAT CACHE ADAPTERS PAUSE`.

Requests from the socket into the engine's batch, tokens back. A connection is a request; hanging up cancels it.
"""

import logging
import queue
import socket
import struct
import sys
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import msgspec

from outcrop.serving.engines.listening import take_requests
from outcrop.serving.engines.torch_engine import Active, TorchEngine, prepare
from outcrop.serving.protocol import REQUESTS, Embed, Generate, Load, Reply, Request, Score

log = logging.getLogger("outcrop.engine")

SEND_WITHIN_S = 10


class Client:
    """The other end of a request's connection."""

    def __init__(self, connection: socket.socket) -> None:
        # A client that does not read must not hold up the others: after this long it counts as gone.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_WITHIN_S, 0))
        self._connection = connection
        self.is_gone = False

    def send(self, reply: Reply) -> None:
        """Tell the client; one that has left is noticed."""
        try:
            self._connection.sendall(msgspec.json.encode(reply) + b"\n")
        except OSError:
            self.is_gone = True

    def finish(self, reply: Reply) -> None:
        """Tell the client, then hang up."""
        self.send(reply)
        self.hang_up()

    def hang_up(self) -> None:
        """End the connection."""
        self._connection.close()


@dataclass(frozen=True)
class Waiting:
    """A request that is not in the batch."""

    request: Generate
    client: Client


class Loop:
    """Turn after turn: whoever waits in, one pass, tokens out."""

    def __init__(self, engine: TorchEngine) -> None:
        self._engine = engine
        self._arriving: queue.Queue[tuple[Request, Client]] = queue.Queue()
        self._waiting: deque[Waiting] = deque()
        self._clients: dict[int, Client] = {}

    def read(self, connection: socket.socket) -> None:
        """A connection's request; stays until the client hangs up."""
        client = Client(connection)
        with connection.makefile("rb") as lines:
            try:
                self._arriving.put((REQUESTS.decode(lines.readline()), client))
                lines.read()  # returns when the client hangs up
            except msgspec.DecodeError as error:
                client.send(Reply(done="error", reason=f"not a request: {error}"))
            except OSError:
                pass
        client.is_gone = True

    def run(self) -> None:
        """For ever."""
        engine = self._engine
        while True:
            self._take_in()
            for one in list(engine.active):
                if self._clients[id(one)].is_gone:
                    self._drop(one)
            if not engine.active:
                continue
            try:
                for one in engine.turn():
                    self._hand_out(one)
            except (RuntimeError, ValueError, IndexError) as error:
                log.exception("a pass failed")
                engine.pages.forget()
                for one in list(engine.active):
                    self._clients[id(one)].send(Reply(done="error", reason=str(error)))
                    self._drop(one)

    def _take_in(self) -> None:
        """Answer what can be answered at once, and let in who waits; blocks when there is nothing else to do."""
        while True:
            try:
                request, client = self._arriving.get(block=not self._engine.active and not self._waiting)
            except queue.Empty:
                break
            if isinstance(request, Embed):
                client.finish(Reply(done="error", reason="this model continues a text; it makes no embeddings"))
            elif isinstance(request, Generate):
                self._waiting.append(Waiting(request, client))
            else:
                client.finish(self._answer(request))
        for _ in range(len(self._waiting)):
            waiting = self._waiting.popleft()
            if not waiting.client.is_gone and not self._admit(waiting):
                self._waiting.append(waiting)

    def _answer(self, request: Load | Score) -> Reply:
        try:
            if isinstance(request, Score):
                return Reply(done="scored", loss=self._engine.score(request))
            if request.adapter is not None and not self._engine.adapters.load(request.adapter):
                return Reply(done="error", reason="the memory for adapters is full of adapters in use")
            return Reply(done="ready")
        except Exception as error:  # an edge: one damaged adapter must not end everybody's engine
            log.exception("%s", request)
            return Reply(done="error", reason=f"adapter {request.adapter}: {error}")

    def _admit(self, waiting: Waiting) -> bool:
        """Whether the request is dealt with: in the batch, or refused."""
        try:
            one = self._engine.admit(waiting.request)
        except Exception as error:  # an edge: as above
            log.exception("adapter %s", waiting.request.adapter)
            waiting.client.finish(Reply(done="error", reason=f"adapter {waiting.request.adapter}: {error}"))
            return True
        if one is None:
            return False
        self._clients[id(one)] = waiting.client
        return True

    def _hand_out(self, one: Active) -> None:
        """Send a request's new token, and drop it when it is done."""
        client = self._clients[id(one)]
        if one.said.token in one.request.stop_tokens:
            client.send(Reply(done="stop"))
        elif len(one.answer) >= one.request.max_tokens:
            client.send(msgspec.structs.replace(one.said, done="length"))
        else:
            client.send(one.said)
            return
        self._drop(one)

    def _drop(self, one: Active) -> None:
        self._engine.drop(one)
        client = self._clients.pop(id(one))
        client.hang_up()


def main(
    folder: str, path: str, threads: str, slots: str, number_format: str, cache: str, adapters: str, pause: str, *_: str
) -> None:  # fmt: skip
    """Load the weights, then listen; the socket appears when requests can be answered."""
    logging.basicConfig(level=logging.INFO)
    prepare(int(threads))
    engine = TorchEngine(Path(folder), int(slots), number_format, int(cache), int(adapters), float(pause))
    engine.warm_up()
    loop = Loop(engine)
    threading.Thread(target=take_requests, args=(path, loop.read), daemon=True).start()
    loop.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
