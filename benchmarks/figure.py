"""The report's figure: base, base with examples, tuned, tuned with examples, on the same held-out rows, through `outcrop compare`."""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from rich.console import Console

from benchmarks import record
from outcrop.keys import LocalKeys

out = Console()
ROLE = "arn:aws:iam::123456789012:role/bench"


@dataclass(frozen=True)
class Figure:
    """A task: rows to learn from, to watch, to be asked and to be shown as examples; how they are scored and sliced."""

    name: str
    train: list[dict[str, Any]]
    validation: list[dict[str, Any]]
    held_out: list[dict[str, Any]]
    shown: list[dict[str, Any]]
    metrics: tuple[str, ...]
    slices: tuple[str, ...] = ()
    group: str = ""
    system: str = ""
    max_tokens: int = 48
    note: str = ""


def parse(parser: Any) -> Any:
    """The options that both tasks have."""
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--base", default="outcrop.pebble-v1:0")
    parser.add_argument(
        "--home",
        type=Path,
        help="an installation that knows the base; a new one, with the starter model, when left out",
    )
    parser.add_argument("--shots", default="1")
    parser.add_argument("--method", default="full", choices=("full", "lora"))
    parser.add_argument("--epochs", default="1")
    parser.add_argument("--page", type=Path, help="where comparison.html is to be kept")
    return parser.parse_args()


def draw(figure: Figure, chosen: Any) -> None:
    """Tune through the API, compare, print the table, and write benchmarks/results/{name}.json."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home = chosen.home or folder / "home"
        for part in ("train", "validation", "held_out", "shown"):
            (folder / f"{figure.name if part == 'held_out' else part}.jsonl").write_text(
                "".join(json.dumps(row) + "\n" for row in getattr(figure, part)), encoding="utf-8"
            )
        model, training_s = tune(figure, chosen, home, folder)
        command = [
            sys.executable, "-m", "outcrop", "compare", f"base={chosen.base}", f"tuned={model}", "--data", str(folder / f"{figure.name}.jsonl"), "--shots", f"0,{chosen.shots}",
            "--shots-from", str(folder / "shown.jsonl"), "--max-tokens", str(figure.max_tokens), "--out", str(folder / "comparison"),
            *(part for metric in figure.metrics for part in ("--metric", metric)), *(part for key in figure.slices for part in ("--slice", key)),
            *(("--group", figure.group) if figure.group else ()), *(("--system", figure.system) if figure.system else ()),
        ]  # fmt: skip
        subprocess.run(command, env={**os.environ, "OUTCROP_HOME": str(home)}, check=True)
        found = json.loads((folder / "comparison/comparison.json").read_text())
        if chosen.page:
            chosen.page.write_bytes((folder / "comparison/comparison.html").read_bytes())
    again = f"python -m benchmarks.{figure.name} --base meta.llama3-1-8b-instruct-v1:0 --home ~/.outcrop --method lora --epochs 2 --shots 4"
    out.print(
        f"{figure.note}\nWith a real 8 B model: outcrop models add meta.llama3-1-8b-instruct-v1:0 --from meta-llama/Llama-3.1-8B-Instruct, then\n{again}",
        highlight=False,
        soft_wrap=True,
    )
    kept = (
        "rows",
        "groups",
        "arms",
        "unanswered",
        "judged_by",
        "measures",
        "slices",
        "turned",
        "tokens",
        "warnings",
        "seconds",
    )
    figures = {key: found[key] for key in kept}
    settings = {
        "base": chosen.base,
        "method": chosen.method,
        "epochs": chosen.epochs,
        "training_rows": len(figure.train),
        "training_s": round(training_s, 1),
    }
    print(record.write(figure.name, {"name": figure.name, **settings, "note": figure.note, **figures}))


def tune(figure: Figure, chosen: Any, home: Path, folder: Path) -> tuple[str, float]:
    """A customization job on a server of the installation; the model's name, and how long it took."""
    server = subprocess.Popen(
        [sys.executable, "-m", "outcrop", "serve", "--port", "0"],
        env={**os.environ, "OUTCROP_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    try:
        endpoint = server.stdout.readline().split()[4]
        keys = LocalKeys.of(home)
        session = boto3.Session(keys.access_key, keys.secret, region_name="us-east-1")
        s3, bedrock = (session.client(service, endpoint_url=endpoint) for service in ("s3", "bedrock"))
        bucket, model = f"bench-{figure.name}", f"{figure.name}-{int(time.time())}"
        s3.create_bucket(Bucket=bucket)
        for part in ("train", "validation"):
            rows = []
            for row in getattr(figure, part):
                messages = [
                    {"role": "user", "content": row["prompt"]},
                    {"role": "assistant", "content": row["referenceResponse"]},
                ]
                rows.append(json.dumps({**({"system": figure.system} if figure.system else {}), "messages": messages}))
            s3.put_object(Bucket=bucket, Key=f"{part}.jsonl", Body="\n".join(rows).encode())
        began = time.monotonic()
        arn = bedrock.create_model_customization_job(
            jobName=model, customModelName=model, roleArn=ROLE, baseModelIdentifier=chosen.base, trainingDataConfig={"s3Uri": f"s3://{bucket}/train.jsonl"},
            validationDataConfig={"validators": [{"s3Uri": f"s3://{bucket}/validation.jsonl"}]}, outputDataConfig={"s3Uri": f"s3://{bucket}/out"},
            hyperParameters={"method": chosen.method, "epochCount": chosen.epochs, "batchSize": "16", "earlyStoppingPatience": "6"},
        )["jobArn"]  # fmt: skip
        while (job := bedrock.get_model_customization_job(jobIdentifier=arn))["status"] == "InProgress":
            time.sleep(1)
        if job["status"] != "Completed":
            raise SystemExit(f"the job is {job['status']}: {job.get('failureMessage')}")
        return model, time.monotonic() - began
    finally:
        server.terminate()
        server.wait(30)
