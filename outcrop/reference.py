"""The generated parts of the documentation: `python -m outcrop.reference --write`.

Operations, hyperparameters and settings are listed from the code that serves them; a test fails when a page is out of
date.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

from outcrop import hyperparameters, settings
from outcrop.api.table import EXTENSIONS, SECOND_DOOR, implemented
from outcrop.datasets import kinds
from outcrop.evaluation import METRICS
from outcrop.wire.models import BEDROCK_SERVICES

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- generated: {} -->", "<!-- end -->"
SERVICES = (*BEDROCK_SERVICES, "s3", "sts", "iam")


def operations() -> str:
    """Every operation that is done, by service, with what its function says of it."""
    done = implemented()
    lines = []
    for service in SERVICES:
        names = sorted(name for owner, name in done if owner == service)
        lines += [f"## {service}: {len(names)}", ""]
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
    lines += ["", "## The second door, at /v1 and /openai/v1", "", "| request | what it does |", "|---|---|"]
    lines += [
        f"| `{method} {path}` | {_first_line(function.__doc__)} |" for (method, path), function in SECOND_DOOR.items()
    ]
    return "\n".join(lines) + "\n"


def summary() -> str:
    """How much of each service is done, for the README."""
    done = implemented()
    lines = ["| service | operations |", "|---|---|"]
    for service in SERVICES:
        names = sorted(name for owner, name in done if owner == service)
        lines.append(f"| {service} | {', '.join(names) if names else '-'} |")
    lines += ["", "Every other operation of these services answers a declared error that says so."]
    return "\n".join(lines) + "\n"


def script() -> str:
    """The README's boto3 session: the example that the tests run."""
    return f"```python\n{(ROOT / 'examples/fine_tune.py').read_text(encoding='utf-8')}```\n"


def figures() -> str:
    """Figures from benchmarks/results/, each with the command that prints it and the machine it ran on."""
    lines = ["| what | figure | command |", "|---|---|---|"]
    wire, banking, tatqa, maths, train = (_result(name) for name in ("wire", "banking77", "tatqa", "gsm8k", "train"))
    if train:
        ratios, memory = train["ratios"], train["memory_ratios"]
        for case, what in (("tatqa-135m", "six questions a table"), ("unshared-135m", "nothing shared")):
            lines.append(
                f"| training a 135 M model with adapters, {what}, against TRL in float32 | {ratios[f'{case}/trl-fp32']:.1f} times "
                f"the examples per CPU second, {memory[f'{case}/trl-fp32']:.0%} of its memory ([more](docs/training.md#figures)) "
                "| `make bench-train` |"
            )
    serve = _result("serve")
    if serve:
        ratios = serve["ratios"]
        for batch, what in ((1, "one request"), (16, "sixteen")):
            lines.append(
                f"| decoding a 135 M model, {what}, one thread, against transformers; against CTranslate2 | "
                f"{ratios[f'decode-b{batch}/generate']:.1f} times; {ratios[f'decode-b{batch}/ctranslate2-fp32']:.1f} times "
                "([more](docs/serving.md#figures)) | `make bench-serve` |"
            )
        lines.append(
            f"| sixteen adapters in one batch, against one by one | {ratios['adapters-16/one-by-one']:.1f} times | `make bench-serve` |"
        )
    if wire:
        lines.append(
            f"| the wire's CPU per Converse call | {wire['us_per_call']:.0f} us; {wire['us_with_thread']:.0f} us with the hand-over to a thread | `make bench-wire` |"
        )
        lines.append(
            f"| server ready; memory without engines | {wire['ready_s']:.1f} s; {wire['held_mb']} MB | `make bench-wire` |"
        )
    checked, logged, made = (_result(name) for name in ("check", "logs", "faq"))
    if checked:
        lines.append(
            f"| {checked['gigabytes']:.0f} GB of training data checked; memory; planted faults found | {checked['seconds']:.0f} s; "
            f"{checked['peak_mb']} MB; {checked['found']} of {checked['planted']} ([more](docs/data.md#the-check)) | `make bench-check` |"
        )
    if logged:
        lines.append(
            f"| what the invocation log takes of the throughput at full load | {_interval(logged['cost'])} | `make bench-logs` |"
        )
    if made:
        lines.append(
            f"| F1 on held-out documents, base and tuned on pairs made from others ([more](docs/synthesis.md#from-documents)) | "
            f"{_arms(made['F1'], '.1%')} | `make bench-faq` |"
        )
    if banking:
        lines.append(
            f"| banking77 accuracy, base and tuned, {banking['training_s']:.0f} s of training | {_arms(banking['accuracy'], '.1%')} | `make bench-banking77` |"
        )
    for name, found, metrics in (
        ("TAT-QA dev", tatqa, ("tatqa-em", "tatqa-f1", "tokens-out")),
        ("GSM8K", maths, ("number", "tokens-out")),
    ):
        for measure in found.get("measures", ()):
            if measure["metric"] in metrics:
                lines.append(
                    f"| {name} {measure['metric']}: {', '.join(found['arms'])} | {_of_arms(measure)} | `make bench-{found['name']}` |"
                )
    intervals, advised, compared = (_result(name) for name in ("intervals", "advice", "compare"))
    if intervals:
        held, equal = (
            [one["held"] for one in intervals["cases"]],
            [one["called"] for one in intervals["cases"] if not one["truth"]],
        )
        lines.append(
            f"| 95 % intervals that hold the truth, {len(held)} kinds of arms; equal arms called different ([more](docs/evaluation.md#what-may-be-believed)) | "
            f"{min(held):.1%} to {max(held):.1%}; {min(equal):.1%} to {max(equal):.1%} | `make bench-intervals` |"
        )
    if advised:
        lines.append(
            f"| advice on tasks whose right answer is known ([more](docs/advice.md)) | {advised['right']} of {advised['of']} right | `make bench-advice` |"
        )
    if compared:
        lines.append(
            f"| comparing {compared['arms']} arms on {compared['rows']:,} rows, against asking them alone | {compared['ratio']:.2f} times the time | `make bench-compare` |"
        )
    every = (wire, banking, tatqa, maths, train, serve, checked, logged, made, intervals, advised, compared)
    machines = {result["machine"] for result in every if result}
    lines += (
        ["", f"Accuracies with the starter model, 95 % intervals in brackets. On {'; '.join(sorted(machines))}."]
        if machines
        else []
    )
    return "\n".join(lines) + "\n"


def _of_arms(measure: dict[str, Any]) -> str:
    """A metric's figures, arm by arm."""
    scale, form = (100, ".1f") if measure["form"] == "share" else (1, ".1f")
    unit = " %" if measure["form"] == "share" else ""
    return ", ".join(
        "-"
        if one is None
        else f"{scale * one['mean']:{form}}{unit} [{scale * one['low']:{form}}, {scale * one['high']:{form}}]"
        for one in measure["arms"]
    )


def training() -> str:
    """What the training benchmarks measured, from benchmarks/results/."""
    train, kills, plan, grouping = (_result(name) for name in ("train", "kills", "plan", "grouping"))
    lines: list[str] = []
    if train:
        lines += [
            "`make bench-train`, one thread, ratios of examples per CPU second; memory as a part of the peer's:",
            "",
        ]
        lines += [
            "| case | examples per CPU-s | share of the float32 matmul rate | faster than | memory |",
            "|---|---|---|---|---|",
        ]
        for case, systems in train["cases"].items():
            own = systems["ours"]
            peers = [name for name in systems if name != "ours"]
            faster = ", ".join(f"{name} {train['ratios'][f'{case}/{name}']:.1f}x" for name in peers)
            memory = ", ".join(f"{train['memory_ratios'][f'{case}/{name}']:.0%}" for name in peers)
            lines.append(
                f"| {case} | {own['examples_per_cpu_s']:.2f} | {own['matmul_share']:.0%} | {faster} | {memory} |"
            )
        lines += [
            "",
            "The share counts a step's products and attention after sharing as if every layer were computed whole; what the "
            "last layer leaves out is counted (3 % at 135 M, up to 13 % at 15 M), the adapters' own products are not.",
        ]
        for shape, off in train.get("equal", {}).items():
            lines += ["", f"At {shape} a tree's loss is within {off['loss']:.0e} of the rows one by one, all adapter gradients "
                      f"together within {off['gradients']:.0e}, the worst tensor within {off['worst_tensor']:.0e} (relative)."]  # fmt: skip
        if "growth" in train:
            lines += ["", "| growth, 15 M | CPU-s per row | tokens computed | GB |", "|---|---|---|---|"]
            for row in train["growth"]:
                has_cost = "cpu_s_per_row" in row
                cost = f"{row['cpu_s_per_row']:.3f}" if has_cost else f"rehearsed in {row['rehearsal_s']:.0f} s"
                part = f"{row['tokens'] / row['row_tokens']:.0%}" if has_cost else "-"
                lines.append(f"| {row['what']} | {cost} | {part} | {row['peak_bytes'] / 1e9:.2f} |")
    if kills:
        verdict = ", ".join(f"{what} {'equal' if yes else 'different'}" for what, yes in kills["equal"].items())
        lines += [
            "",
            f"`make bench-kills`: {kills['kills']} kills in a run of {kills['steps']} steps; bit for bit {verdict}.",
        ]
    if plan:
        lines += [
            "",
            "`make bench-plan`:",
            "",
            "| job | planned s | took s | planned GB | took GB |",
            "|---|---|---|---|---|",
        ]
        for job in plan["jobs"]:
            lines.append(
                f"| {job['job']} | {job['planned_s']:.0f} +- {job['planned_error_s']:.0f} | {job['took_s']:.0f} | "
                f"{job['planned_bytes'] / 1e9:.2f} | {job['took_bytes'] / 1e9:.2f} |"
            )
        if "many" in plan:
            many = plan["many"]
            lines += ["", f"{many['rows']:,} examples of {many['tokens_per_row']:.0f} tokens are checked, rendered and planned in "
                      f"{many['seconds']:.0f} s, with {many['peak_bytes'] / 1e9:.2f} GB at most."]  # fmt: skip
    if grouping:
        lines += [
            "",
            "`make bench-grouping`: the starter model, five seeds each way, validation loss (nats a token) at the end:",
            "",
        ]
        lines += [
            "| set | grouped | one by one | difference, 95 % | CPU-s grouped | one by one |",
            "|---|---|---|---|---|---|",
        ]
        for name, found in grouping.items():
            if name not in ("tatqa", "wtq"):
                continue
            means = [sum(found["losses"][way]) / len(found["losses"][way]) for way in ("grouped", "one by one")]
            lines.append(
                f"| {name}, {found['rows']} rows | {means[0]:.4f} | {means[1]:.4f} | {found['difference']:+.4f} +- "
                f"{found['interval_95']:.4f} | {found['cpu_s']['grouped']:.0f} | {found['cpu_s']['one by one']:.0f} |"
            )
    machines = {result["machine"] for result in (train, kills, plan, grouping) if result}
    lines += ["", f"On {'; '.join(sorted(machines))}."] if machines else []
    return "\n".join(lines) + "\n"


def serving() -> str:
    """What the serving benchmark measured, from benchmarks/results/serve.json."""
    found = _result("serve")
    if not found:
        return ""
    ratios, cases, load = found["ratios"], found["cases"], found["load"]
    lines = [
        "`make bench-serve`, random weights of a 135 M model's shape, prompts of 512 tokens, answers of 64, one thread.",
        "`decode` is from the first token to the last, `whole` with the prompt.", "",
        "| case / peer | ours, tokens/s | theirs | ours is |", "|---|---|---|---|",
    ]  # fmt: skip
    for name, ratio in ratios.items():
        if name in cases and "ours_tokens_per_s" in cases[name]:
            one = cases[name]
            lines.append(
                f"| {name} | {one['ours_tokens_per_s']:.0f} | {one['theirs_tokens_per_s']:.0f} | {ratio:.2f} times |"
            )
    share, loss, mixed = cases["bandwidth-b1"], cases["int8-loss"], cases["adapters-16"]
    lines += [
        "", f"- One request reads weights and cache at {share['share']:.0%} of the {share['read_gb_per_s']:.0f} GB/s at which one "
        "thread sums a large array.",
        f"- int8 against float32: decode {ratios['int8-decode-b1/float32']:.2f} times at one request and "
        f"{ratios['int8-decode-b16/float32']:.2f} at sixteen, whole {ratios['int8-whole-b1/float32']:.2f} and "
        f"{ratios['int8-whole-b16/float32']:.2f}. It loses {loss['int8'] - loss['float32']:+.4f} nats a token of {loss['float32']:.2f} "
        "(the starter model on this project's pages).",
        "- Six questions on one document, at once, against no reuse: "
        + ", ".join(f"{ratios[name]:.1f} times at {name.split('-')[1].split('/')[0]} tokens" for name in ratios if "no-reuse" in name) + ".",
        f"- Sixteen adapters in one batch: {ratios['adapters-16/one-by-one']:.1f} times one by one; mixing costs "
        f"{mixed['together_s'] / mixed['one_adapter_s'] - 1:.0%} against one adapter; {mixed['equal']} of 16 answers equal to the adapter's "
        f"alone, token for token. An adapter loads in {mixed['load_ms']:.0f} ms.",
        "", "The service with the starter model, boto3 on the same two processors:", "",
        "| clients | tokens/s | first token p50 | p99 |", "|---|---|---|---|",
    ]  # fmt: skip
    for clients, one in load["clients"].items():
        lines.append(
            f"| {clients} | {one['tokens_per_s']:.0f} | {one['first_p50_ms']:.0f} ms | {one['first_p99_ms']:.0f} ms |"
        )
    over, kept = load["overload"], load["provisioned"]
    lines += [
        "", f"Three times too many ({over['asked']} at once): {over['answered']} answered, {over['throttled']} throttled, {over['lost']} "
        f"lost, the longest after {over['longest_s']:.1f} s. A provisioned model keeps {kept['under_flood']:.0f} of its "
        f"{kept['alone']:.0f} tokens a second while 40 clients flood its base.",
        "", f"On {found['machine']}.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def rates() -> str:
    """Validation loss by batch size and learning rate, from benchmarks/results/rates.json."""
    found = _result("rates")
    if not found:
        return ""
    lines: list[str] = []
    for name, one in found["sets"].items():
        batches = list(dict.fromkeys(cell["batch"] for cell in one["cells"]))
        columns = list(dict.fromkeys(cell["rate"] for cell in one["cells"]))
        lines += ["", f"**{name}**, {one['epochs']} epoch{'s' * (one['epochs'] != 1)}; the base has {one['base'][0]:.3f}"
                  + (f", {one['base'][1]:.3f} on the general rows" if one["base"][1] is not None else ""), "",
                  "| batch | " + " | ".join(f"{rate:g}" for rate in columns) + " |", "|---" * (1 + len(columns)) + "|"]  # fmt: skip
        means = {(cell["batch"], cell["rate"]): fmean(cell["losses"]) for cell in one["cells"]}
        general = {(cell["batch"], cell["rate"]): cell["general"] for cell in one["cells"]}
        best = min(means.values())
        for batch in batches:
            shown = []
            for rate in columns:
                loss = f"{means[batch, rate]:.4f}"
                loss = f"**{loss}**" if means[batch, rate] == best else loss
                watched = general[batch, rate]
                shown.append(loss if watched is None else f"{loss} / {watched:.3f}")
            lines.append(f"| {batch} | {' | '.join(shown)} |")
    return "\n".join([*lines, "", f"On {found['machine']}."]) + "\n"


def scores() -> str:
    """The starter model's scores, from recipes/pebble/scores.json."""
    found = json.loads((ROOT / "recipes/pebble/scores.json").read_text(encoding="utf-8"))
    lines = ["| lesson | same words | held-out words |", "|---|---|---|"]
    lines += [f"| {name} | {sides['trained']:.0%} | {sides['held-out']:.0%} |" for name, sides in found.items()]
    return "\n".join(lines) + "\n"


def _result(name: str) -> dict[str, Any]:
    path = ROOT / f"benchmarks/results/{name}.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _arms(measured: dict[str, list[float]], form: str) -> str:
    shown = [
        f"{mean:{form}} [{low:{form}}, {high:{form}}]" for mean, low, high in (measured["base"], measured["tuned"])
    ]
    return " -> ".join(shown)


def check() -> str:
    """How fast a check is."""
    measured = _result("check")
    if not measured:
        return "`make bench-check` measures it.\n"
    return (
        f"{measured['gigabytes']:.1f} GB of JSONL, {measured['rows']:,} rows, {measured['planted']:,} planted faults of "
        f"{measured['kinds']} kinds: checked in {measured['seconds']:.0f} s with {measured['peak_mb']:.0f} MB of memory, "
        f"{measured['found']:,} found, {measured['false_alarms']} false alarms (`make bench-check`, {measured['machine']}).\n"
    )


def faq() -> str:
    """What tuning on made pairs does."""
    measured = _result("faq")
    if not measured:
        return "`make bench-faq` measures it.\n"
    base, tuned, change = (_interval(measured["F1"][arm]) for arm in ("base", "tuned", "difference"))
    tokens = [measured["output tokens"][arm][0] for arm in ("base", "tuned")]
    return (
        f"The 18F handbook, teacher {measured['teacher']}: {measured['pairs']:,} grounded pairs, {measured['rejected']:,} passages or pairs "
        f"left out. The starter model tuned on {measured['rows']:,} of them, passage and question given, asked about {measured['held_out']:,} of "
        f"documents that it has not seen: token F1 {base} before, {tuned} after (difference {change}), output tokens {tokens[0]:.0f} -> "
        f"{tokens[1]:.0f} (`make bench-faq`, {measured['machine']}).\n"
    )


def distill() -> str:
    """A teacher's words against its distribution."""
    measured = _result("distill")
    if not measured:
        return "`make bench-distill` measures it.\n"
    lines = ["| student learns | accuracy | agrees with the teacher |", "|---|---|---|"]
    for name, what in (("answers", "the teacher's answers"), ("distribution", "its distribution")):
        lines.append(f"| {what} | {_interval(measured[name]['accuracy'])} | {_interval(measured[name]['agreement'])} |")
    lines.append(
        f"| difference, paired | {_interval(measured['accuracy_difference'])} | {_interval(measured['agreement_difference'])} |"
    )
    return "\n".join(lines) + (
        f"\n\nbanking77, {measured['prompts']:,} prompts without labels, {measured['held_out']:,} held-out rows, {measured['seeds']} seeds; the teacher, "
        f"tuned on labels, has {_interval(measured['teacher']['accuracy'])} (`make bench-distill`, {measured['machine']}).\n"
    )


def logs() -> str:
    """What logging costs."""
    measured = _result("logs")
    if not measured:
        return "`make bench-logs` measures it.\n"
    return (
        f"At full load ({measured['clients']} clients, answers of {measured['answer']} tokens, {measured['rounds']} rounds with and without in turns) "
        f"logging costs {_interval(measured['cost'])} of the throughput (95 % interval); {measured['records']:,} of {measured['calls']:,} acknowledged calls have their "
        f"record, once (`make bench-logs`, {measured['machine']}).\n"
    )


def _interval(measured: list[float]) -> str:
    """A mean with its interval, in per cent."""
    mean, low, high = measured
    return f"{mean:.1%} [{low:.1%}, {high:.1%}]"


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]


def metrics() -> str:
    """The table of metrics."""
    lines = ["| metric | what it says |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{one.name}` | {one.what} |" for one in METRICS.values())]) + "\n"


def held() -> str:
    """How often intervals hold the truth, as `make bench-intervals` counts it."""
    found = _result("intervals")
    if not found:
        return ""
    lines = [
        f"Counted on {found['repetitions']:,} simulated comparisons each (`make bench-intervals`):", "",
        "| arms | rows | true difference | intervals that hold it | called different |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for one in found["cases"]:
        called = f"{one['called']:.1%}" if one["truth"] == 0 else f"{one['called']:.0%}"
        lines.append(f"| {one['arms']} | {one['rows']:,} | {one['truth']:.3g} | {one['held']:.1%} | {called} |")
    return "\n".join(lines) + "\n"


def advice() -> str:
    """Advice on tasks whose right answer is known, as `make bench-advice` found it."""
    found = _result("advice")
    if not found:
        return ""
    lines = [
        f"Six tasks whose right advice is known by construction, three seeds each, with the starter model: {found['right']} of {found['of']} right "
        f"(`make bench-advice`, {found['machine']}).", "",
        "| task | why the advice is right | right | given | scores (%), first seed | seconds |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for task in found["tasks"]:
        mine = [run for run in found["runs"] if run["task"] == task["task"]]
        given = ", ".join(run["choice"] for run in mine)
        scores = ", ".join(f"{name} {score:g}" for name, score in mine[0]["ways"].items())
        seconds = sorted(round(run["seconds"]) for run in mine)
        lines.append(
            f"| {task['task']} | {task['why']} | {' or '.join(task['right'])} | {given} | {scores} | {seconds[0]} to {seconds[-1]} |"
        )
    return "\n".join(lines) + "\n"


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "docs/operations.md": {"operations": operations},
    "docs/hyperparameters.md": {"hyperparameters": hyperparameters.markdown},
    "docs/data.md": {"kinds": kinds.markdown, "check": check},
    "docs/synthesis.md": {"faq": faq, "distill": distill},
    "docs/advice.md": {"advice": advice},
    "docs/evaluation.md": {"intervals": held, "metrics": metrics},
    "docs/logs.md": {"logs": logs},
    "docs/settings.md": {"settings": settings.markdown},
    "docs/training.md": {"training": training},
    "docs/serving.md": {"serving": serving},
    "docs/experiments/rates.md": {"rates": rates},
    "outcrop/registry/pebble/README.md": {"scores": scores},
    "README.md": {"script": script, "operations": summary, "figures": figures},
}


def rendered(path: str) -> tuple[str, str]:
    """(the page as it is, the page as it should be). Raises ValueError when its markers are missing."""
    present = page = (ROOT / path).read_text(encoding="utf-8")
    for name, make in PAGES[path].items():
        begin = BEGIN.format(name)
        head, mark, rest = page.partition(begin)
        if not mark or END not in rest:
            raise ValueError(f"{path} has no {begin} ... {END}")
        page = f"{head}{begin}\n{make()}{END}{rest.partition(END)[2]}"
    return present, page


if __name__ == "__main__":
    for page in PAGES:
        before, after = rendered(page)
        if "--write" in sys.argv:
            (ROOT / page).write_text(after, encoding="utf-8")
        elif before != after:
            sys.exit(f"{page} is out of date; run `make docs`")
