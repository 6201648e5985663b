"""Many questions to a model, as many at once as it takes, each answer kept as it comes: what a killed worker had stays."""

import contextlib
import hashlib
import math
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

import msgspec

from outcrop import invocation
from outcrop.jobs import Tell
from outcrop.registry import Registry
from outcrop.rendering import Conversation
from outcrop.serving import Serving
from outcrop.serving.engines.supervisor import Engines, Options
from outcrop.settings import Settings
from outcrop.storage import Storage

K = TypeVar("K", bound=msgspec.Struct)
Q = TypeVar("Q")


@contextlib.contextmanager
def own_engine(
    storage: Storage, registry: Registry, settings: Settings, room: str, *models: str
) -> Iterator[invocation.Invocation]:
    """Models in engines of this process's own, one for each base, so that a job does not wait for the server's; ended with the block."""
    folder = storage.folder / "logs" / room
    folder.mkdir(exist_ok=True)
    # Nobody watches: prompts are read in full passes.
    engines = Engines(folder, Options(**{**settings.engine_options, "pause_s": math.inf}))
    try:
        serving = Serving(storage, registry, engines)
        # Here, not in a thread of a pool: a child process is killed when the thread that began it ends (prctl(2)).
        for model in models:
            serving.warm_up(model)
        yield invocation.Invocation(serving, registry)
    finally:
        engines.end_all()


def key_of(asked: Conversation, *more: str) -> str:
    """What an answer depends on, as one hash: what is asked, and whatever else is said of how and whom."""
    turns = [[turn.role, turn.text] for turn in asked.messages]
    return hashlib.sha256(msgspec.json.encode([asked.system, turns, more])).hexdigest()


class Answers(Generic[K]):
    """A growing file of answers, one a line; a line that was cut off is forgotten."""

    def __init__(self, file: Path | None, kind: type[K]) -> None:
        """Without a file nothing is kept for a second try."""
        self.file = file
        self._decoder = msgspec.json.Decoder(kind)
        self._lock = threading.Lock()

    def kept(self) -> Iterator[K]:
        """What there is, in the order in which it came."""
        if self.file is None or not self.file.is_file():
            return
        with self.file.open("rb+") as file:
            whole = 0
            for line in file:
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                yield self._decoder.decode(line)
            file.truncate(whole)

    def ask(
        self,
        questions: Iterable[Q],
        act: Callable[[Q], K],
        at_once: int,
        tell: Tell | None,
        told: Callable[[K], None] = lambda kept: None,
    ) -> None:
        """Have every question answered by `act`, in threads, and keep each answer. `told` hears of each, one at a time.

        Ends early, with what there is, when the job is to stop. Raises what `act` raises.
        """
        with _adding_to(self.file) as file, ThreadPoolExecutor(at_once) as pool:
            waiting = Window(pool, 2 * at_once)

            def one(question: Q) -> None:
                kept = act(question)
                with self._lock:
                    if file is not None:
                        file.write(msgspec.json.encode(kept) + b"\n")
                        file.flush()
                    told(kept)

            for question in questions:
                if tell is not None and (tell.wants_stop.is_set() or tell.is_lost.is_set()):
                    break
                waiting.submit(one, question)
            waiting.finish()
        if tell is not None:
            tell.check()


def _adding_to(path: Path | None) -> contextlib.AbstractContextManager[IO[bytes] | None]:
    """A file to add to, or nothing."""
    return path.open("ab") if path is not None else contextlib.nullcontext()


class Window:
    """A pool that is given no more than so many tasks ahead; an error of a task comes out at the next submit."""

    def __init__(self, pool: ThreadPoolExecutor, size: int) -> None:
        self._pool, self._room = pool, threading.Semaphore(size)
        self._error: BaseException | None = None

    def submit(self, task: Callable[..., Any], *arguments: Any) -> None:
        """Wait for room, and hand a task over. Raises what an earlier one raised."""
        self._room.acquire()
        if self._error is not None:
            raise self._error

        def finished(future: "Future[Any]") -> None:
            self._error = self._error or future.exception()
            self._room.release()

        self._pool.submit(task, *arguments).add_done_callback(finished)

    def finish(self) -> None:
        """Wait for all. Raises what one of them raised."""
        self._pool.shutdown(wait=True)
        if self._error is not None:
            raise self._error
