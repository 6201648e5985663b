"""The registry: every model of an installation by whatever it may be called."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from outcrop.clock import now
from outcrop.errors import Conflict, Invalid, NotFound
from outcrop.names import base_model_id, id_of, resource_of, without_geography
from outcrop.registry.base_models import PEBBLE_FOLDER, PEBBLE_ID, BaseModel, check_id, describe
from outcrop.registry.custom_models import CustomModel
from outcrop.registry.data_sets import DataSet
from outcrop.registry.imported_models import ImportedModel
from outcrop.storage import Collection, Storage, Taken

# What an imported model's id begins with where it stands as a base model.
IMPORTED = "imported."


@dataclass(frozen=True)
class Weights:
    """All that an engine needs: a whole model's folder, and an adapter's on top of it or None."""

    model_id: str
    folder: Path
    adapter: Path | None


class Registry:
    """Base models and custom models."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._base = storage.records.collection("base-model", BaseModel)
        self.custom = storage.records.collection("custom-model", CustomModel)
        self.imported = storage.records.collection("imported-model", ImportedModel)
        self._data_sets = storage.records.collection("data-set", DataSet)

    # --- base models ------------------------------------------------------------------------------------------------

    def base_models(self) -> list[BaseModel]:
        """The catalogue: the starter model first, then what was added."""
        return [*self._bundled(), *self._base.all()]

    def find_base(self, identifier: str) -> BaseModel | None:
        """A base model by id or ARN, its own or an inference profile's, with or without a context suffix.

        An inference profile of a geography (`us.anthropic...`) is the model itself unless it has an alias of its own.
        """
        wanted = base_model_id(identifier)
        models = {model.id: model for model in self.base_models()}
        found = models.get(identifier) or models.get(wanted) or models.get(without_geography(wanted))
        return found or self._imported_base(identifier)

    def base(self, identifier: str) -> BaseModel:
        """The same. Raises NotFound that lists what there is."""
        model = self.find_base(identifier)
        if model is None:
            known = ", ".join(entry.id for entry in self.base_models())
            raise NotFound(
                f"There is no base model {identifier!r}. The catalogue has {known}; "
                f"add one with `outcrop models add` or give it this name with `outcrop models alias`"
            )
        return model

    def base_of_adapter(self, named: str) -> BaseModel:
        """The base that an adapter's config names, by its id or where its weights came from. Raises Invalid."""
        sources = (model for model in self.base_models() if model.source == named)
        base = self.find_base(named) or next(sources, None)
        if base is None:
            known = ", ".join(model.id for model in self.base_models())
            raise Invalid(
                f"adapter_config.json names the base {named!r}, which is not in the catalogue ({known}); add it, or set "
                "base_model_name_or_path to one of these ids"
            )
        return base

    def weights_of(self, model: BaseModel) -> Path:
        """Where a base model's weights lie, aliases followed."""
        return Path(self.base(model.alias_of).folder if model.alias_of else model.folder)

    def add_base(self, model_id: str, source: str) -> BaseModel:
        """Add a base model from a local folder, or download one from the hub by its id.

        Raises Invalid when the folder is not a usable model, Conflict when the id is in use.
        """
        check_id(model_id)
        if self.find_base(model_id) is not None:
            raise Conflict(f"there is already a model {model_id}; remove it first or choose another id")
        local = Path(source).expanduser()
        folder = local.absolute() if local.is_dir() else self._download(source)
        model = describe(model_id, folder, source, now())
        from outcrop.rendering import Renderer  # only here: the registry otherwise knows no tokens

        Renderer(folder)  # raises when the tokenizer or the chat template cannot be used
        self._base.add(model)
        return model

    def _download(self, source: str) -> Path:
        if "/" not in source or source.startswith((".", "/", "~")):
            raise Invalid(f"{source!r} is neither a folder on this machine nor a hub id such as owner/name")
        try:
            from huggingface_hub import snapshot_download
            from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
        except ImportError:
            raise Invalid("downloading needs huggingface_hub; install outcrop[train]") from None
        wanted = ["*.json", "*.jinja", "*.safetensors", "tokenizer.model", "LICENSE*", "README.md"]
        try:
            return Path(snapshot_download(source, allow_patterns=wanted))
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
            raise Invalid(f"{source} could not be downloaded: {error}") from None

    def alias_base(self, alias: str, target: str) -> BaseModel:
        """Let one id mean another's weights, so that a script that names it runs. Raises Conflict, NotFound."""
        check_id(alias)
        if any(model.id == alias for model in self.base_models()):
            raise Conflict(f"there is already a model {alias}; remove it first")
        model = self.base(target)
        entry = msgspec.structs.replace(
            model,
            id=alias,
            name=alias,
            provider=alias.partition(".")[0],
            alias_of=model.alias_of or model.id,
            added_at=now(),
        )
        self._base.add(entry)
        return entry

    def remove_base(self, identifier: str) -> None:
        """Take a base model out of the catalogue; its folder stays. Raises NotFound, Conflict when it is in use."""
        model = self.base(identifier)
        if model.id == PEBBLE_ID:
            raise Conflict(f"{PEBBLE_ID} comes with Outcrop and cannot be removed")
        users = self._tuned_from(model.id)
        users += [entry.id for entry in self.base_models() if entry.alias_of == model.id]
        if users:
            raise Conflict(f"{model.id} is needed by {', '.join(users[:5])}; delete them first")
        self._base.remove(model.id)

    @staticmethod
    def _bundled() -> list[BaseModel]:
        return [_pebble()] if (PEBBLE_FOLDER / "config.json").is_file() else []

    # --- imported models --------------------------------------------------------------------------------------------

    def find_imported(self, identifier: str) -> ImportedModel | None:
        """An imported model by ARN, id or name, or by the id that it has as a base model."""
        wanted = id_of(identifier).removeprefix(IMPORTED)
        model = self.imported.get(wanted) or self.imported.named(identifier)
        return None if model is None or (identifier.startswith("arn:") and model.arn != identifier) else model

    def _imported_base(self, identifier: str) -> BaseModel | None:
        """A whole imported model as a base model, to be tuned."""
        model = self.find_imported(identifier)
        if model is None or model.kind != "whole":
            return None
        return BaseModel(
            id=IMPORTED + model.id, name=IMPORTED + model.id, provider=IMPORTED.rstrip("."), source=model.source_uri,
            folder=str(self._storage.artifact(model.id)), num_parameters=model.num_parameters, context=model.context,
            architecture=model.architecture, added_at=model.created_at,
        )  # fmt: skip

    def _tuned_from(self, base: str) -> list[str]:
        """Names of the custom models and imported adapters that need a base model."""
        users = [model.name for model in self.custom.all() if model.base == base]
        return users + [model.name for model in self.imported.all() if model.base == base]

    def take_in(self, model: ImportedModel, files: Path) -> None:
        """Keep an imported model with its files; one that an earlier try has kept is replaced.

        Raises Conflict when its name is in use.
        """
        self._keep(self.imported, model, files, "an imported model")

    def _keep(self, place: Collection[Any], model: Any, files: Path, what: str) -> None:
        """Files and record of a model; one with its id, which an earlier try has kept, is replaced."""
        self._storage.keep_artifact(model.id, files)
        try:
            place.add(model)
        except Taken:
            if place.change(model.id, lambda _: model) is None:
                self._storage.drop_artifact(model.id)
                raise Conflict(f"there is already {what} {model.name!r}; choose another name") from None

    def delete_imported(self, model: ImportedModel) -> None:
        """Forget an imported model and remove its files. Raises Conflict while tuned models need it."""
        users = self._tuned_from(IMPORTED + model.id)
        if users:
            raise Conflict(f"The imported model {model.name} is needed by {', '.join(users[:5])}; delete them first")
        self.imported.remove(model.id)
        self._storage.drop_artifact(model.id)

    def check_renderer(self, weights: Weights) -> str:
        """The hash of what writes a model's prompts. Raises Invalid when it is not what the model was trained with."""
        from outcrop.rendering import Renderer

        present = Renderer(weights.folder).hash
        custom = self.find_custom(weights.model_id)
        trained = str(custom.lineage.get("renderer", "")) if custom is not None else ""
        if trained and trained != present:
            raise Invalid(
                f"tokenizer or chat template in {weights.folder} are not those that {custom.name if custom else ''} was trained "
                "with (their hashes differ); put the old files back, or tune again"
            )
        return present

    def context_of(self, weights: Weights) -> int | None:
        """Positions of the model that the weights are of; None when nobody knows."""
        for base in self.base_models():
            if self.weights_of(base) == weights.folder:
                return base.context
        imported = self.find_imported(weights.folder.name)
        if imported is not None:
            return imported.context
        custom = self.find_custom(weights.model_id)
        return self.base(custom.base).context if custom is not None else None

    # --- custom models ----------------------------------------------------------------------------------------------

    def find_custom(self, identifier: str) -> CustomModel | None:
        """A custom model by ARN, id or name."""
        model = self.custom.get(id_of(identifier)) or self.custom.named(identifier)
        if model is not None and identifier.startswith("arn:") and resource_of(identifier) != resource_of(model.arn):
            return None
        return model

    def custom_model(self, identifier: str) -> CustomModel:
        """The same. Raises NotFound."""
        model = self.find_custom(identifier)
        if model is None:
            raise NotFound(f"There is no custom model {identifier!r}")
        return model

    def register(self, model: CustomModel, weights: Path) -> None:
        """Keep a custom model with its folder of weights; one that is there already is replaced.

        Raises Conflict when its name is in use.
        """
        self._keep(self.custom, model, weights, "a custom model")

    def delete_custom(self, model: CustomModel) -> None:
        """Forget a custom model and remove its weights."""
        self.custom.remove(model.id)
        self._storage.drop_artifact(model.id)

    def weights(self, identifier: str) -> Weights:
        """What an engine loads for a base or custom model. Raises NotFound."""
        custom = self.find_custom(identifier)
        if custom is None:
            imported = self.find_imported(identifier)
            if imported is not None and imported.kind == "adapter":
                return Weights(
                    imported.arn, self.weights_of(self.base(imported.base)), self._storage.artifact(imported.id)
                )
            if imported is not None and imported.kind == "embedding":
                return Weights(imported.arn, self._storage.artifact(imported.id), None)
            base = self.base(identifier)
            return Weights(imported.arn if imported else base.id, self.weights_of(base), None)
        artifact = self._storage.artifact(custom.id)
        if custom.kind == "full":
            return Weights(custom.arn, artifact, None)
        below = self.weights(custom.parent or custom.base)
        return Weights(custom.arn, below.folder, artifact)

    # --- data sets --------------------------------------------------------------------------------------------------

    def keep_data_set(self, made: DataSet) -> None:
        """Remember what a file was made from; what was known of the same bytes is replaced."""
        self._data_sets.remove(made.id)
        self._data_sets.add(made)

    def find_data_set(self, sha256: str) -> DataSet | None:
        """What made the file with these bytes, if it was made here."""
        return self._data_sets.get(sha256)

    def complete(self, folder: Path, base: Path) -> None:
        """Put the tokenizer and template of a base model beside fully trained weights, so that they stand alone."""
        names = (
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
            "chat_template.json",
            "special_tokens_map.json",
        )
        for name in (*names, "generation_config.json"):
            if (base / name).is_file() and not (folder / name).exists():
                shutil.copy(base / name, folder / name)


_PEBBLE: list[BaseModel] = []


def _pebble() -> BaseModel:
    if not _PEBBLE:
        _PEBBLE.append(describe(PEBBLE_ID, PEBBLE_FOLDER, "bundled with Outcrop", now()))
    return _PEBBLE[0]
