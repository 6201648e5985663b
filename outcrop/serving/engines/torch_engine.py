"""The embedded engine: continuous batching of requests and adapters over one base, on PyTorch.

Each turn of the loop: let waiting requests in, read their prompts in one packed pass, then give every active request
one more token in one batch. Shape legend: T tokens laid end to end, B active requests, H heads, K key-value heads,
C cache positions, D head width, V vocabulary.
"""

import logging
import queue
import socket
import struct
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from outcrop import arithmetic
from outcrop.arithmetic import multiplying_by, product
from outcrop.registry.adapters import read_adapter
from outcrop.serving.protocol import REQUESTS, Generate, Load, Reply, Request, Score

log = logging.getLogger("outcrop.engine")

ATTENTION = "outcrop_cache"
CACHE_STEP = 256
SEND_WITHIN_S = 10
MOST_PREFILL_TOKENS = 8192


@dataclass
class Active:
    """A request in the batch. `cached` positions are in the cache; `next_token` is not yet."""

    request: Generate
    client: "Client"
    generator: torch.Generator | None
    cached: int = 0
    made: int = 0
    next_token: int = -1


class Client:
    """The other end of a request's connection."""

    def __init__(self, connection: socket.socket) -> None:
        # A client that does not read must not hold up the others: after this long it counts as gone.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_WITHIN_S, 0))
        self._connection = connection
        self.is_gone = False

    def send(self, reply: Reply) -> None:
        """Tell the client; one that has left is noticed."""
        try:
            self._connection.sendall(msgspec.json.encode(reply) + b"\n")
        except OSError:
            self.is_gone = True

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


@dataclass
class Batch:
    """What the attention and the adapters must know of the pass under way."""

    spans: list[tuple[int, int]] = field(default_factory=list)
    """Prompts: begin and end in T of each; the request's row in the cache is its place in the list + first_row."""
    first_row: int = 0
    positions_B: Tensor | None = None
    """Decoding: where each request's new token stands."""
    groups: list[tuple[str, Tensor | None]] = field(default_factory=list)
    """Adapters in this pass with the tokens they apply to (None: all)."""


class Cache:
    """Keys and values of every layer: [rows, K, C, D]. Rows 0..B-1 are active."""

    def __init__(self, rows: int) -> None:
        self.rows, self.capacity = rows, 0
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    def reserve(self, capacity: int) -> None:
        """Room for so many positions."""
        if capacity <= self.capacity:
            return
        self.capacity = -(-capacity // CACHE_STEP) * CACHE_STEP
        for layer, (keys, values) in self.layers.items():
            grown = [F.pad(old, (0, 0, 0, self.capacity - old.shape[2])) for old in (keys, values)]
            self.layers[layer] = (grown[0], grown[1])

    def of(self, layer: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """A layer's keys and values; `like` is [1, K, T, D]."""
        if layer not in self.layers:
            shape = (self.rows, like.shape[1], self.capacity, like.shape[3])
            self.layers[layer] = (like.new_zeros(shape), like.new_zeros(shape))
        return self.layers[layer]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a row over another."""
        for keys, values in self.layers.values():
            keys[target, :, :length] = keys[source, :, :length]
            values[target, :, :length] = values[source, :, :length]


class AdaptedLinear(nn.Module):
    """A linear layer, plus for each adapter in the batch its low-rank product on its own tokens."""

    def __init__(self, base: nn.Module, batch: "Holder") -> None:
        super().__init__()
        self.base, self._batch = base, batch
        self.adapters: dict[str, tuple[Tensor, Tensor]] = {}

    def forward(self, x: Tensor) -> Tensor:
        y = self._plain(x)
        for name, tokens in self._batch.now.groups:
            if name not in self.adapters:
                continue
            A_rI, scaled_B_Or = self.adapters[name]
            if tokens is None:
                y = y + F.linear(F.linear(x, A_rI), scaled_B_Or)
            else:
                y[0, tokens] += F.linear(F.linear(x[0, tokens], A_rI), scaled_B_Or)
        return y

    def _plain(self, x: Tensor) -> Tensor:
        """The base's product, in pieces of few sizes (outcrop/arithmetic.py)."""
        weight: Any = self.base.weight
        bias: Any = self.base.bias
        with multiplying_by(arithmetic.fastest()):  # here alone: everything else comes in every shape
            y = product(x.reshape(-1, x.shape[-1]), weight if isinstance(self.base, Conv1D) else weight.T)
        return (y if bias is None else y.add_(bias)).view(*x.shape[:-1], -1)


class Holder:
    """The pass under way, where layers find it."""

    now: Batch = Batch()


class TorchEngine:
    """One base model with its adapters, cache and batch."""

    def __init__(self, folder: Path, slots: int) -> None:
        self._holder = Holder()
        self._cache = Cache(slots)
        AttentionInterface.register(ATTENTION, self._attend)
        self._model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation=ATTENTION, local_files_only=True,
            trust_remote_code=False, use_safetensors=True,
        ).eval()  # fmt: skip
        self._layers = self._make_adaptable()
        self._loaded: set[str] = set()
        self.active: list[Active] = []
        self.slots = slots
        self.config: Any = self._model.config
        self.context = int(getattr(self._model.config, "max_position_embeddings", 1 << 20))

    def _make_adaptable(self) -> dict[str, AdaptedLinear]:
        head = self._model.get_output_embeddings()
        found = {
            name: module
            for name, module in self._model.named_modules()
            if isinstance(module, nn.Linear | Conv1D) and module is not head
        }
        layers = {}
        for name, module in found.items():
            layers[name] = AdaptedLinear(module, self._holder)
            parent, _, child = name.rpartition(".")
            setattr(self._model.get_submodule(parent), child, layers[name])
        return layers

    def load_adapter(self, folder: str) -> None:
        """Put an adapter in PEFT's layout on the layers. Raises ValueError when it does not fit this base."""
        if folder in self._loaded:
            return
        loaded = read_adapter(Path(folder))
        unknown = sorted(loaded.keys() - self._layers.keys())
        if unknown:
            raise ValueError(f"the adapter does not fit this base: {unknown[:3]}")
        for name, (A_rI, B_Or) in loaded.items():
            if (B_Or.shape[0], A_rI.shape[1]) != _shape(self._layers[name].base) or A_rI.shape[0] != B_Or.shape[1]:
                raise ValueError(f"the adapter does not fit this base: {name} has other sizes")
        for name, pair in loaded.items():
            self._layers[name].adapters[folder] = pair
        self._loaded.add(folder)

    # --- the loop's two passes --------------------------------------------------------------------------------------

    def admit(self, newcomers: list[Active]) -> None:
        """Read the newcomers' prompts in one packed pass and draw each one's first token."""
        lengths = [len(one.request.tokens) for one in newcomers]
        self._cache.reserve(max(len(one.request.tokens) + one.request.max_tokens for one in (*self.active, *newcomers)))
        ends = torch.tensor(lengths).cumsum(0)
        spans = [(int(end) - length, int(end)) for end, length in zip(ends, lengths, strict=True)]
        owners = [one.request.adapter for one, length in zip(newcomers, lengths, strict=True) for _ in range(length)]
        self._holder.now = Batch(spans, len(self.active), None, _groups(owners))
        tokens_1T = torch.tensor([[token for one in newcomers for token in one.request.tokens]])
        positions_1T = torch.cat([torch.arange(length) for length in lengths])[None]
        hidden_1TW = self._model.get_decoder()(input_ids=tokens_1T, position_ids=positions_1T, use_cache=False)[0]
        for one, length in zip(newcomers, lengths, strict=True):
            one.cached = length
        self.active += newcomers
        self._draw(newcomers, hidden_1TW[0, ends - 1])

    def score(self, request: Score) -> float:
        """What the tokens at the request's places cost, summed (nats); the batch under way is left as it is."""
        if request.adapter is not None:
            self.load_adapter(request.adapter)
        kept, self._cache = self._cache, Cache(1)
        self._cache.reserve(len(request.tokens))
        owners = [request.adapter] * (len(request.tokens) - 1)
        self._holder.now = Batch([(0, len(owners))], 0, None, _groups(owners))
        tokens_1T = torch.tensor([request.tokens])
        try:
            hidden_1TW = self._model.get_decoder()(
                input_ids=tokens_1T[:, :-1], position_ids=torch.arange(len(owners))[None], use_cache=False
            )[0]
        finally:
            self._cache = kept
        places = torch.tensor(request.places)
        logits_SV = self._logits(hidden_1TW[0, places - 1])
        return float(F.cross_entropy(logits_SV, tokens_1T[0, places], reduction="sum"))

    def decode(self) -> None:
        """One more token for every active request."""
        positions_B = torch.tensor([one.cached for one in self.active])
        self._holder.now = Batch([], 0, positions_B, _groups([one.request.adapter for one in self.active]))
        tokens_1B = torch.tensor([[one.next_token for one in self.active]])
        hidden_1BW = self._model.get_decoder()(input_ids=tokens_1B, position_ids=positions_B[None], use_cache=False)[0]
        for one in self.active:
            one.cached += 1
        self._draw(self.active, hidden_1BW[0])

    def _logits(self, hidden_BW: Tensor) -> Tensor:
        logits_BV: Tensor = self._model.get_output_embeddings()(hidden_BW).float()
        cap = getattr(self.config, "final_logit_softcapping", None)
        return logits_BV if cap is None else torch.tanh(logits_BV / cap) * cap

    def _draw(self, requests: list[Active], hidden_BW: Tensor) -> None:
        logits_BV = self._logits(hidden_BW)
        likeliest = logits_BV.argmax(-1).tolist()
        for one, logits_V, best in zip(requests, logits_BV, likeliest, strict=True):
            one.next_token = best if one.generator is None else sample(logits_V, one.request, one.generator)

    def drop(self, one: Active) -> None:
        """Take a request out of the batch; the last row of the cache moves into its place."""
        row = self.active.index(one)
        last = len(self.active) - 1
        if row != last:
            self._cache.move(last, row, self.active[last].cached)
            self.active[row] = self.active[last]
        self.active.pop()
        if not self.active:
            self._cache = Cache(self._cache.rows)

    def _attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, *,
        scaling: float | None = None, sliding_window: int | None = None, softcap: float | None = None,
        s_aux: Tensor | None = None, **_: Any,
    ) -> tuple[Tensor, None]:  # fmt: skip
        """Attention over the cache: query [1, H, T, D] -> [1, T, H, D]; keys and values are stored on the way."""
        batch, cache = self._holder.now, self._cache
        keys, values = cache.of(int(module.layer_idx), key)  # type: ignore[arg-type]
        how = How(query.shape[-1] ** -0.5 if scaling is None else scaling, softcap, s_aux)
        if batch.positions_B is None:
            mixed = []
            for row, (begin, end) in enumerate(batch.spans, batch.first_row):
                keys[row, :, : end - begin] = key[0, :, begin:end]
                values[row, :, : end - begin] = value[0, :, begin:end]
                parts = (query[:, :, begin:end], key[:, :, begin:end], value[:, :, begin:end])
                mixed.append(how.mix(*parts, how.causal_mask(end - begin, sliding_window)))
            return torch.cat(mixed, 2).transpose(1, 2), None
        count, positions_B = len(batch.positions_B), batch.positions_B
        rows = torch.arange(count)
        keys[rows, :, positions_B] = key[0].transpose(0, 1)
        values[rows, :, positions_B] = value[0].transpose(0, 1)
        longest = int(positions_B.max()) + 1
        places_C = torch.arange(longest)[None]
        seen_BC = places_C <= positions_B[:, None]
        if sliding_window is not None and longest > sliding_window:
            seen_BC &= places_C > positions_B[:, None] - sliding_window
        parts = (query[0].transpose(0, 1)[:, :, None], keys[:count, :, :longest], values[:count, :, :longest])
        mixed_BH1D = how.mix(*parts, seen_BC[:, None, None])
        return mixed_BH1D[:, :, 0][None], None


@dataclass(frozen=True)
class How:
    """What an architecture does with attention scores: scale them, cap them (Gemma 2), let some of the attention go to a
    sink, one score a head (GPT-OSS)."""

    scale: float
    softcap: float | None = None
    sinks_H: Tensor | None = None

    def causal_mask(self, length: int, window: int | None) -> Tensor | None:
        """Who sees whom among `length` tokens, bool [T, T]; None where plain causal attention will do."""
        if self.softcap is None and self.sinks_H is None and (window is None or length <= window):
            return None
        back_TT = torch.arange(length)[:, None] - torch.arange(length)[None]
        return (back_TT >= 0) & (back_TT < (window or length))

    def mix(self, query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None) -> Tensor:
        """[B, H, T, D] over [B, K, C, D] twice -> [B, H, T, D]; without `seen` causal."""
        if self.softcap is None and self.sinks_H is None:
            return F.scaled_dot_product_attention(
                query, key, value, attn_mask=seen, is_causal=seen is None, scale=self.scale,
                enable_gqa=query.shape[1] != key.shape[1],
            )  # fmt: skip
        assert seen is not None
        groups = query.shape[1] // key.shape[1]
        scores = query @ key.repeat_interleave(groups, 1).transpose(2, 3) * self.scale
        if self.softcap is not None:
            scores = torch.tanh(scores / self.softcap) * self.softcap
        scores = scores.masked_fill(~seen, float("-inf"))
        if self.sinks_H is not None:
            sinks = self.sinks_H.reshape(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
            shares = torch.cat([scores, sinks], -1).softmax(-1)[..., :-1]
        else:
            shares = scores.softmax(-1)
        return shares @ value.repeat_interleave(groups, 1)


def _shape(layer: nn.Module) -> tuple[int, int]:
    """(outputs, inputs) of a linear layer; GPT-2's Conv1D keeps its weight the other way round."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    rows, columns = weight.shape
    return (columns, rows) if isinstance(layer, Conv1D) else (rows, columns)


def _groups(owners: list[str | None]) -> list[tuple[str, Tensor | None]]:
    """Which tokens each adapter applies to."""
    names = sorted({owner for owner in owners if owner is not None})
    if len(names) == 1 and None not in owners:
        return [(names[0], None)]
    return [(name, torch.tensor([place for place, owner in enumerate(owners) if owner == name])) for name in names]


def sample(logits_V: Tensor, request: Generate, generator: torch.Generator) -> int:
    """A token drawn at the request's temperature from its top_k, then its top_p likeliest."""
    scaled = logits_V / request.temperature
    if request.top_k:
        kept = scaled.topk(min(request.top_k, len(scaled))).values[-1]
        scaled = scaled.masked_fill(scaled < kept, float("-inf"))
    chances, order = scaled.softmax(-1).sort(descending=True)
    before = chances.cumsum(0) - chances
    chances = chances.masked_fill(before >= max(request.top_p, 1e-9), 0.0)
    return int(order[int(torch.multinomial(chances, 1, generator=generator))])


class Loop:
    """Requests from the socket into the batch, tokens back."""

    def __init__(self, engine: TorchEngine) -> None:
        self._engine = engine
        self._waiting: queue.Queue[tuple[Request, Client]] = queue.Queue()

    def serve(self, listener: socket.socket) -> None:
        """Take connections, each one request, until the process ends."""
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        client = Client(connection)
        with connection.makefile("rb") as lines:
            try:
                self._waiting.put((REQUESTS.decode(lines.readline()), client))
                lines.read()  # returns when the client hangs up
            except msgspec.DecodeError as error:
                client.send(Reply(done="error", reason=f"not a request: {error}"))
            except OSError:
                pass
        client.is_gone = True

    @torch.inference_mode()
    def run(self) -> None:
        """Turn after turn, for ever."""
        engine = self._engine
        while True:
            newcomers = self._newcomers()
            try:
                if newcomers:
                    engine.admit(newcomers)
                    self._hand_out(newcomers)
                if engine.active:
                    engine.decode()
                    self._hand_out(list(engine.active))
            except (RuntimeError, ValueError, IndexError) as error:
                log.exception("a pass failed")
                for one in {id(one): one for one in (*engine.active, *newcomers)}.values():
                    _finish(one.client, Reply(done="error", reason=str(error)))
                while engine.active:
                    engine.drop(engine.active[-1])

    def _newcomers(self) -> list[Active]:
        """Requests to let in now; waits when there is nothing else to do."""
        engine = self._engine
        taken: list[Active] = []
        tokens = 0
        while len(engine.active) + len(taken) < engine.slots and tokens < MOST_PREFILL_TOKENS:
            try:
                request, client = self._waiting.get(block=not engine.active and not taken)
            except queue.Empty:
                break
            if (one := self._accept(request, client)) is not None:
                taken.append(one)
                tokens += len(one.request.tokens)
        return taken

    def _accept(self, request: Request, client: Client) -> Active | None:
        try:
            if isinstance(request, Score):
                _finish(client, Reply(done="scored", loss=self._engine.score(request)))
                return None
            if request.adapter is not None:
                self._engine.load_adapter(request.adapter)
        except Exception as error:  # an edge: one damaged adapter must not end everybody's engine
            log.exception("adapter %s", request.adapter)
            _finish(client, Reply(done="error", reason=f"adapter {request.adapter}: {error}"))
            return None
        if isinstance(request, Load):
            _finish(client, Reply(done="ready"))
            return None
        generator = None
        if request.temperature > 0:
            generator = torch.Generator()
            generator.seed() if request.seed is None else generator.manual_seed(request.seed)
        return Active(request, client, generator)

    def _hand_out(self, requests: list[Active]) -> None:
        """Send each request's new token, and drop those that are done."""
        for one in requests:
            one.made += 1
            if one.next_token in one.request.stop_tokens:
                _finish(one.client, Reply(done="stop"))
            elif one.made >= one.request.max_tokens:
                _finish(one.client, Reply(token=one.next_token, done="length"))
            else:
                one.client.send(Reply(token=one.next_token))
                if not one.client.is_gone:
                    continue
            self._engine.drop(one)


def _finish(client: Client, reply: Reply) -> None:
    client.send(reply)
    client.close()


def main(folder: str, path: str, threads: str, slots: str) -> None:
    """Load the weights, then listen; the socket appears when requests can be answered."""
    logging.basicConfig(level=logging.INFO)
    torch.set_num_threads(int(threads))
    arithmetic.fastest()  # measured before anybody waits
    engine = TorchEngine(Path(folder), int(slots))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path + ".new")
    listener.listen(256)
    Path(path + ".new").rename(path)
    loop = Loop(engine)
    threading.Thread(target=loop.serve, args=(listener,), daemon=True).start()
    loop.run()


if __name__ == "__main__":
    main(*sys.argv[1:5])
