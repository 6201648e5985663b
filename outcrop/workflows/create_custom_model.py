"""From a folder in S3 to a custom model."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec

from outcrop.clock import now
from outcrop.errors import Invalid, OutcropError
from outcrop.jobs import Job, Tell
from outcrop.registry import CustomModel, Registry
from outcrop.registry.base_models import count_parameters, describe
from outcrop.registry.intake import refuse_pickles
from outcrop.rendering import Renderer
from outcrop.storage import Storage
from outcrop.workflows.folders import copy_folder


@dataclass(frozen=True)
class CreateCustomModel:
    """The work of CreateCustomModel."""

    storage: Storage
    registry: Registry

    def __call__(self, job: Job, tell: Tell) -> None:
        """Copy, check, register. The model's record ends Active, or Failed with the reason."""
        identifier, uri = job.request["model"], job.request["uri"]
        folder = self.storage.run_folder(job.id) / "weights"
        try:
            copy_folder(self.storage, uri, folder)
            refuse_pickles(folder)
            fields = self._adapter(folder) if (folder / "adapter_config.json").is_file() else self._whole(folder)
            self.storage.keep_artifact(identifier, folder)
        except OutcropError as error:
            self._change(identifier, status="Failed", failure=f"{uri}: {error.message}")
            raise
        except Exception as error:  # an edge: whatever the folder holds, the model must not stay Creating
            self._change(identifier, status="Failed", failure=f"{uri} cannot be read: {type(error).__name__}: {error}")
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self._change(identifier, status="Active", **fields)

    def _change(self, identifier: str, **fields: str) -> None:
        def change(model: CustomModel) -> CustomModel:
            return msgspec.structs.replace(model, **fields)

        self.registry.custom.change(identifier, change)

    def _adapter(self, folder: Path) -> dict[str, str]:
        """Adapters in PEFT's layout. Raises Invalid when the base is unknown or the file is damaged."""
        try:
            config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
            named = str(config["base_model_name_or_path"])
        except (ValueError, KeyError, TypeError) as error:
            raise Invalid(f"adapter_config.json cannot be read: {error!r}") from None
        base = self.registry.base_of_adapter(named)
        count_parameters(folder)
        return {"base": base.id, "kind": "adapter"}

    def _whole(self, folder: Path) -> dict[str, str]:
        """A whole model. It becomes its own base in the catalogue's terms: the id is made from the model's."""
        described = describe("outcrop.imported-v1:0", folder, "", now())
        Renderer(folder)
        imported = [self.registry.find_base(one.arn) for one in self.registry.imported.all()]
        for model in (*self.registry.base_models(), *(one for one in imported if one is not None)):
            if model.architecture == described.architecture and model.num_parameters == described.num_parameters:
                return {"base": model.id, "kind": "full"}
        raise Invalid(
            f"a {described.architecture} of {described.num_parameters:,} parameters is no tuned form of any base model in "
            "the catalogue; add its base with `outcrop models add` first"
        )
