"""Guards against fooling oneself: rows that a model was trained on, and rows that have judged many arms before."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from outcrop import evaluation
from outcrop.clock import now
from outcrop.datasets.conversion import read_any
from outcrop.datasets.source import open_file
from outcrop.errors import Invalid, NotFound
from outcrop.evaluation import Case
from outcrop.evaluation.significance import LEVEL
from outcrop.names import id_of, short_id
from outcrop.registry import CustomModel, Registry
from outcrop.serving.deployments import Deployment, Provisioned
from outcrop.storage import Storage, sha256_of

# Evaluation rows that training data has are listed up to so many.
LISTED = 20
# Hashes of a set of rows that are remembered.
SKETCHED = 200


class Look(msgspec.Struct, frozen=True):
    """That these rows have been used to judge these arms: what a later comparison on them must be corrected for. `rows` is their sketch,
    `arms` has each arm's name by what it is."""

    id: str
    rows: list[str]
    at: datetime
    arms: dict[str, str]

    @property
    def name(self) -> str:
        """Unique, as records want it."""
        return self.id


def overlap_with_training(storage: Storage, registry: Registry, model: str, cases: Sequence[Case]) -> list[str]:
    """How much of an evaluation a custom model was trained on, as far as its training file is still there; [] for nothing."""
    custom = custom_behind(storage, registry, model)
    if custom is None:
        return []
    data = custom.lineage.get("training_data") or {}
    try:
        trained = open_file(storage.objects, data.get("uri") or custom.training_uri)
        rows = [content for _, content, _ in read_any(trained)]
    except (Invalid, NotFound) as error:
        return [
            f"{custom.name}: its training data cannot be read any more ({error.message}); whether it holds rows of the evaluation is not known"
        ]
    is_changed = data.get("sha256") and sha256_of(trained.path) != data["sha256"]
    shared = evaluation.overlap(cases, rows)
    if not shared.all:
        return []
    lines = ", ".join(str(cases[number].line) for number in sorted(shared.all)[:LISTED])
    return [
        f"{custom.name} was trained on {len(shared.same)} of the {len(cases)} rows word for word, and on {len(shared.near)} nearly"
        f"{' (the file has changed since)' if is_changed else ''}: what it does there is memory. "
        f"Lines {lines}{', ...' if len(shared.all) > LISTED else ''}"
    ]


def earlier_looks(storage: Storage, cases: Sequence[Case], arms: Mapping[str, str]) -> list[str]:
    """Whether most of these rows have judged other arms before; this look is remembered. `arms` has names by what makes an arm another one."""
    looks = storage.records.collection("evaluation-look", Look)
    rows = sketch(cases)
    earlier = [look for look in looks.all() if are_the_same(look.rows, rows)]
    before = {key: name for look in earlier for key, name in look.arms.items() if key not in arms}
    if not any(arms.keys() <= look.arms.keys() for look in earlier):
        looks.add(Look(short_id(), rows, now(), dict(arms)))
    if not before:
        return []
    names = sorted(set(before.values()))
    return [
        f"these rows, or most of them, have judged {len(before)} other arm{'s' if len(before) > 1 else ''} before "
        f"({', '.join(names[:5])}{', ...' if len(names) > 5 else ''}): what is best of many on the same rows looks better than it is. "
        f"A p value below {LEVEL / (len(before) + 1):.2g} would hold for all of them; fresh rows are better"
    ]


def sketch(cases: Sequence[Case]) -> list[str]:
    """The smallest hashes of the questions and references: by them sets of rows are known to share most of theirs (Broder, 1997)."""
    keys = {
        hashlib.sha256(f"{evaluation.question_of(case)}\0{case.reference}".encode()).hexdigest()[:16] for case in cases
    }
    return sorted(keys)[:SKETCHED]


def are_the_same(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether most rows of the smaller of two sets are in the other one, too, as far as their sketches reach."""
    if not one or not other:
        return False
    top = min(one[-1] if len(one) == SKETCHED else "g", other[-1] if len(other) == SKETCHED else "g")
    mine, yours = ({key for key in keys if key <= top} for keys in (one, other))
    return len(mine & yours) > min(len(mine), len(yours)) / 2


def custom_behind(storage: Storage, registry: Registry, model: str) -> CustomModel | None:
    """The custom model that a name, an ARN, a deployment or provisioned throughput leads to, if any."""
    deployments = storage.records.collection("custom-model-deployment", Deployment)
    if (deployed := deployments.get(id_of(model)) or deployments.named(model)) is not None:
        return registry.find_custom(deployed.model_arn)
    throughput = storage.records.collection("provisioned-model", Provisioned)
    if (provisioned := throughput.get(id_of(model)) or throughput.named(model)) is not None:
        return registry.find_custom(provisioned.model_arn)
    return registry.find_custom(model)
