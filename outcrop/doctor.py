"""What this machine has, and what is missing."""

import importlib.util
import os
import shutil
import socket
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from outcrop.machine import available_cpus
from outcrop.registry.base_models import PEBBLE_FOLDER
from outcrop.settings import Settings

LEAST_FREE_GB = 2


@dataclass(frozen=True)
class Finding:
    """One thing looked at; verdict is ok, note or bad."""

    verdict: str
    what: str
    found: str


def examine(settings: Settings) -> list[Finding]:
    """Every finding, none of which starts anything or touches the network beyond this machine."""
    return [
        _python(),
        Finding("ok", "processors", f"{available_cpus()} usable, {_float_units()}"),
        _memory(),
        _disk(settings),
        _package("botocore", "the service models", needed=True),
        _package("torch", "training and the embedded engine: pip install outcrop[train]", needed=False),
        _package("transformers", "model architectures: pip install outcrop[train]", needed=False),
        _starter(),
        _port(settings),
        _environment(),
    ]


def _python() -> Finding:
    found = sys.version.split()[0]
    return Finding("ok" if sys.version_info >= (3, 11) else "bad", "Python", f"{found} (3.11 or newer is needed)")


def _float_units() -> str:
    """Which arithmetic the processor is quick at: training uses float32 unless there are units for bf16."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return "float32"
    return "bf16 units" if "amx_bf16" in flags or "avx512_bf16" in flags else "float32 (no bf16 units)"


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return Finding("ok" if total >= 2 else "note", "memory", f"{total:.1f} GiB")


def _disk(settings: Settings) -> Finding:
    place = settings.folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 2**30
    return Finding("ok" if free >= LEAST_FREE_GB else "bad", "disk", f"{free:.1f} GiB free for {settings.folder}")


def _package(name: str, purpose: str, needed: bool) -> Finding:
    try:
        return Finding("ok", name, f"{version(name)} ({purpose.partition(':')[0]})")
    except PackageNotFoundError:
        installed = importlib.util.find_spec(name) is not None
        return Finding("ok" if installed else "bad" if needed else "note", name, f"missing; for {purpose}")


def _starter() -> Finding:
    path = PEBBLE_FOLDER / "model.safetensors"
    if not path.is_file():
        return Finding("bad", "starter model", f"{path} is missing; install Outcrop again")
    return Finding("ok", "starter model", f"{path.stat().st_size / 2**20:.1f} MiB")


def _port(settings: Settings) -> Finding:
    with socket.socket() as probe:
        in_use = probe.connect_ex((settings.host, settings.port)) == 0
    if in_use:
        return Finding(
            "note", "port", f"{settings.port} is in use: a running Outcrop, or choose another with OUTCROP_PORT"
        )
    return Finding("ok", "port", f"{settings.port} is free")


def _environment() -> Finding:
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    if endpoint is None:
        return Finding("note", "AWS_ENDPOINT_URL", 'not set in this shell: eval "$(outcrop env)"')
    return Finding("ok", "AWS_ENDPOINT_URL", endpoint)
