"""Encoders: texts -> vectors. `python -m outcrop.serving.engines.embedding_engine FOLDER SOCKET THREADS ...` serves one,
`... try FOLDER` says as JSON whether it works.

Shape legend: B texts, T tokens of the longest, W width.
"""

import json
import logging
import socket
import sys
import threading
from pathlib import Path

import msgspec
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoModel
from transformers import logging as transformers_logging

from outcrop.registry.embedding import Pooling, read_pooling
from outcrop.serving.engines.listening import take_requests
from outcrop.serving.protocol import REQUESTS, Embed, Load, Reply

log = logging.getLogger("outcrop.engine")

# Texts of a pass together; they are sorted by length before, so that little is padded.
MOST_TOKENS = 8192
LIKE = ("The cat sleeps on the sofa.", "A cat is sleeping on the couch.", "Interest rates rose by half a percent.")
# In a batch and alone a vector may differ by so much, relative; float32 sums in another order.
MOST_DIFFERENCE = 1e-4


class Encoder:
    """A model whose hidden states are pooled."""

    def __init__(self, folder: Path) -> None:
        pooling = read_pooling(folder)
        assert pooling is not None
        self.pooling: Pooling = pooling
        self._model = AutoModel.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False, use_safetensors=True
        ).eval()
        named, made = str((self._model.config.architectures or [""])[0]), type(self._model).__name__
        if _family(named) != _family(made):
            raise ValueError(f"config.json names the architecture {named}, but its model_type makes {made}")

    @torch.inference_mode()
    def embed(self, texts: list[list[int]]) -> list[list[float]]:
        """A vector for each text's tokens."""
        vectors: list[list[float]] = [[]] * len(texts)
        order = sorted(range(len(texts)), key=lambda one: len(texts[one]))
        while order:
            count = max(1, MOST_TOKENS // max(1, len(texts[order[min(len(order), 32) - 1]])))
            chosen, order = order[: min(count, 32)], order[min(count, 32) :]
            for one, vector in zip(chosen, self._pass([texts[one] for one in chosen]).tolist(), strict=True):
                vectors[one] = vector
        return vectors

    def _pass(self, texts: list[list[int]]) -> Tensor:
        longest = max(map(len, texts))
        ids_BT = torch.tensor([[*text, *[0] * (longest - len(text))] for text in texts])
        is_text_BT = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts])
        hidden_BTW = self._model(input_ids=ids_BT, attention_mask=is_text_BT).last_hidden_state
        if self.pooling.how == "first":
            pooled_BW = hidden_BTW[:, 0]
        elif self.pooling.how == "last":
            pooled_BW = hidden_BTW[torch.arange(len(texts)), is_text_BT.sum(1) - 1]
        else:
            pooled_BW = (hidden_BTW * is_text_BT[..., None]).sum(1) / is_text_BT.sum(1, keepdim=True)
        return torch.nn.functional.normalize(pooled_BW, dim=-1) if self.pooling.normalizes else pooled_BW


def _family(architecture: str) -> str:
    return architecture.removesuffix("Model").removesuffix("ForMaskedLM")


def attempt(folder: Path) -> int:
    """Embed three sentences, in a batch and alone. Exit status 0 when the model can be served."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        encoder, tokenizer = Encoder(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))
        texts = [tokenizer.encode(text).ids for text in LIKE]
        together, alone = (
            torch.tensor(one) for one in (encoder.embed(texts), [encoder.embed([text])[0] for text in texts])
        )
    except (OSError, ValueError, KeyError, RuntimeError, IndexError, TypeError, AttributeError) as error:
        print(
            json.dumps(
                {"reason": f"the weights do not load as the config says: {type(error).__name__}: {error}"[:1500]}
            )
        )
        return 1
    off = float((together - alone).abs().max() / alone.abs().max())
    if not off <= MOST_DIFFERENCE:
        print(json.dumps({"reason": f"a text's vector depends on the texts beside it, by {off:.1e}, or is no number"}))
        return 1
    same, other = (float(together[0] @ together[one]) for one in (1, 2))
    print(json.dumps({"dimensions": together.shape[1], "alike": same, "unlike": other}))
    return 0


def answer(connection: socket.socket, encoder: Encoder, thinking: threading.Lock) -> None:
    """Serve one request."""
    with connection, connection.makefile("rb") as lines:
        try:
            request = REQUESTS.decode(lines.readline())
            if isinstance(request, Load):
                reply = Reply(done="ready")
            elif isinstance(request, Embed):
                with thinking:
                    reply = Reply(done="embedded", vectors=encoder.embed(request.texts))
            else:
                reply = Reply(done="error", reason="this model makes embeddings; it continues no text")
            connection.sendall(msgspec.json.encode(reply) + b"\n")
        except (RuntimeError, IndexError, msgspec.DecodeError) as error:
            log.exception("a request failed")
            connection.sendall(msgspec.json.encode(Reply(done="error", reason=str(error))) + b"\n")
        except OSError:
            return  # the client left


def main(folder: str, path: str, threads: str, *_: str) -> None:
    """Load the weights, then listen."""
    logging.basicConfig(level=logging.INFO)
    torch.set_num_threads(int(threads))
    encoder, thinking = Encoder(Path(folder)), threading.Lock()
    take_requests(path, lambda connection: answer(connection, encoder, thinking))


if __name__ == "__main__":
    if sys.argv[1] == "try":
        sys.exit(attempt(Path(sys.argv[2])))
    main(*sys.argv[1:])
