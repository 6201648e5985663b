"""What is refused before any weight is read, and that an import that is tried again keeps its model."""

import json
from pathlib import Path

import pytest

from outcrop.clock import now
from outcrop.errors import Conflict, Invalid
from outcrop.registry import ImportedModel, Registry
from outcrop.registry.intake import look_into
from outcrop.storage import Storage
from tests.models import make_llama


def model(identifier: str, name: str = "ours", base: str = "") -> ImportedModel:
    return ImportedModel(
        id=identifier, arn=f"arn:aws:bedrock:us-east-1:123456789012:imported-model/{identifier}", name=name,
        kind="adapter" if base else "whole", base=base, architecture="LlamaForCausalLM", num_parameters=1, context=256,
        has_template=True, created_at=now(), job_arn="", job_name="", source_uri="s3://b/", loss=1.0, uniform_loss=5.0,
        sample="",
    )  # fmt: skip


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(Storage(tmp_path / "home"))


def test_an_import_that_is_tried_again_keeps_its_model(registry: Registry, tmp_path: Path) -> None:
    folder = make_llama(tmp_path / "model")
    for _ in range(2):
        registry.take_in(model("a" * 12), folder)
    assert (registry.weights("ours").folder / "model.safetensors").is_file()
    with pytest.raises(Conflict, match="already an imported model"):
        registry.take_in(model("b" * 12), folder)
    assert (registry.weights("ours").folder / "model.safetensors").is_file()


def test_what_others_need_is_not_deleted(registry: Registry, tmp_path: Path) -> None:
    folder = make_llama(tmp_path / "model")
    registry.take_in(model("a" * 12), folder)
    registry.take_in(model("c" * 12, "adapter", "imported." + "a" * 12), folder)
    with pytest.raises(Conflict, match="is needed by adapter"):
        registry.delete_imported(model("a" * 12))


def test_an_adapters_base_is_found_by_its_id_or_its_source(registry: Registry, tmp_path: Path) -> None:
    folder = make_llama(tmp_path / "model")
    added = registry.add_base("tests.tiny-v1:0", str(folder))
    assert registry.base_of_adapter("tests.tiny-v1:0") == registry.base_of_adapter(str(folder)) == added
    with pytest.raises(Invalid, match="names the base 'nobody/nothing'"):
        registry.base_of_adapter("nobody/nothing")


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("tokenizer.json", {"added_tokens": [{"id": 4000, "content": "<|x|>"}]}, "a token 4,000"),
        ("tokenizer.json", {"model": None}, "tokenizer.json does not have the shape"),
        ("config.json", {"max_position_embeddings": "4k"}, "max_position_embeddings is '4k'"),
        ("config.json", {"architectures": None}, "the architecture is not named"),
        ("config.json", {"vocab_size": "many"}, "vocab_size is 'many'"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path: Path, file: str, change: dict, words: str) -> None:
    folder = make_llama(tmp_path)
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(Invalid, match=words):
        look_into(folder)


def test_a_config_that_is_no_object_is_named(tmp_path: Path) -> None:
    folder = make_llama(tmp_path)
    (folder / "config.json").write_text("[1]")
    with pytest.raises(Invalid, match=r"config\.json is not JSON"):
        look_into(folder)
