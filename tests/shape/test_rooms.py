"""The architecture, as a table that fails when it is not kept."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "outcrop"
LEAVES = {"errors", "names", "clock", "settings", "machine", "hyperparameters"}
ROOMS = {
    "errors": set(),
    "names": set(),
    "clock": set(),
    "settings": set(),
    "hyperparameters": {"errors"},
    "arithmetic": set(),
    "machine": set(),
    "storage": LEAVES - {"hyperparameters"},
    "wire": {"errors", "clock"},
    "rendering": {"errors"},
    "datasets": {"rendering", "storage", *LEAVES},
    "registry": {"rendering", "storage", *LEAVES},
    "training": {"datasets", "rendering", "hyperparameters", "arithmetic", "machine", "errors"},
    "jobs": {"storage", *LEAVES},
    "serving": {"registry", "storage", "jobs", "arithmetic", *LEAVES},
    "logs": {"storage", *LEAVES},
    "invocation": {"rendering", "serving", "registry", *LEAVES},
    "synthesis": {"datasets", "rendering", "invocation", "logs", *LEAVES},
    "evaluation": {"datasets", "rendering", *LEAVES},
    "advice": {"evaluation", "rendering", *LEAVES},
    "workflows": {"advice", "datasets", "rendering", "jobs", "training", "registry", "serving", "invocation", "evaluation", "logs", "synthesis", "storage", *LEAVES},
    "api": {"jobs", "registry", "serving", "invocation", "logs", "datasets", "storage", "evaluation", "wire", *LEAVES},
    "demo": {"evaluation", "keys", *LEAVES},
    "cli": {"advice", "api", "datasets", "evaluation", "logs", "rendering", "synthesis", "workflows", "jobs", "training", "registry", "serving", "storage", "demo", *LEAVES},
}  # fmt: skip
# Rooms in whose processes torch may be; everywhere else importing it is a mistake.
MAY_TOUCH_TORCH = (
    "arithmetic.py",
    "training/",
    "serving/engines/",
    "registry/adapters.py",
    "registry/merge.py",
)
MAY_TOUCH_SQL = ("storage/", "jobs/queue.py")
MAY_READ_ENVIRONMENT = ("settings.py", "jobs/children.py", "doctor.py", "demo/run.py")


def files() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Modules that a file imports at run time, wherever in it; those for type checking alone are left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "outcrop" and len(parts) > 1 else None


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_imports_only_what_the_table_allows(room: str) -> None:
    paths = [ROOT / f"{room}.py"] if (ROOT / f"{room}.py").exists() else sorted((ROOT / room).rglob("*.py"))
    assert paths
    for path in paths:
        used = {other for module in imports(path) if (other := room_of(module)) in ROOMS}
        assert used - {room} <= ROOMS[room], f"{path} imports {used - ROOMS[room] - {room}}"


def test_every_folder_is_a_room_of_the_table() -> None:
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders <= set(ROOMS)


def touching(*names: str) -> list[str]:
    return [
        str(path.relative_to(ROOT))
        for path in files()
        if any(module.split(".")[0] in names for module in imports(path))
    ]


def test_torch_is_touched_only_in_training_and_its_engine() -> None:
    assert [
        path for path in touching("torch", "transformers", "safetensors") if not path.startswith(MAY_TOUCH_TORCH)
    ] == []


def test_engines_that_need_no_torch_have_none() -> None:
    free = {"__init__", "echo_engine", "listening", "supervisor", "vllm_engine"}
    touched = {Path(path).stem for path in touching("torch", "transformers") if path.startswith("serving/engines/")}
    assert not touched & free


def test_sql_is_touched_only_in_storage_and_the_queue() -> None:
    assert [path for path in touching("sqlalchemy", "sqlite3") if not path.startswith(MAY_TOUCH_SQL)] == []


def test_the_environment_is_read_in_settings_and_handed_to_children_only() -> None:
    readers = [
        str(path.relative_to(ROOT))
        for path in files()
        if "os.environ" in path.read_text() or "getenv" in path.read_text()
    ]
    assert sorted(readers) == sorted(MAY_READ_ENVIRONMENT)


def test_broad_excepts_stand_only_at_the_edges() -> None:
    edges = {
        "wire/app.py",
        "jobs/worker.py",
        "logs/logs.py",
        "evaluation/graders.py",
        "serving/serving.py",
        "serving/engines/loop.py",
        "workflows/create_custom_model.py",
    }
    broad = {
        str(path.relative_to(ROOT))
        for path in files()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ExceptHandler) and (node.type is None or ast.unparse(node.type) == "Exception")
    }
    assert broad <= edges


def test_nothing_has_a_name_that_says_nothing() -> None:
    empty = {"utils", "util", "common", "core", "helpers", "manager", "misc", "base"}
    assert not {path.stem for path in files()} & empty


def test_importing_the_api_loads_no_torch() -> None:
    code = (
        "import sys, outcrop.api, outcrop.server, outcrop.cli, outcrop.workflows.customize;"
        "print([name for name in ('torch', 'transformers', 'safetensors') if name in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
