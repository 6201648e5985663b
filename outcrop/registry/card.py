"""A model card from what is known of a model: its lineage, its losses, and how to serve it elsewhere."""

from outcrop.registry.custom_models import CustomModel

ADAPTER, WHOLE = "adapter", "whole"
# transformers' classes that llama.cpp's converter and vLLM both read; for others their own lists say more.
COMMON = ("LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")


def card(model: CustomModel, base_source: str, architecture: str, form: str, dtype: str) -> str:
    """The card of an exported custom model; `form` is ADAPTER or WHOLE, `base_source` where its base's weights came from."""
    lineage = model.lineage
    data = [lineage["training_data"]] if "training_data" in lineage else []
    lines = [
        "---", f"base_model: {base_source}", "library_name: " + ("peft" if form == ADAPTER else "transformers"), "---",
        "", f"# {model.name}", "",
        f"Tuned from `{model.base}` ({base_source}) by Outcrop {lineage.get('outcrop', '')} on "
        f"{model.created_at:%Y-%m-%d} ({model.customization}); exported as "
        + ("a LoRA adapter in PEFT's layout." if form == ADAPTER else f"a whole model in {dtype}, its logits checked against "
           "base and adapter."),
        "", "## Data", "", "| set | file | rows | SHA-256 of its lines |", "|---|---|---|---|",
    ]  # fmt: skip
    for name, files in (("training", data), ("validation", lineage.get("validation_data", []))):
        lines += [f"| {name} | {file['uri']} | {file['rows']:,} | `{file['sha256']}` |" for file in files]
    lines += ["", "The data is not part of this folder.", "", "## Training", "", "| setting | value |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in model.hyperparameters.items()]
    lines += ["", f"{lineage.get('steps', '?')} optimizer steps, {lineage.get('tokens', 0):,} tokens."]
    if model.training_loss is not None:
        lines.append(f"Training loss at the last step: {model.training_loss:.4f} nats a token.")
    if model.validation_losses:
        lines.append(f"Validation loss: {', '.join(f'{loss:.4f}' for loss in model.validation_losses)} nats a token.")
    general = lineage.get("general_losses") or []
    if len(general) == 2:
        lines.append(f"Loss on general rows: {general[0]:.4f} before, {general[1]:.4f} after.")
    lines += ["", f"Renderer (tokenizer and chat template): `{lineage.get('renderer', 'unknown')}`."]
    return "\n".join([*lines, "", *_serving(model, base_source, architecture, form)]) + "\n"


def _serving(model: CustomModel, base_source: str, architecture: str, form: str) -> list[str]:
    base_source = f"<folder of {model.base}>" if " " in base_source else base_source
    known = "" if architecture in COMMON else f" (check that they know {architecture})"
    lines = [
        "## Serving it elsewhere",
        "",
        f"These commands are the projects' own{known}; run them where they are installed.",
        "",
        "```sh",
    ]
    if form == ADAPTER:
        lines += [
            "# vLLM, on the base that this adapter was trained on",
            f"vllm serve {base_source} --enable-lora --lora-modules {model.name}=. "
            f"--max-lora-rank {model.hyperparameters.get('loraRank', '16')}",
        ]
    else:
        lines += [
            "# vLLM", f"vllm serve . --served-model-name {model.name}",
            "# llama.cpp, from its source folder", f"python convert_hf_to_gguf.py . --outfile {model.name}.gguf",
            f"llama-server -m {model.name}.gguf",
        ]  # fmt: skip
    return [*lines, "```"]
