"""Folders in S3 become models that answer; folders that are wrong are refused in words."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from botocore.exceptions import ClientError

from tests.conftest import ROLE, Outcrop
from tests.models import TEMPLATE, make_llama, make_tokenizer
from tests.training.test_exactness import SIZES

pytestmark = pytest.mark.slow
BASE = "outcrop.pebble-v1:0"
MOE = {"num_local_experts": 4, "num_experts_per_tok": 2}
FAMILIES: dict[str, tuple[Any, dict[str, Any]]] = {
    "llama": (transformers.LlamaConfig, {}),
    "llama 3.1": (
        transformers.LlamaConfig,
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
                             "high_freq_factor": 4.0, "original_max_position_embeddings": 128}},
    ),
    "mistral, a window": (transformers.MistralConfig, {"sliding_window": 16}),
    "mixtral": (transformers.MixtralConfig, MOE),
    "qwen2": (transformers.Qwen2Config, {}),
    "qwen3": (transformers.Qwen3Config, {"head_dim": 16}),
    "gpt-bigcode": (
        transformers.GPTBigCodeConfig, {"n_embd": 64, "n_head": 4, "n_layer": 2, "n_positions": 512, "n_inner": 96},
    ),
    "gpt-oss": (transformers.GptOssConfig, {**MOE, "head_dim": 16, "sliding_window": 16, "layer_types": None}),
    "gemma 2": (transformers.Gemma2Config, {"head_dim": 16, "sliding_window": 16}),
    "phi 3": (transformers.Phi3Config, {"pad_token_id": 0}),
}  # fmt: skip


def make(family: str, folder: Path) -> Path:
    """A tiny model with random weights."""
    form, more = FAMILIES[family]
    size = make_tokenizer(folder)
    torch.manual_seed(0)
    ids = {"bos_token_id": 1, "eos_token_id": 0}
    model = transformers.AutoModelForCausalLM.from_config(form(**{**SIZES, **ids, **more, "vocab_size": size}))
    model.save_pretrained(folder)
    return folder


def upload(server: Outcrop, name: str, folder: Path) -> str:
    s3 = server.client("s3")
    s3.create_bucket(Bucket="weights")
    for path in folder.iterdir():
        s3.put_object(Bucket="weights", Key=f"{name}/{path.name}", Body=path.read_bytes())
    return f"s3://weights/{name}/"


def bring(server: Outcrop, name: str, uri: str) -> Any:
    bedrock = server.client("bedrock")
    arn = bedrock.create_model_import_job(
        jobName=f"import-{name}", importedModelName=name, roleArn=ROLE, modelDataSource={"s3DataSource": {"s3Uri": uri}}
    )["jobArn"]
    return server.wait(lambda: bedrock.get_model_import_job(jobIdentifier=arn), {"Completed", "Failed"})


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_is_imported_and_converses(outcrop: Outcrop, tmp_path: Path, family: str) -> None:
    name = "".join(letter if letter.isalnum() else "-" for letter in family).replace("--", "-")
    job = bring(outcrop, name, upload(outcrop, name, make(family, tmp_path)))
    assert job["status"] == "Completed", job.get("failureMessage")
    bedrock = outcrop.client("bedrock")
    model = bedrock.get_imported_model(modelIdentifier=job["importedModelArn"])
    assert model["instructSupported"]
    assert name in [one["modelName"] for one in bedrock.list_imported_models()["modelSummaries"]]
    answer = outcrop.client("bedrock-runtime").converse(
        modelId=job["importedModelArn"], messages=[{"role": "user", "content": [{"text": "the cat " * 20}]}],
        inferenceConfig={"maxTokens": 8},
    )  # fmt: skip
    assert 1 <= answer["usage"]["outputTokens"] <= 8
    bedrock.delete_imported_model(modelIdentifier=name)
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        bedrock.get_imported_model(modelIdentifier=name)


def test_an_imported_model_is_invoked_tuned_and_kept_while_it_is_needed(outcrop: Outcrop, tmp_path: Path) -> None:
    bedrock = outcrop.client("bedrock")
    job = bring(outcrop, "ours", upload(outcrop, "ours", make_llama(tmp_path)))
    arn = job["importedModelArn"]
    body = json.dumps({"prompt": "the cat", "max_gen_len": 4, "temperature": 0})
    told = json.loads(outcrop.client("bedrock-runtime").invoke_model(modelId=arn, body=body)["body"].read())
    assert told["generation_token_count"] <= 4
    outcrop.put_lines(
        "s3://lessons/cats.jsonl", [json.dumps({"prompt": "the cat", "completion": "sat on the mat"})] * 16
    )
    tuned = outcrop.tune(
        "cats", baseModelIdentifier="ours", trainingDataConfig={"s3Uri": "s3://lessons/cats.jsonl"},
        hyperParameters={"epochCount": "10", "learningRate": "0.01", "batchSize": "4"},
    )  # fmt: skip
    assert tuned["status"] == "Completed", tuned.get("failureMessage")
    assert tuned["baseModelArn"] == arn
    assert outcrop.ask("cats", "the cat") == "sat on the mat"
    with pytest.raises(ClientError, match="ConflictException.*is needed by cats"):
        bedrock.delete_imported_model(modelIdentifier="ours")
    with pytest.raises(ClientError, match="ConflictException.*already an imported model"):
        bring(outcrop, "ours", "s3://weights/ours/")
    bedrock.delete_custom_model(modelIdentifier="cats")
    bedrock.delete_imported_model(modelIdentifier="ours")


def test_an_adapter_is_imported_onto_its_base(outcrop: Outcrop) -> None:
    outcrop.put_lines(
        "s3://lessons/cats.jsonl", [json.dumps({"prompt": "the cat", "completion": "sat on the mat"})] * 16
    )
    job = outcrop.tune(
        "to-bring", trainingDataConfig={"s3Uri": "s3://lessons/cats.jsonl"},
        hyperParameters={"epochCount": "5", "batchSize": "4"},
    )  # fmt: skip
    uri = f"s3://lessons/out/model-customization-job-{job['jobArn'][-12:]}/weights/"
    brought = bring(outcrop, "brought", uri)
    assert brought["status"] == "Completed", brought.get("failureMessage")
    assert outcrop.ask("brought", "the cat") == outcrop.ask("to-bring", "the cat") != outcrop.ask(BASE, "the cat")
    with pytest.raises(ClientError, match="imported adapter"):
        outcrop.tune("further", baseModelIdentifier="brought")


def broken(tmp_path: Path, how: str) -> Path:
    """A good folder, and one thing wrong with it."""
    folder = make_llama(tmp_path)
    weights, config = folder / "model.safetensors", folder / "config.json"
    if how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif how == "pickle":
        weights.write_bytes(pickle.dumps({"model.embed_tokens.weight": [1.0] * 1000}))
    elif how == "torch's own pickle":
        torch.save({"model.embed_tokens.weight": torch.ones(3)}, weights)
    elif how == "vocabulary":
        said = json.loads(config.read_text())
        config.write_text(json.dumps({**said, "vocab_size": said["vocab_size"] * 10}))
    elif how == "layers":
        config.write_text(json.dumps({**json.loads(config.read_text()), "hidden_size": 128}))
    elif how == "config":
        config.write_text("{")
    elif how in ("encoder", "both"):
        named = {"encoder": "BertModel", "both": "T5ForConditionalGeneration"}[how]
        config.write_text(json.dumps({**json.loads(config.read_text()), "architectures": [named]}))
    elif how == "bomb":
        loops = "{% for a in range(90000) %}" * 3 + "{% endfor %}" * 3
        (folder / "chat_template.jinja").write_text(loops + TEMPLATE)
    elif how == "memory":
        (folder / "chat_template.jinja").write_text("{{ 'x' * 10000000000 }}" + TEMPLATE)
    elif how == "tokenizer":
        (folder / "tokenizer.json").unlink()
    elif how == "numbers":
        from safetensors.torch import load_file, save_file

        save_file(
            {name: tensor * float("nan") for name, tensor in load_file(weights).items()}, weights, {"format": "pt"}
        )
    return folder


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("truncated", "model.safetensors is shorter than its header says"),
        ("pickle", "model.safetensors is a pickle"),
        ("torch's own pickle", "model.safetensors is a pickle"),
        ("vocabulary", "vocab_size is 2,900, but the embedding has 290 rows"),
        ("layers", "the weights do not load as the config says"),
        ("config", "config.json is not JSON"),
        ("encoder", "names the architecture BertModel, but its model_type makes LlamaModel"),
        ("both", "the architecture is T5ForConditionalGeneration"),
        ("bomb", "the chat template or tokenizer took more processor time or memory than is allowed"),
        ("memory", "the chat template takes more than 4 GB"),
        ("tokenizer", "no tokenizer.json"),
        ("numbers", "logits are no numbers"),
    ],
)
def test_a_folder_that_is_wrong_is_refused_in_words(outcrop: Outcrop, tmp_path: Path, how: str, words: str) -> None:
    name = "wrong-" + "".join(letter for letter in how if letter.isalpha())
    job = bring(outcrop, name, upload(outcrop, name, broken(tmp_path, how)))
    assert job["status"] == "Failed"
    assert words in job["failureMessage"], job["failureMessage"]
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        outcrop.client("bedrock").get_imported_model(modelIdentifier=name)


def test_a_key_that_leads_out_of_the_folder_is_refused(outcrop: Outcrop, tmp_path: Path) -> None:
    uri = upload(outcrop, "escape", make_llama(tmp_path))
    outcrop.client("s3").put_object(Bucket="weights", Key="escape/../../outside.json", Body=b"{}")
    job = bring(outcrop, "escape", uri)
    assert "leads out of its folder" in job["failureMessage"]
