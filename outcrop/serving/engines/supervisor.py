"""Engines as child processes: started when first asked for, watched, ended when idle."""

import hashlib
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from subprocess import Popen, TimeoutExpired

from outcrop.errors import ModelFailed, NotReady
from outcrop.jobs.children import python_child, tail
from outcrop.machine import available_cpus
from outcrop.registry.embedding import read_pooling
from outcrop.serving.capacity import Capacity
from outcrop.serving.engines import EMBEDDING_ENGINE, ENGINES
from outcrop.serving.protocol import Reply, Request, ask

# Loading weights takes seconds on a laptop and minutes for tens of gigabytes; a client is told to come back after this.
STARTS_WITHIN_S = 60.0
SILENCE_S = 120.0
SMALL_BYTES = 100_000_000
# How often a thread looks for its next kernel before it sleeps: some 50 us. Kernels follow each other within a few; waking
# a thread for each costs a 135 M model 18 ms a token on two threads instead of 13.
SPINS = "20000"


@dataclass(frozen=True)
class Options:
    """How engines run. 0 threads: as many as suit the model; 0 GB: a share of what is free."""

    kind: str = "torch"
    threads: int = 0
    slots: int = 16
    idle_s: float = 900.0
    weights: str = "float32"
    cache_gb: float = 0.0
    adapters_gb: float = 0.0
    pause_s: float = 0.25
    vllm: str = "vllm"


@dataclass
class Engine:
    """One base's engine. `users` counts requests in flight, so that it is not ended under them."""

    folder: Path
    socket: Path
    log: Path
    capacity: Capacity
    process: "Popen[bytes] | None" = None
    starting: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0
    used_at: float = field(default_factory=time.monotonic)

    @property
    def is_running(self) -> bool:
        """Whether there is a process that listens."""
        return self.process is not None and self.process.poll() is None and self.socket.exists()


class Engines:
    """All engines of this service process."""

    def __init__(self, logs: Path, options: Options) -> None:
        self._logs, self._options, self.slots = logs, options, options.slots
        self._module = ENGINES[options.kind]
        self._engines: dict[Path, Engine] = {}
        self._lock = threading.Lock()

    @property
    def rounds(self) -> bool:
        """Whether engines keep weights, or calculate, with fewer digits than training does."""
        return self._options.weights != "float32" or self._options.kind == "vllm"

    @cached_property
    def _sockets(self) -> Path:
        """Not in the home folder: a socket's path may have 107 bytes at most (unix(7)). Made when it is needed."""
        return Path(tempfile.mkdtemp(prefix="outcrop-"))

    def of(self, folder: Path) -> Engine:
        """The engine of a folder of weights, running or not."""
        with self._lock:
            if folder not in self._engines:
                name = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
                self._engines[folder] = Engine(
                    folder, self._sockets / f"{name}.sock", self._logs / f"engine-{name}.log", Capacity(self.slots)
                )
            return self._engines[folder]

    def ask(self, folder: Path, request: Request) -> Iterator[Reply]:
        """An engine's replies. Raises NotReady, ModelFailed, ModelTimedOut."""
        engine = self.of(folder)
        with self._in_use(engine):
            self._start(engine)
            yield from ask(engine.socket, request, SILENCE_S)

    @contextmanager
    def _in_use(self, engine: Engine) -> Iterator[None]:
        with self._lock:
            engine.users += 1
        try:
            yield
        finally:
            with self._lock:
                engine.users -= 1
                engine.used_at = time.monotonic()

    def _start(self, engine: Engine) -> None:
        """See that the engine listens; several callers wait for one start."""
        if engine.is_running:
            return
        deadline = time.monotonic() + STARTS_WITHIN_S
        if not engine.starting.acquire(timeout=STARTS_WITHIN_S):
            raise NotReady("The model is being loaded; please try again.")
        try:
            if engine.is_running:
                return
            if engine.process is None or engine.process.poll() is not None:
                engine.socket.unlink(missing_ok=True)
                options = self._options
                threads = str(options.threads or threads_for(engine.folder))
                arguments = [str(engine.folder), str(engine.socket), threads, str(options.slots), options.weights]
                memory = [str(int(gb * 1e9)) for gb in (options.cache_gb, options.adapters_gb)]
                environment = {"OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads, "GOMP_SPINCOUNT": SPINS}
                with engine.log.open("wb") as log:
                    engine.process = python_child(
                        self._module_of(engine),
                        [*arguments, *memory, str(options.pause_s), options.vllm],
                        log,
                        environment,
                    )
            while not engine.socket.exists():
                if engine.process.poll() is not None:
                    raise ModelFailed(f"the engine of {engine.folder.name} did not start: {tail(engine.log)}")
                if time.monotonic() > deadline:
                    raise NotReady("The model is still being loaded; please try again.")
                time.sleep(0.02)
        finally:
            engine.starting.release()

    def _module_of(self, engine: Engine) -> str:
        return self._module if read_pooling(engine.folder) is None else EMBEDDING_ENGINE

    def end_idle(self) -> None:
        """End engines that nobody has asked for a while and that hold no provisioned capacity."""
        with self._lock:
            idle = [
                engine
                for engine in self._engines.values()
                if engine.is_running
                and not engine.users
                and not engine.capacity.reserved
                and time.monotonic() - engine.used_at > self._options.idle_s
            ]
        for engine in idle:
            _end(engine)

    def end_all(self) -> None:
        """End every engine."""
        for engine in list(self._engines.values()):
            _end(engine)
        if self._engines:
            shutil.rmtree(self._sockets, ignore_errors=True)


def threads_for(folder: Path) -> int:
    """One thread for weights below 100 MB, all processors above: small matrices lose more to waiting than they gain."""
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return 1 if size < SMALL_BYTES else available_cpus()


def _end(engine: Engine) -> None:
    if engine.process is not None:
        engine.process.terminate()
        try:
            engine.process.wait(5)
        except TimeoutExpired:
            engine.process.kill()
            engine.process.wait()
    engine.socket.unlink(missing_ok=True)
