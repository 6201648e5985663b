"""The service process: one port, a worker beside it, engines behind it."""

import asyncio
import contextlib
import fcntl
import ipaddress
import logging
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from typing import IO

from granian.constants import Interfaces
from granian.server.embed import Server

from outcrop.api import Service, extensions, functions, second_door
from outcrop.certificate import certificate
from outcrop.errors import Invalid
from outcrop.jobs import Jobs
from outcrop.jobs.children import python_child
from outcrop.keys import LocalKeys
from outcrop.logs import Logs
from outcrop.registry import Registry
from outcrop.serving import Serving
from outcrop.serving.engines.supervisor import Engines, Options
from outcrop.settings import Settings
from outcrop.storage import Storage
from outcrop.wire import Wire

log = logging.getLogger("outcrop")


def make_service(settings: Settings, storage: Storage) -> Service:
    """The rooms of an installation, put together."""
    registry = Registry(storage)
    engines = Engines(storage.folder / "logs", Options(**settings.engine_options))
    logs = Logs(storage, settings.account, settings.log_delivery_s)
    return Service(settings, storage, Jobs(storage.records), registry, Serving(storage, registry, engines), logs)


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM. Raises Invalid when the settings or the folder do not allow it."""
    _check_open(settings)
    storage = Storage(settings.folder)
    with _only_one(settings), contextlib.ExitStack() as running:
        storage.clean()
        keys = LocalKeys.of(settings.folder)
        service = make_service(settings, storage)
        running.callback(service.serving.close)
        service.serving.start()
        running.callback(service.logs.close)
        service.logs.start()
        for number in range(settings.workers):
            worker = Worker(settings, number)
            running.callback(worker.close)
        wire = Wire(
            functions(service), keys, storage.receiving, is_open=settings.open, extensions=extensions(service),
            second_door=second_door(service),
            default_region=settings.region,
        )  # fmt: skip
        asyncio.run(_serve(settings, wire))


async def _serve(settings: Settings, wire: Wire) -> None:
    port = settings.port or _free_port(settings.host)
    pair = certificate(settings.folder, settings.host) if settings.tls else (None, None)
    server = Server(
        wire, address=settings.host, port=port, interface=Interfaces.ASGI, log_enabled=False, websockets=False,
        ssl_cert=pair[0], ssl_key=pair[1], backlog=1024,
    )  # fmt: skip
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, server.stop)
    serving = asyncio.ensure_future(server.serve())
    while not serving.done():
        with contextlib.suppress(OSError), socket.create_connection((settings.host, port), 0.2):
            break
        await asyncio.sleep(0.02)
    else:
        serving.result()
        raise Invalid(f"cannot listen on {settings.host}:{port}; is the port in use?")
    scheme = "https" if settings.tls else "http"
    (settings.folder / "endpoint").write_text(f"{scheme}://{settings.host}:{port}\n")
    print(f"Outcrop is ready at {scheme}://{settings.host}:{port} (home {settings.folder})", flush=True)
    print('Point a shell at it with: eval "$(outcrop env)"', flush=True)
    await serving


def _check_open(settings: Settings) -> None:
    try:
        is_loopback = ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        is_loopback = settings.host == "localhost"
    if settings.open and not is_loopback:
        raise Invalid(f"open accepts any credentials, so it is for loopback only, not for {settings.host}")


@contextlib.contextmanager
def _only_one(settings: Settings) -> Iterator[None]:
    with (settings.folder / "serve.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Invalid(f"another Outcrop already serves {settings.folder}; stop it, or set OUTCROP_HOME") from None
        yield


def _free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


class Worker:
    """A worker process, started again when it ends."""

    def __init__(self, settings: Settings, number: int) -> None:
        self._environment = {
            f"OUTCROP_{name.upper()}": str(value).lower() if isinstance(value, bool) else str(value)
            for name, value in settings.model_dump().items()
        }
        self._log = (settings.folder / "logs" / f"worker-{number}.log").open("ab")
        self._closing = threading.Event()
        self._process = self._start(self._log)
        threading.Thread(target=self._watch, daemon=True).start()

    def _start(self, log_file: IO[bytes]) -> "subprocess.Popen[bytes]":
        return python_child("outcrop", ["worker"], log_file, self._environment)

    def _watch(self) -> None:
        while not self._closing.wait(1.0):
            if self._process.poll() is not None:
                log.warning("the worker ended with %s; starting another", self._process.returncode)
                self._process = self._start(self._log)

    def close(self) -> None:
        """End the worker; its job goes on with the next one."""
        self._closing.set()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._log.close()
