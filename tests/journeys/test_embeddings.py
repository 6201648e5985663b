"""Encoders are imported and make vectors, in Titan's and Cohere's bodies and at the second door."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import torch
import transformers
from botocore.exceptions import ClientError
from tokenizers import processors

from tests.conftest import Outcrop
from tests.journeys.test_import import bring, upload
from tests.models import make_tokenizer

pytestmark = pytest.mark.slow
TEXTS = ["the cat sat on the mat", "the dog ran to the red house", "mat"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    size = make_tokenizer(folder)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|bos|> $A <|end|>", special_tokens=[("<|bos|>", 1), ("<|end|>", 0)]
    )
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=size, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, max_position_embeddings=64
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(outcrop: Outcrop, folder: Path) -> str:
    job = bring(outcrop, "encoder", upload(outcrop, "encoder", folder))
    assert job["status"] == "Completed", job.get("failureMessage")
    return str(job["importedModelArn"])


@pytest.fixture(scope="module")
def expected(folder: Path) -> np.ndarray:
    """Each text alone, by transformers: the mean of the tokens, normalized."""
    bert = transformers.BertModel.from_pretrained(folder).eval()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    with torch.no_grad():
        means = [bert(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0) for text in TEXTS]
    return torch.nn.functional.normalize(torch.stack(means), dim=-1).numpy()


def invoke(outcrop: Outcrop, model: str, body: dict[str, Any]) -> Any:
    answer = outcrop.client("bedrock-runtime").invoke_model(modelId=model, body=json.dumps(body))
    return json.loads(answer["body"].read())


def test_titans_and_coheres_bodies_give_transformers_vectors(
    outcrop: Outcrop, model: str, expected: np.ndarray
) -> None:
    for text, vector in zip(TEXTS, expected, strict=True):
        titan = invoke(outcrop, model, {"inputText": text, "normalize": True, "dimensions": 32})
        assert np.allclose(titan["embedding"], vector, atol=1e-5)
        assert titan["inputTextTokenCount"] > 2
    cohere = invoke(outcrop, model, {"texts": TEXTS, "input_type": "search_document"})
    assert np.allclose(cohere["embeddings"], expected, atol=1e-5)


def test_the_second_door_gives_the_same_in_both_forms(outcrop: Outcrop, model: str, expected: np.ndarray) -> None:
    with openai.OpenAI(base_url=f"{outcrop.endpoint}/v1", api_key=outcrop.keys.bearer) as client:
        packed = client.embeddings.create(model="encoder", input=TEXTS)  # the client asks for base64 by itself
        plain = client.embeddings.create(model=model, input=TEXTS[0], encoding_format="float")
        assert np.allclose([one.embedding for one in packed.data], expected, atol=1e-5)
        assert np.allclose(plain.data[0].embedding, expected[0], atol=1e-5)
        assert packed.usage.prompt_tokens > 6


def test_what_an_encoder_cannot_do_is_refused(outcrop: Outcrop, model: str) -> None:
    with pytest.raises(ClientError, match="embedding model"):
        outcrop.ask(model, "Hello")
    for body, words in (
        ({"inputText": TEXTS[0], "dimensions": 8}, "makes 32"),
        ({"inputText": " "}, "is empty"),
        ({"inputText": "cat " * 200}, "the model reads 64"),
        ({"texts": TEXTS, "truncate": "END"}, "texts are not cut"),
        ({"inputText": "a", "colour": "red"}, "colour is not supported"),
    ):
        with pytest.raises(ClientError, match=words):
            invoke(outcrop, model, body)
    with pytest.raises(ClientError, match="language model"):
        invoke(outcrop, "outcrop.pebble-v1:0", {"inputText": "a"})
    outcrop.put_lines("s3://lessons/none.jsonl", ["{}"])
    with pytest.raises(ClientError, match="There is no base model 'encoder'"):
        outcrop.tune("tuned-encoder", baseModelIdentifier="encoder")
