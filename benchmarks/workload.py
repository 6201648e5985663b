"""The same training work for every system: a model with random weights, and rows that are tokens already.

Nothing here but the standard library and, for models, transformers: it runs in the peers' environment, too.
"""

import csv
import gzip
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# width, layers, heads, key-value heads, MLP width, vocabulary, head tied to the embedding
SHAPES = {
    "1m": (128, 2, 4, 2, 256, 2_000, True),
    "15m": (288, 6, 6, 6, 768, 32_000, True),
    "135m": (576, 30, 9, 3, 1536, 49_152, True),  # SmolLM2-135M's
}
Row = dict[str, list[int]]


def make_model(shape: str, folder: Path, vocabulary: int | None = None) -> Path:
    """A Llama of that shape with weights drawn by a fixed seed, and a tokenizer that nobody asks."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    if (folder / "config.json").exists():
        return folder
    width, layers, heads, kv_heads, inner, size, tied = SHAPES[shape]
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv_heads,
            intermediate_size=inner, vocab_size=vocabulary or size, tie_word_embeddings=tied, pad_token_id=0, bos_token_id=1,
            eos_token_id=2, max_position_embeddings=8192, initializer_range=0.04,
        )
    )  # fmt: skip
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3}, unk_token="<unk>"))
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    return folder


def drawn(
    contexts: int, questions: int, vocabulary: int, context: tuple[int, int] = (500, 900), seed: int = 0
) -> list[Row]:
    """TAT-QA's shape: so many questions of 14 to 26 tokens on each context, answers of 8 to 22 tokens and the end."""
    draw = random.Random(seed)

    def words(low: int, high: int) -> list[int]:
        return [4 + min(vocabulary - 5, int(vocabulary ** draw.random()) - 1) for _ in range(draw.randint(low, high))]

    rows = []
    for _ in range(contexts):
        begin = words(*context)
        rows += [{"prompt": begin + words(14, 26), "answer": [*words(8, 22), 2]} for _ in range(questions)]
    return rows


def real(name: str, data: Path, number: int) -> list[Row]:
    """Rows of a real set in GPT-2's tokens, contexts in the order of the file with all their questions."""
    from tokenizers import ByteLevelBPETokenizer

    folder = data / "tokenizers/gpt2"
    tokenizer = ByteLevelBPETokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))

    def ids(text: str) -> list[int]:
        return [int(token) for token in tokenizer.encode(text).ids]

    texts = REAL[name](data)
    rows: list[Row] = []
    for prompt, answer in texts:
        row = {"prompt": ids(prompt), "answer": [*ids(answer), 50256]}
        if len(row["prompt"]) + len(row["answer"]) <= 1500:
            rows.append(row)
        if len(rows) == number:
            break
    return rows


def _tatqa(data: Path) -> Iterator[tuple[str, str]]:
    with gzip.open(data / "tatqa/tatqa_dataset_dev.json.gz", "rt", encoding="utf-8") as file:
        contexts: list[dict[str, Any]] = json.load(file)
    for context in contexts:
        table = "\n".join(" | ".join(row) for row in context["table"]["table"])
        text = "\n".join(paragraph["text"] for paragraph in context["paragraphs"])
        for question in context["questions"]:
            answer = question["answer"]
            items = "; ".join(map(str, answer)) if isinstance(answer, list) else str(answer)
            yield f"{table}\n\n{text}\n\nQuestion: {question['question']}\nAnswer:", f" {items} {question['scale']}"


def _wtq(data: Path) -> Iterator[tuple[str, str]]:
    with gzip.open(data / "wtq/wtq_training.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            entry = json.loads(line)
            table = "\n".join(" | ".join(row) for row in entry["table"])
            for pair in entry["questions"]:
                answer = pair["answer"]
                wanted = "; ".join(map(str, answer)) if isinstance(answer, list) else str(answer)
                yield f"{table}\n\nQuestion: {pair['question']}\nAnswer:", f" {wanted}"


def _banking77(data: Path) -> Iterator[tuple[str, str]]:
    names = json.loads((data / "tickets/banking77_categories.json").read_text())
    system = f"Name the intent of the customer's question. The intents are: {', '.join(names)}.\n\n"
    with gzip.open(data / "tickets/banking77_train.csv.gz", "rt", encoding="utf-8") as file:
        entries = list(csv.DictReader(file))
    random.Random(0).shuffle(entries)
    for entry in entries:
        yield f"{system}{entry['text']}\nIntent:", f" {entry['category']}"


REAL: dict[str, Callable[[Path], Iterator[tuple[str, str]]]] = {"tatqa": _tatqa, "wtq": _wtq, "banking77": _banking77}
