"""The generated parts of the documentation: `python -m outcrop.reference --write`.

Operations, hyperparameters and settings are listed from the code that serves them; a test fails when a page is out of
date.
"""

import sys
from pathlib import Path

from outcrop import hyperparameters, settings
from outcrop.api.table import EXTENSIONS, implemented
from outcrop.wire.models import BEDROCK_SERVICES, service_model

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- generated: {} -->", "<!-- end -->"
SERVICES = (*BEDROCK_SERVICES, "s3", "sts", "iam")


def operations() -> str:
    """Every operation that is done, by service, with what its function says of it."""
    done = implemented()
    lines = []
    for service in SERVICES:
        names = sorted(name for owner, name in done if owner == service)
        total = len(service_model(service).operation_names)
        lines += [f"## {service}: {len(names)} of {total}", ""]
        if not names:
            lines += ["Every operation answers a declared error that says it is not implemented.", ""]
            continue
        lines += ["| operation | what it does |", "|---|---|"]
        lines += [f"| {name} | {_first_line(done[service, name].__doc__)} |" for name in names]
        lines.append("")
    lines += ["## Extensions", "", "| request | what it does |", "|---|---|"]
    lines += [
        f"| `{method} {path}` | {_first_line(function.__doc__)} |" for (method, path), function in EXTENSIONS.items()
    ]
    return "\n".join(lines) + "\n"


def summary() -> str:
    """How much of each service is done, for the README."""
    done = implemented()
    lines = ["| service | done | not done |", "|---|---|---|"]
    for service in SERVICES:
        names = sorted(name for owner, name in done if owner == service)
        total = len(service_model(service).operation_names)
        listed = ", ".join(names) if names else "-"
        lines.append(f"| {service} | {listed} | {total - len(names)} others answer a declared error |")
    return "\n".join(lines) + "\n"


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]


PAGES = {
    "docs/operations.md": ("operations", operations),
    "docs/hyperparameters.md": ("hyperparameters", hyperparameters.markdown),
    "docs/settings.md": ("settings", settings.markdown),
    "README.md": ("operations", summary),
}


def rendered(path: str) -> tuple[str, str]:
    """(the page as it is, the page as it should be). Raises ValueError when its markers are missing."""
    name, make = PAGES[path]
    present = (ROOT / path).read_text(encoding="utf-8")
    begin = BEGIN.format(name)
    head, mark, rest = present.partition(begin)
    if not mark or END not in rest:
        raise ValueError(f"{path} has no {begin} ... {END}")
    return present, f"{head}{begin}\n{make()}{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    for page in PAGES:
        before, after = rendered(page)
        if "--write" in sys.argv:
            (ROOT / page).write_text(after, encoding="utf-8")
        elif before != after:
            sys.exit(f"{page} is out of date; run `make docs`")
