"""The demo, told top to bottom."""

import contextlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from rich.console import Console
from rich.table import Table

from outcrop import evaluation
from outcrop.demo.page import write_page
from outcrop.demo.tickets import SCHEMA, SYSTEM, Ticket, tickets
from outcrop.errors import Invalid
from outcrop.evaluation import Measured
from outcrop.keys import LocalKeys

BASE = "outcrop.pebble-v1:0"
ROLE = "arn:aws:iam::123456789012:role/demo"
TRAINING_ROWS, VALIDATION_ROWS = 480, 60
HYPERPARAMETERS = {"epochCount": "8", "batchSize": "16", "earlyStoppingPatience": "4"}
ASKED_AT_ONCE = 16
MOST_TOKENS = 96
out = Console()


@dataclass(frozen=True)
class Arm:
    """One model's answers to the held-out rows, with their scores."""

    name: str
    answers: list[str]
    tokens: list[float]
    exact: list[float]
    contains: list[float]
    valid: list[float]


@dataclass(frozen=True)
class Outcome:
    """All that the table and the page show."""

    base: Arm
    tuned: Arm
    held_out: list[Ticket]
    job: dict[str, Any]
    seconds: dict[str, float]
    machine: str


def run_demo(page: Path, num_held_out: int, keep: bool) -> None:
    """Tune, deploy, ask, compare; print the table, write the page. Raises Invalid when the job fails."""
    began = time.monotonic()
    seconds: dict[str, float] = {}
    with private_server(keep) as client:
        out.print("[bold]1[/bold] support tickets into S3")
        rows = list(islice(tickets(seed=1), TRAINING_ROWS + VALIDATION_ROWS + num_held_out))
        train, rest = rows[:TRAINING_ROWS], rows[TRAINING_ROWS:]
        validation, held_out = rest[:VALIDATION_ROWS], rest[VALIDATION_ROWS:]
        upload(client("s3"), train, validation)

        out.print(f"[bold]2[/bold] fine-tune {BASE} on {len(train)} rows, early stopping on {len(validation)}")
        with timed(seconds, "training"):
            job = tune(client("bedrock"))
        out.print(f"  validation loss {job['validationMetrics'][0]['validationLoss']:.4f}")

        out.print("[bold]3[/bold] provisioned throughput")
        with timed(seconds, "deployment"):
            provisioned = provision(client("bedrock"), job["outputModelArn"])

        out.print(f"[bold]4[/bold] ask both models the same {len(held_out)} held-out tickets")
        runtime = client("bedrock-runtime")
        with timed(seconds, "answers"):
            base = ask_all(runtime, "base", BASE, held_out)
            tuned = ask_all(runtime, "tuned", provisioned, held_out)
    seconds["all"] = time.monotonic() - began
    outcome = Outcome(base, tuned, held_out, job, seconds, machine())
    show(outcome)
    write_page(page, outcome)
    out.print(f"\nThe same as a page: {page.absolute()}")
    out.print('\nThe ten lines that repeat it, after `outcrop serve` and `eval "$(outcrop env)"`:\n')
    out.print(SCRIPT, highlight=False, markup=False, soft_wrap=True)


@contextlib.contextmanager
def private_server(keep: bool) -> Iterator[Any]:
    """`outcrop serve` on a free port and a folder of its own; gives a maker of boto3 clients."""
    home = Path(tempfile.mkdtemp(prefix="outcrop-demo-"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OUTCROP_")}
    with (home / "serve.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "outcrop", "serve", "--port", "0"],
            env={**environment, "OUTCROP_HOME": str(home), "PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, stderr=log,
        )  # fmt: skip
    try:
        assert server.stdout is not None
        said = server.stdout.readline().decode()
        if not said.startswith("Outcrop is ready at "):
            raise Invalid(f"the private server did not start: {said}{(home / 'serve.log').read_text()[-500:]}")
        endpoint, keys = said.split()[4], LocalKeys.of(home)
        session = boto3.Session(keys.access_key, keys.secret, region_name="us-east-1")

        def client(service: str) -> Any:
            return session.client(service, endpoint_url=endpoint, config=Config(max_pool_connections=ASKED_AT_ONCE))

        yield client
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)
        if keep:
            out.print(f"The private installation is kept in {home}")
        else:
            shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def timed(seconds: dict[str, float], what: str) -> Iterator[None]:
    """Note how long the block takes."""
    began = time.monotonic()
    yield
    seconds[what] = time.monotonic() - began


def upload(s3: Any, train: list[Ticket], validation: list[Ticket]) -> None:
    """Two files of JSON lines."""
    s3.create_bucket(Bucket="desk")
    for name, part in (("train", train), ("validation", validation)):
        s3.put_object(Bucket="desk", Key=f"{name}.jsonl", Body="".join(ticket.row + "\n" for ticket in part).encode())


def tune(bedrock: Any) -> dict[str, Any]:
    """Run the job to its end. Raises Invalid with the job's own reason when it fails."""
    arn = bedrock.create_model_customization_job(
        jobName="desk", customModelName="desk", roleArn=ROLE, baseModelIdentifier=BASE,
        trainingDataConfig={"s3Uri": "s3://desk/train.jsonl"},
        validationDataConfig={"validators": [{"s3Uri": "s3://desk/validation.jsonl"}]},
        outputDataConfig={"s3Uri": "s3://desk/out"},
        hyperParameters=HYPERPARAMETERS,
    )["jobArn"]  # fmt: skip
    while (job := bedrock.get_model_customization_job(jobIdentifier=arn))["status"] == "InProgress":
        time.sleep(0.5)
    if job["status"] != "Completed":
        raise Invalid(f"the customization job is {job['status']}: {job.get('failureMessage', '')}")
    return dict(job)


def provision(bedrock: Any, model: str) -> str:
    """Provisioned throughput for a model, in service. Raises Invalid when it fails."""
    arn = bedrock.create_provisioned_model_throughput(modelUnits=8, provisionedModelName="desk", modelId=model)[
        "provisionedModelArn"
    ]
    while (state := bedrock.get_provisioned_model_throughput(provisionedModelId=arn))["status"] == "Creating":
        time.sleep(0.2)
    if state["status"] != "InService":
        raise Invalid(f"the provisioned model is {state['status']}: {state.get('failureMessage', '')}")
    return str(arn)


def ask_all(runtime: Any, name: str, model: str, held_out: list[Ticket]) -> Arm:
    """Every held-out ticket once, greedily, several at a time; scored."""

    def ask(ticket: Ticket) -> tuple[str, int]:
        answer = runtime.converse(
            modelId=model, system=[{"text": SYSTEM}], messages=[{"role": "user", "content": [{"text": ticket.text}]}],
            inferenceConfig={"maxTokens": MOST_TOKENS, "temperature": 0},
        )  # fmt: skip
        return answer["output"]["message"]["content"][0]["text"], answer["usage"]["outputTokens"]

    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        answered = list(pool.map(ask, held_out))
    answers = [text for text, _ in answered]
    pairs = list(zip(answers, held_out, strict=True))
    return Arm(
        name, answers, [float(count) for _, count in answered],
        exact=[evaluation.exact_json(text, ticket.form) for text, ticket in pairs],
        contains=[evaluation.contains_values(text, ticket.form) for text, ticket in pairs],
        valid=[evaluation.fits_schema(text, SCHEMA) for text in answers],
    )  # fmt: skip


MEASURES = (
    ("exact match", "exact", "{:.1%}"),
    ("contains the answer", "contains", "{:.1%}"),
    ("valid by the schema", "valid", "{:.1%}"),
    ("output tokens", "tokens", "{:.1f}"),
)


def measured(outcome: Outcome) -> list[tuple[str, str, Measured, Measured, Measured]]:
    """(measure, form, base, tuned, tuned minus base) for each measure."""
    found = []
    for name, field, form in MEASURES:
        base, tuned = getattr(outcome.base, field), getattr(outcome.tuned, field)
        found.append(
            (name, form, evaluation.measure(base), evaluation.measure(tuned), evaluation.difference(base, tuned))
        )
    return found


def with_interval(value: Measured, form: str, signed: bool = False) -> str:
    """A mean with its interval."""
    sign = form.replace("{:", "{:+") if signed else form
    return f"{sign.format(value.mean)} [{sign.format(value.low)}, {sign.format(value.high)}]"


def show(outcome: Outcome) -> None:
    """The comparison in the terminal."""
    table = Table(
        "", "base", "tuned", "tuned - base", title=f"{len(outcome.held_out)} held-out tickets, 95 % intervals"
    )
    for name, form, base, tuned, change in measured(outcome):
        table.add_row(
            name, with_interval(base, form), with_interval(tuned, form), with_interval(change, form, signed=True)
        )
    out.print()
    out.print(table)
    out.print(
        "The held-out tickets are new draws of the generator that made the training rows: same phrases, new tickets."
    )
    out.print(histogram(outcome), highlight=False)
    ticket = outcome.held_out[0]
    out.print(f"\n[bold]A ticket[/bold]  {ticket.text}", highlight=False)
    out.print(f"[bold]base    [/bold]  {outcome.base.answers[0]}", highlight=False)
    out.print(f"[bold]tuned   [/bold]  {outcome.tuned.answers[0]}", highlight=False)
    out.print(f"[bold]wanted  [/bold]  {ticket.answer}", highlight=False)
    parts = ", ".join(f"{what} {took:.0f} s" for what, took in outcome.seconds.items() if what != "all")
    out.print(f"\n{outcome.seconds['all']:.0f} s in all ({parts}) on {outcome.machine}")


BINS = ((0, 20), (20, 30), (30, 35), (35, 40), (40, 45), (45, 60), (60, MOST_TOKENS + 1))


def counts(tokens: list[float]) -> list[int]:
    """How many answers fall in each bin of output tokens."""
    return [sum(low <= count < high for count in tokens) for low, high in BINS]


def histogram(outcome: Outcome) -> str:
    """Output tokens of both models as bars of text."""
    base, tuned = counts(outcome.base.tokens), counts(outcome.tuned.tokens)
    most = max(*base, *tuned, 1)
    lines = ["\noutput tokens   base                      tuned"]
    for (low, high), first, second in zip(BINS, base, tuned, strict=True):
        bars = [f"{'█' * round(20 * number / most):<20} {number:>4}" for number in (first, second)]
        lines.append(f"{low:>5} to {high - 1:<4}   {bars[0]} {bars[1]}")
    return "\n".join(lines)


def machine() -> str:
    """This machine in a few words."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    from outcrop.machine import available_cpus

    return f"{available_cpus()} x {model}, {platform.system()}, Python {platform.python_version()}"


SCRIPT = f"""import boto3, json, time
s3, bedrock, runtime = (boto3.client(name) for name in ("s3", "bedrock", "bedrock-runtime"))
s3.create_bucket(Bucket="desk")
s3.upload_file("tickets.jsonl", "desk", "train.jsonl")   # lines like {{"system": ..., "messages": [...]}}
job = bedrock.create_model_customization_job(
    jobName="desk", customModelName="desk", roleArn="{ROLE}", baseModelIdentifier="{BASE}",
    trainingDataConfig={{"s3Uri": "s3://desk/train.jsonl"}}, outputDataConfig={{"s3Uri": "s3://desk/out"}})["jobArn"]
while bedrock.get_model_customization_job(jobIdentifier=job)["status"] == "InProgress": time.sleep(1)
answer = runtime.converse(modelId="desk", messages=[{{"role": "user", "content": [{{"text": "The fan died."}}]}}])
print(answer["output"]["message"]["content"][0]["text"])"""
