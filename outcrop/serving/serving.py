"""What may be asked by which name, and the asking."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec

from outcrop.clock import now
from outcrop.errors import Invalid, NotFound, NotReady, OutcropError
from outcrop.names import id_of, resource_of
from outcrop.registry import Registry, Weights
from outcrop.registry.embedding import Pooling, read_pooling
from outcrop.registry.probes import Certificate, judge, read_probes
from outcrop.serving.deployments import Deployment, Provisioned
from outcrop.serving.engines.supervisor import Engines
from outcrop.serving.protocol import Embed, Generate, Load, Reply, Score
from outcrop.storage import Storage

log = logging.getLogger("outcrop.serving")

IDLE_CHECK_S = 5.0
# A deployment waits so long for its engine; large models take minutes to load.
LOADS_WITHIN_S = 1800.0


@dataclass(frozen=True)
class Target:
    """Where a model id leads: weights, and the provisioned throughput whose places are used, if any."""

    weights: Weights
    holder: str | None

    @property
    def folder(self) -> Path:
        """The folder whose tokenizer and template are used."""
        return self.weights.folder

    @cached_property
    def pooling(self) -> Pooling | None:
        """How the model makes embeddings; None for a language model."""
        return read_pooling(self.folder)


class Serving:
    """Deployments, provisioned throughput, and the engines behind them."""

    def __init__(self, storage: Storage, registry: Registry, engines: Engines) -> None:
        self._registry, self._engines = registry, engines
        self.provisioned = storage.records.collection("provisioned-model", Provisioned)
        self.deployments = storage.records.collection("custom-model-deployment", Deployment)
        self.trials: dict[str, Weights] = {}
        """Weights that only this process knows, under names of its own: a trial's, which are no custom model."""
        self._background = ThreadPoolExecutor(4, thread_name_prefix="deploy")
        self._closing = threading.Event()

    def start(self) -> None:
        """Take up what an earlier process left: reservations count again, what was being made is made."""
        for provisioned in self.provisioned.all():
            if provisioned.status == "InService":
                with contextlib.suppress(NotFound):
                    self._reserve(provisioned)
            elif provisioned.status in ("Creating", "Updating"):
                self.bring_up(provisioned)
        for deployment in self.deployments.all():
            if deployment.status == "Creating" or deployment.update_status == "Updating":
                self.deploy(deployment)
        threading.Thread(target=self._end_idle, daemon=True).start()

    def close(self) -> None:
        """End the engines."""
        self._closing.set()
        self._background.shutdown(wait=False, cancel_futures=True)
        self._engines.end_all()

    def _end_idle(self) -> None:
        while not self._closing.wait(IDLE_CHECK_S):
            self._engines.end_idle()

    # --- asking -----------------------------------------------------------------------------------------------------

    def target(self, model_id: str) -> Target:
        """What a model id names: a base model, a custom model, provisioned throughput or a deployment; ARN or name.

        Raises NotFound, and Invalid for what is there but not in service.
        """
        if model_id in self.trials:
            return Target(self.trials[model_id], None)
        kind, _ = resource_of(model_id)
        if kind in ("", "provisioned-model"):
            provisioned = self.find_provisioned(model_id)
            if provisioned is not None:
                return self._provisioned_target(provisioned)
        if kind in ("", "custom-model-deployment"):
            deployment = self.find_deployment(model_id)
            if deployment is not None:
                if deployment.status != "Active":
                    raise Invalid(
                        f"the deployment {deployment.name} is {deployment.status}. {deployment.failure}".strip()
                    )
                return Target(self._registry.weights(deployment.model_arn), None)
        try:
            return Target(self._registry.weights(model_id), None)
        except NotFound as error:
            raise NotFound(
                f"Could not resolve the foundation model from the model identifier {model_id!r}. {error.message}"
            ) from None

    def _provisioned_target(self, provisioned: Provisioned) -> Target:
        if provisioned.status not in ("InService", "Updating"):
            raise Invalid(
                f"the provisioned model {provisioned.name} is {provisioned.status}. {provisioned.failure}".strip()
            )
        return Target(self._registry.weights(provisioned.model_arn), provisioned.id)

    def warm_up(self, model_id: str) -> None:
        """Start the engine of a model and load its adapter. Raises as `target` and `generate` do."""
        weights = self.target(model_id).weights
        for _ in self._engines.ask(weights.folder, Load(str(weights.adapter) if weights.adapter else None)):
            pass

    def embed(self, target: Target, texts: list[list[int]]) -> list[list[float]]:
        """The vectors of some texts' tokens. Raises as `generate` does, and Invalid when the model makes none."""
        if target.pooling is None:
            raise Invalid("this is a language model; it makes no embeddings")
        with self._engines.of(target.folder).capacity.place(target.holder):
            *_, last = self._engines.ask(target.folder, Embed(texts))
        return last.vectors

    def score(self, target: Target, tokens: list[int], places: list[int]) -> float:
        """What the tokens at these places (from 1) cost after those before them, summed (nats). Raises as `generate` does."""
        adapter = str(target.weights.adapter) if target.weights.adapter else None
        with self._engines.of(target.folder).capacity.place(target.holder, str(adapter)):
            return self._score(target.folder, Score(tokens, places, adapter))

    def generate(self, target: Target, request: Generate) -> Iterator[Reply]:
        """The engine's replies for a request on a target; leaving early cancels it.

        Raises Throttled, NotReady, ModelFailed, ModelTimedOut.
        """
        if target.pooling is not None:
            raise Invalid(
                "this is an embedding model; it does not answer, it makes vectors (InvokeModel with inputText)"
            )
        adapter = target.weights.adapter
        request = msgspec.structs.replace(
            request, adapter=str(adapter) if adapter else None, provisioned=target.holder is not None
        )
        with self._engines.of(target.folder).capacity.place(target.holder, str(adapter)):
            yield from self._engines.ask(target.folder, request)

    # --- provisioned throughput and deployments ---------------------------------------------------------------------

    def find_provisioned(self, identifier: str) -> Provisioned | None:
        """By ARN, id or name."""
        found = self.provisioned.get(id_of(identifier)) or self.provisioned.named(identifier)
        return found if found is not None and identifier in (found.arn, found.id, found.name) else None

    def find_deployment(self, identifier: str) -> Deployment | None:
        """By ARN, id or name."""
        found = self.deployments.get(id_of(identifier)) or self.deployments.named(identifier)
        return found if found is not None and identifier in (found.arn, found.id, found.name) else None

    def bring_up(self, provisioned: Provisioned) -> None:
        """Load a provisioned model's weights in the background; then it is InService, or Failed with the reason."""

        def finish(failure: str, certificate: Certificate | None) -> None:
            def change(current: Provisioned) -> Provisioned:
                if failure and current.model_arn != current.desired_model_arn:  # a failed update keeps the old model
                    return msgspec.structs.replace(
                        current,
                        status="InService",
                        failure=failure,
                        desired_model_arn=current.model_arn,
                        modified_at=now(),
                    )
                status = "Failed" if failure else "InService"
                arn = current.model_arn if failure else current.desired_model_arn
                return msgspec.structs.replace(
                    current, status=status, failure=failure, model_arn=arn, certificate=certificate, modified_at=now()
                )

            changed = self.provisioned.change(provisioned.id, change)
            if changed is None or changed.model_arn != provisioned.model_arn:
                self.release(provisioned)  # deleted meanwhile, or moved to another model's engine
            if changed is not None and changed.status == "InService":
                self._reserve(changed)

        self._load(provisioned.desired_model_arn, finish)

    def deploy(self, deployment: Deployment) -> None:
        """Load a deployment's adapter in the background; then it is Active, or Failed with the reason."""
        wanted = deployment.update_model_arn or deployment.model_arn

        def finish(failure: str, certificate: Certificate | None) -> None:
            def change(current: Deployment) -> Deployment:
                if not current.update_model_arn:
                    status = "Failed" if failure else "Active"
                    return msgspec.structs.replace(
                        current, status=status, failure=failure, certificate=certificate, modified_at=now()
                    )
                status = "UpdateFailed" if failure else "UpdateCompleted"
                arn = current.model_arn if failure else wanted
                return msgspec.structs.replace(
                    current,
                    model_arn=arn,
                    update_status=status,
                    failure=failure,
                    certificate=current.certificate if failure else certificate,
                    update_model_arn="",
                    modified_at=now(),
                )

            self.deployments.change(deployment.id, change)

        self._load(wanted, finish)

    def _load(self, model_arn: str, finish: Callable[[str, Certificate | None], None]) -> None:
        def load() -> None:
            try:
                certificate = self.prove(model_arn)
            except OutcropError as error:
                finish(error.message, None)
            except Exception as error:  # an edge: the background has nobody else to tell
                log.exception("loading %s failed", model_arn)
                finish(f"{type(error).__name__}: {error}", None)
            else:
                finish("", certificate)

        self._background.submit(load)

    def prove(self, model_arn: str) -> Certificate:
        """Load a model, and see that what is served is what was trained: its renderer is the one it was trained with, its
        probes cost what they cost the trainer, and not what they cost the base.

        Raises Invalid with what is wrong, and what the engine raises.
        """
        weights = self._registry.weights(model_arn)
        adapter = str(weights.adapter) if weights.adapter else None
        self._wait_for(weights.folder, adapter)
        renderer = self._registry.check_renderer(weights)
        probes = read_probes(weights.adapter or weights.folder)
        if not probes:
            return Certificate("unproven", renderer)

        def costs(adapter: str | None) -> list[float]:
            return [self._score(weights.folder, Score(probe.tokens, probe.learned, adapter)) for probe in probes]

        verdict = judge(probes, costs(adapter), costs(None) if adapter else None, renderer, self._engines.rounds)
        if isinstance(verdict, str):
            raise Invalid(f"the deployment is not what was trained: {verdict}")
        return verdict

    def _wait_for(self, folder: Path, adapter: str | None) -> None:
        deadline = time.monotonic() + LOADS_WITHIN_S
        while True:
            try:
                for _ in self._engines.ask(folder, Load(adapter)):
                    pass
            except NotReady:
                if time.monotonic() > deadline or self._closing.is_set():
                    raise
            else:
                return

    def _score(self, folder: Path, request: Score) -> float:
        *_, last = self._engines.ask(folder, request)
        assert last.loss is not None
        return last.loss

    def free_units(self, model_arn: str) -> int:
        """Model units that can still be reserved at a model's engine."""
        folder = self._registry.weights(model_arn).folder
        holders = [one for one in self.provisioned.all() if one.status != "Failed"]
        taken = sum(one.units for one in holders if self._registry.weights(one.desired_model_arn).folder == folder)
        return self._engines.slots - taken

    def _reserve(self, provisioned: Provisioned) -> None:
        folder = self._registry.weights(provisioned.model_arn).folder
        self._engines.of(folder).capacity.reserve(provisioned.id, provisioned.units)

    def release(self, provisioned: Provisioned) -> None:
        """Give a provisioned throughput's places back."""
        with contextlib.suppress(NotFound):
            folder = self._registry.weights(provisioned.model_arn).folder
            self._engines.of(folder).capacity.reserve(provisioned.id, 0)

    def users_of(self, model_arn: str) -> list[str]:
        """Names of the provisioned throughput and deployments that need a model."""
        users = [one.name for one in self.provisioned.all() if model_arn in (one.model_arn, one.desired_model_arn)]
        return users + [
            one.name for one in self.deployments.all() if model_arn in (one.model_arn, one.update_model_arn)
        ]
