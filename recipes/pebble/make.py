"""Make the starter model: `python -m recipes.pebble.make --data ../shared/data --out build/pebble`.

Lessons and texts -> a tokenizer of our own -> a small Llama -> the product's own training loop, once over all rows.
Stop it at any time (Ctrl-C or SIGTERM): the newest checkpoint is kept and can be packaged with --package.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from outcrop.datasets.rows import Rows
from outcrop.rendering import Conversation, Rendered, Renderer
from outcrop.training.plan import Plan, Settings
from recipes.pebble import shown, texts
from recipes.pebble.lessons import LESSONS

SPECIALS = ("<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|pad|>")
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# Shares of the rows by lesson, in three stages; the numbers after them are where each stage ends (share of all tokens).
# The first stage mixes small lookups with a drill on few tokens; a drill on all 3,072 tokens of an earlier vocabulary stayed at
# chance for 2,000 steps. One run each, several things changed at once: what is needed of it is not known.
DRILL = {"drill": 3, "few_pairs": 3, "echo": 1, "paragraph": 1}
EASY = {"drill": 3, "few_pairs": 5, "small_table": 3, "echo": 3, "paragraph": 3, "ticket_questions": 2}
MIX = {
    "drill": 2, "few_pairs": 4, "pairs": 8, "small_table": 8, "people_table": 8, "year_table": 8, "paragraph": 12,
    "echo": 4, "ticket_form": 10, "ticket_questions": 8, "to_json": 5, "document": 3, "chat": 4, "as_shown": 16, "by_example": 10, "statement": 4,
}  # fmt: skip
# With each stage goes the number of different tokens in a drill: a small alphabet first, because every token of it must
# be met often before copying pays.
STAGES = ((DRILL, 64, 0.06), (EASY, 512, 0.20), (MIX, 2048, 1.0))


def make_tokenizer(folder: Path, samples: Iterator[str], vocabulary: int) -> None:
    """A byte-level BPE tokenizer; digits stand alone, so that numbers are written one way only."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIALS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(samples, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|bos|>", "eos_token": "<|end|>", "pad_token": "<|pad|>",
        "model_max_length": 4096, "clean_up_tokenization_spaces": False,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def make_model(folder: Path, width: int, layers: int, vocabulary: int, seed: int) -> int:
    """A small Llama with a start that finds lookups sooner; answers with its number of parameters.

    W_q close to W_k (orthogonal) and W_o = half of W_v transposed: "mimetic" initialisation (Trockman and Kolter,
    arXiv:2305.09828). All else has a standard deviation of inputs^-0.5 instead of the usual 0.02. A run
    with 0.02 had learned no lookups after four million tokens, but it also was wider and had no drill.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=width * 8 // 3 // 32 * 32, num_hidden_layers=layers,
        num_attention_heads=width // 32, num_key_value_heads=width // 32, max_position_embeddings=4096,
        rms_norm_eps=1e-5, tie_word_embeddings=True, bos_token_id=0, eos_token_id=1, pad_token_id=5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight.normal_(0, width**-0.5)
        for layer in model.model.layers:
            attention, mlp = layer.self_attn, layer.mlp
            for projection in (mlp.gate_proj, mlp.up_proj, mlp.down_proj):
                projection.weight.normal_(0, projection.in_features**-0.5)
            mlp.down_proj.weight.mul_((2 * layers) ** -0.5)
            match = torch.linalg.qr(torch.randn(width, width)).Q
            for projection in (attention.q_proj, attention.k_proj):
                projection.weight.copy_(match + torch.randn(width, width) * 0.3 * width**-0.5)
            attention.v_proj.weight.copy_(torch.linalg.qr(torch.randn(width, width)).Q)
            attention.o_proj.weight.copy_(0.5 * attention.v_proj.weight.T)
    model.save_pretrained(folder)
    return sum(weight.numel() for weight in model.parameters())


class Source:
    """Draws conversations and passages."""

    def __init__(self, data: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self._documents = texts.documents(data)
        self._chats = texts.chats(data, self.rng)

    def draw(self, shares: dict[str, int]) -> tuple[str, Conversation | str | None]:
        """A lesson's name and one row's content; plain text for a passage, None for a drill."""
        kind = self.rng.choices(list(shares), list(shares.values()))[0]
        if kind == "drill":
            return kind, None
        if kind == "document":
            return kind, self.rng.choice(self._documents)
        if kind == "chat":
            return kind, self.rng.choice(self._chats)
        return kind, {**LESSONS, **shown.LESSONS}[kind](self.rng, False)

    def samples(self, count: int) -> Iterator[str]:
        """Texts for the tokenizer."""
        for _ in range(count):
            _, drawn = self.draw(MIX)
            if drawn is not None:
                yield drawn if isinstance(drawn, str) else "\n".join(message.text for message in drawn.messages)


def drill(rng: random.Random, alphabet: list[int]) -> Rendered:
    """Random tokens, then some of them again: a run of them in order, or pairs of them shuffled. The repeats are learned."""
    if rng.random() < 0.6:
        run = [rng.choice(alphabet) for _ in range(rng.randint(6, 30))]
        begin = rng.randrange(len(run) // 2)
        again = run[begin:]
        return Rendered([0, *run, *again], [False] * (len(run) + 2) + [True] * (len(again) - 1))
    size = rng.choice((1, 1, 2))
    keys = [[rng.choice(alphabet) for _ in range(size)] for _ in range(rng.randint(2, 10))]
    values = [rng.choice(alphabet) for _ in keys]
    tokens, learned = [0], [False]
    order = rng.sample(range(len(keys)), len(keys))
    for number, index in enumerate([*range(len(keys)), *order]):
        tokens += [*keys[index], values[index]]
        learned += [False] * size + [number >= len(keys)]
    return Rendered(tokens, learned)


def rows(source: Source, renderer: Renderer, tokens: int, longest: int, begun: bool) -> Iterator[Rendered]:
    """Rows until there are that many tokens, the easy ones first; a model that has `begun` gets the last stage alone."""
    made = 0
    everything = list(range(len(SPECIALS), renderer.tokenizer.get_vocab_size()))
    random.Random(0).shuffle(everything)
    stages = STAGES[-1:] if begun else STAGES
    while made < tokens:
        shares, size = next((shares, size) for shares, size, end in stages if made < end * tokens)
        kind, drawn = source.draw(shares)
        row = drill(source.rng, everything[:size]) if drawn is None else renderer.training_row(drawn)
        if kind in shown.LESSONS and isinstance(drawn, Conversation):
            row = shown.without_guesses(row, shown.guesses(kind, drawn))
        if len(row.tokens) <= longest:
            made += len(row.tokens)
            yield row


def main() -> None:
    """Run the recipe, or package what a run has left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokens", type=float, default=30e6)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--batch-rows", type=int, default=12)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--decay-share", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--from-weights", type=Path, help="go on from these weights (a folder) with the same tokenizer")
    parser.add_argument("--package", type=Path, help="only: write the newest checkpoint in bf16 to this folder")
    chosen = parser.parse_args()
    if chosen.package:
        package(chosen.out, chosen.package)
        return

    start = chosen.out / "start"
    source = Source(chosen.data, chosen.seed)
    if chosen.from_weights:
        shutil.copytree(chosen.from_weights, start, dirs_exist_ok=True)
    else:
        make_tokenizer(start, source.samples(60_000), chosen.vocabulary)
        print("parameters:", make_model(start, chosen.width, chosen.layers, chosen.vocabulary, chosen.seed), flush=True)
    made = Rows.of(
        rows(source, Renderer(start), int(chosen.tokens), longest=768, begun=chosen.from_weights is not None)
    )
    made.write(chosen.out / "train.rows")
    print(f"rows: {len(made)}, tokens: {len(made.tokens)}, learned: {int(made.is_answer.sum())}", flush=True)
    Plan(
        base=str(start),
        threads=chosen.threads,
        settings=Settings(
            method="full", epochs=1, batch_rows=chosen.batch_rows, learning_rate=chosen.learning_rate, warmup_steps=100,
            decay_share=chosen.decay_share, weight_decay=0.05, shuffles=False, seed=chosen.seed,
        ),
    ).write(chosen.out)  # fmt: skip
    sys.exit(subprocess.run([sys.executable, "-m", "outcrop.training", str(chosen.out)], check=False).returncode)


def package(run: Path, target: Path) -> None:
    """The newest checkpoint, in bf16, with its tokenizer and template, ready to ship."""
    import torch
    from transformers import AutoModelForCausalLM

    newest = max((run / "checkpoints").glob("step-*"))
    target.mkdir(parents=True, exist_ok=True)
    AutoModelForCausalLM.from_pretrained(newest, dtype=torch.bfloat16).save_pretrained(target)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(run / "start" / name, target / name)
    print(f"{newest.name} -> {target}")


if __name__ == "__main__":
    main()
