"""A base model from its folder, and two ways to its loss and gradients: written out (decoder.py), or by autograd."""

from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from outcrop import arithmetic
from outcrop.errors import Invalid
from outcrop.training.attention import ATTENTION, laid_out
from outcrop.training.batches import Microbatch
from outcrop.training.decoder import Decoder, fits
from outcrop.training.flat import FlatParameters
from outcrop.training.group import Group
from outcrop.training.lora import LoraLinear, add_adapters
from outcrop.training.plan import Settings

# Logits are made for so many bytes at a time.
HEAD_BYTES = 1 << 26


class Learner(Protocol):
    """What a step needs of a model."""

    def loss(self, batch: Microbatch) -> float:
        """Summed cross-entropy (nats) at the supervised positions; nothing is dropped, no gradients."""

    def learn(self, batch: Microbatch, share: float) -> float:
        """The same with dropout, if any, and `share` times its gradient added to the gradients."""

    def refresh(self) -> None:
        """Take up what the optimizer changed."""

    def checkpoint_activations(self) -> None:
        """From now on keep each layer's input only and compute the rest again: a third more work, less memory."""


class Autograd:
    """Any causal language model of transformers, through its attention interface."""

    def __init__(self, model: PreTrainedModel, device: torch.device) -> None:
        self._model, self._device = model, device

    @torch.no_grad()
    def loss(self, batch: Microbatch) -> float:
        self._model.eval()
        with laid_out(batch.attention):
            return self._loss(batch.to(self._device)).item()

    def learn(self, batch: Microbatch, share: float) -> float:
        self._model.train()
        with laid_out(batch.attention):  # the backward pass, too, may go through attention again
            loss = self._loss(batch.to(self._device))
            (loss * share).backward()  # type: ignore[no-untyped-call]
        return loss.item()

    def refresh(self) -> None:
        """Nothing to do: the model reads the weights that the optimizer writes."""

    def checkpoint_activations(self) -> None:
        self._model.activation_checkpointing_enable()

    def _loss(self, batch: Microbatch) -> Tensor:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
            hidden_1TW = self._model.get_decoder()(
                input_ids=batch.tokens_1T, position_ids=batch.positions_1T, use_cache=False
            ).last_hidden_state
            logits_UV = self._model.get_output_embeddings()(hidden_1TW[0, batch.places_U]).float()
        cap = getattr(self._model.config, "final_logit_softcapping", None)
        if cap is not None:
            logits_UV = torch.tanh(logits_UV / cap) * cap
        losses_S = F.cross_entropy(logits_UV[batch.pair_rows_S], batch.targets_S, reduction="none")
        return (losses_S * batch.counts_S).sum()


def load_base(folder: Path) -> PreTrainedModel:
    """The base model in float32, frozen.

    float32 whatever the config says: on processors without bf16 units bf16 arithmetic is several
    times slower (a product of 1024 x 1024 matrices, one thread of a Xeon without AMX, torch 2.13: 30 against 110
    GFLOP/s), and training in it would lose small updates.
    Raises Invalid when the folder's weights cannot be read as a causal language model.
    """
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation=ATTENTION,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise Invalid(f"{folder} does not load as a causal language model: {error}") from error
    model.requires_grad_(False)
    # Only loraDropout drops anything: the base's own dropout was for its pre-training, and a step's result must not
    # depend on how its rows were cut.
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model.eval()
    return model


class Trainee:
    """A base model made ready: adapters or all weights as flat parameters, and the way to their gradients.

    On GPUs weights stay float32 and products are made in bfloat16. Raises Invalid as `load_base` does.
    """

    def __init__(
        self, base: Path, settings: Settings, longest: int, group: Group | None = None, device: str = "cpu"
    ) -> None:
        self.group, self.device = group or Group(), torch.device(device)
        self.model = load_base(base)
        self.adapters: dict[str, LoraLinear] = {}
        if settings.method == "lora":
            self.adapters = add_adapters(
                self.model, settings.lora_rank, settings.lora_alpha, settings.lora_dropout, settings.seed
            )
        else:
            self.model.requires_grad_(True)
        self.model.to(self.device)  # type: ignore[arg-type]
        self.flat = FlatParameters(self._groups(settings))
        # What drops a different part of each row's prefix cannot share it.
        self.shares = settings.shares_prefixes and settings.lora_dropout == 0
        self.learner: Learner
        if settings.lora_dropout == 0 and self.device.type == "cpu" and fits(self.model, longest):
            self.learner = Decoder(self.model, self.flat)
        else:
            self.learner = Autograd(self.model, self.device)

    def products(self) -> str:
        """What had better multiply its matrices. oneDNN only where rows come in pieces of few sizes (outcrop/arithmetic.py)."""
        return arithmetic.fastest() if isinstance(self.learner, Decoder) else arithmetic.MKL

    def _groups(self, settings: Settings) -> list[tuple[list[nn.Parameter], float]]:
        """What is trained; weight decay on matrices only, not on embeddings, norms and biases."""
        if self.adapters:
            lowering = [adapter.A_rI for adapter in self.adapters.values()]
            raising = [adapter.B_Or for adapter in self.adapters.values()]
            return [([*lowering, *raising], settings.weight_decay)]
        embeddings = {id(weight) for weight in self.model.get_input_embeddings().parameters()}
        decayed: list[nn.Parameter] = []
        plain: list[nn.Parameter] = []
        for weight in self.model.parameters():
            (decayed if weight.ndim == 2 and id(weight) not in embeddings else plain).append(weight)
        return [(decayed, settings.weight_decay), (plain, 0.0)]

    def state(self) -> dict[str, Any]:
        """The model's weights by name, copied: flat parameters share their memory, which safetensors refuses."""
        return {name: weight.clone() for name, weight in self.model.state_dict().items()}
