"""What is deployed is what was trained, or the deployment fails and says why. Each fault is injected."""

import json
import shutil
import subprocess
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from outcrop.demo.tickets import tickets
from outcrop.registry.base_models import PEBBLE_FOLDER
from tests.conftest import ROLE, Outcrop
from tests.workflows.test_sweep import signed

pytestmark = [pytest.mark.slow, pytest.mark.pain(9)]
OWN = "tests.pebble-copy-v1:0"


@pytest.fixture(scope="module")
def base(outcrop: Outcrop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model whose files may be harmed."""
    folder = tmp_path_factory.mktemp("base") / "weights"
    shutil.copytree(PEBBLE_FOLDER, folder)
    command = ["outcrop", "models", "add", OWN, "--from", str(folder)]
    subprocess.run(command, env=outcrop.environment, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def weights(outcrop: Outcrop, base: Path) -> dict[str, str]:
    """Folders in S3 of models tuned on it, by what they learned."""
    found = {}
    for name, seed in (("one", 3), ("other", 4)):
        outcrop.put_lines(f"s3://lessons/proof-{name}.jsonl", [ticket.row for ticket in islice(tickets(seed), 24)])
        job = outcrop.tune(
            f"proof-{name}", baseModelIdentifier=OWN, trainingDataConfig={"s3Uri": f"s3://lessons/proof-{name}.jsonl"},
            hyperParameters={"epochCount": "1", "seed": str(seed)},
        )  # fmt: skip
        assert job["status"] == "Completed", job.get("failureMessage")
        found[name] = f"s3://lessons/out/model-customization-job-{job['jobArn'][-12:]}/weights/"
    return found


def deploy(server: Outcrop, name: str, model: str) -> Any:
    bedrock = server.client("bedrock")
    arn = bedrock.create_custom_model_deployment(modelDeploymentName=name, modelArn=model)["customModelDeploymentArn"]
    return server.wait(
        lambda: bedrock.get_custom_model_deployment(customModelDeploymentIdentifier=arn), {"Active", "Failed"}
    )


def copy_of(server: Outcrop, name: str, uri: str) -> tuple[str, Path]:
    """A custom model from S3, and where its files lie."""
    bedrock = server.client("bedrock")
    arn = bedrock.create_custom_model(modelName=name, roleArn=ROLE, modelSourceConfig={"s3DataSource": {"s3Uri": uri}})[
        "modelArn"
    ]
    server.wait(lambda: {"status": bedrock.get_custom_model(modelIdentifier=arn)["modelStatus"]}, {"Active"})
    return arn, server.home / "artifacts" / arn[-12:]


def test_a_deployment_is_proven_and_shows_how(outcrop: Outcrop, weights: dict[str, str]) -> None:
    model = outcrop.client("bedrock").get_custom_model(modelIdentifier="proof-one")["modelArn"]
    assert deploy(outcrop, "proven", model)["status"] == "Active"
    found = signed(outcrop, "GET", "/model-certificates/proven")["certificate"]
    assert (found["verdict"], found["probes"]) == ("proven", 3)
    assert found["worst"] < 1e-4
    assert found["from_base"] > 1e-3
    shown = subprocess.run(
        ["outcrop", "deployments", "show", "proven"], env={**outcrop.environment, "COLUMNS": "200"}, capture_output=True,
        text=True, check=True,
    ).stdout  # fmt: skip
    assert "what is served is what was trained" in shown


def silence(artifact: Path) -> None:
    file = artifact / "adapter_model.safetensors"
    save_file({name: tensor * ("lora_A" in name) for name, tensor in load_file(file).items()}, file)


def exchange(artifact: Path) -> None:
    file = artifact / "adapter_model.safetensors"
    tensors = load_file(file)
    generator = torch.Generator().manual_seed(0)
    save_file(
        {name: tensor + 0.01 * torch.randn(tensor.shape, generator=generator) for name, tensor in tensors.items()}, file
    )


@pytest.mark.parametrize(
    ("name", "harm", "words"),
    [
        ("silenced", silence, "the base answers under the tuned model's name"),
        ("exchanged", exchange, "the weights are not those that were trained"),
        ("damaged", lambda artifact: (artifact / "adapter_model.safetensors").write_bytes(b"x" * 100), "adapter"),
    ],
)
def test_adapters_that_were_harmed_are_not_deployed(
    outcrop: Outcrop, weights: dict[str, str], name: str, harm: Callable[[Path], None], words: str
) -> None:
    arn, artifact = copy_of(outcrop, name, weights["one"])
    harm(artifact)
    deployment = deploy(outcrop, name, arn)
    assert deployment["status"] == "Failed"
    assert words in deployment["failureMessage"], deployment["failureMessage"]


def test_another_template_or_another_base_under_a_tuned_model_is_noticed(
    outcrop: Outcrop, base: Path, weights: dict[str, str]
) -> None:
    model = outcrop.client("bedrock").get_custom_model(modelIdentifier="proof-other")["modelArn"]
    config = base / "tokenizer_config.json"
    said = config.read_text()
    (base / "chat_template.jinja").write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    deployment = deploy(outcrop, "other-template", model)
    assert "tokenizer or chat template" in deployment["failureMessage"]
    (base / "chat_template.jinja").unlink()
    if (PEBBLE_FOLDER / "chat_template.jinja").exists():
        shutil.copy(PEBBLE_FOLDER / "chat_template.jinja", base)
    assert config.read_text() == said
    assert deploy(outcrop, "template-back", model)["status"] == "Active"

    (folder := outcrop.home.parent / "moved").mkdir()
    shutil.copytree(base, folder, dirs_exist_ok=True)
    file = folder / "model.safetensors"
    save_file({name: tensor * 1.05 for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    other = "tests.pebble-other-v1:0"
    command = ["outcrop", "models", "add", other, "--from", str(folder)]
    subprocess.run(command, env=outcrop.environment, check=True, capture_output=True)
    s3 = outcrop.client("s3")
    prefix = weights["one"].removeprefix("s3://lessons/")
    for key in [entry["Key"] for entry in s3.list_objects_v2(Bucket="lessons", Prefix=prefix)["Contents"]]:
        body = s3.get_object(Bucket="lessons", Key=key)["Body"].read()
        if key.endswith("adapter_config.json"):
            body = json.dumps({**json.loads(body), "base_model_name_or_path": other}).encode()
        s3.put_object(Bucket="lessons", Key=f"moved/{key.rpartition('/')[2]}", Body=body)
    arn, _ = copy_of(outcrop, "on-another-base", "s3://lessons/moved/")
    assert "or not on their base" in deploy(outcrop, "on-another-base", arn)["failureMessage"]
