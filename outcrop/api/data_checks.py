"""A check of training data by itself, an extension: what a job's first phase would find, without the job."""

from typing import Any

import msgspec

from outcrop import datasets, hyperparameters
from outcrop.api.call import Call, Service
from outcrop.datasets.formats import PLAIN_TEXT, SUPERVISED, Problem
from outcrop.datasets.scan import KEPT
from outcrop.datasets.source import find, open_file
from outcrop.errors import Invalid

Request = dict[str, Any]
TYPES = ("FINE_TUNING", "CONTINUED_PRE_TRAINING")


class _S3(msgspec.Struct, forbid_unknown_fields=True):
    s3Uri: str


class _Validators(msgspec.Struct):
    validators: list[_S3] = []


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be checked, in CreateModelCustomizationJob's words. Without a base no tokens are counted."""

    trainingDataConfig: _S3
    validationDataConfig: _Validators = msgspec.field(default_factory=_Validators)
    evaluationDataConfig: list[_S3] = []
    baseModelIdentifier: str = ""
    customizationType: str = "FINE_TUNING"
    hyperParameters: dict[str, str] = {}
    family: str = ""


def create_data_check(request: Request, call: Call) -> Request:
    """Check a training file and those held out; answers with the verdict and every finding. Nothing is spent or kept.

    Raises Invalid, NotFound.
    """
    try:
        asked = msgspec.convert(request, Asked)
    except msgspec.ValidationError as error:
        raise Invalid(str(error)) from None
    objects = call.storage.objects
    files = datasets.Files(
        find(objects, asked.trainingDataConfig.s3Uri),
        tuple(find(objects, one.s3Uri) for one in asked.validationDataConfig.validators),
        tuple(find(objects, one.s3Uri) for one in asked.evaluationDataConfig),
    )
    return check(files, asked, call.service).described()


def training(uri: str) -> _S3:
    """A training file as a request names it."""
    return _S3(uri)


def check_files(train: str, validation: list[str], evaluation: list[str], service: Service) -> datasets.Files:
    """The files that a command names, in S3 or on this machine."""
    objects = service.storage.objects
    return datasets.Files(
        open_file(objects, train), tuple(open_file(objects, name) for name in validation),
        tuple(open_file(objects, name) for name in evaluation),
    )  # fmt: skip


def check(
    files: datasets.Files, asked: Asked, service: Service, kept: int = KEPT, fewest: int | None = None
) -> datasets.Preflight:
    """The check itself, with the installation's limits; `fewest` rows in the place of its own. Raises Invalid, NotFound."""
    if asked.customizationType not in TYPES:
        raise Invalid(f"customizationType is {asked.customizationType!r}; it must be {' or '.join(TYPES)}")
    is_text = asked.customizationType == "CONTINUED_PRE_TRAINING"
    base, wrong = None, ""
    if asked.baseModelIdentifier:
        parent = service.registry.find_custom(asked.baseModelIdentifier)
        model = service.registry.base(parent.base if parent else asked.baseModelIdentifier)
        most_tokens = model.context
        try:
            options = hyperparameters.read(asked.hyperParameters, model.num_parameters, asked.customizationType)
            most_tokens = min(most_tokens, int(options["maxTokens"] or most_tokens))
        except Invalid as error:
            wrong = error.message
        base = datasets.Base(service.registry.weights(asked.baseModelIdentifier).folder, most_tokens)
    found = datasets.preflight(
        files, PLAIN_TEXT if is_text else SUPERVISED, datasets.limits_of(service.settings, is_text, fewest), base, asked.hyperParameters,
        asked.family, kept=kept,
    )  # fmt: skip
    if wrong:
        found.add(Problem(0, "", wrong, kind="hyperparameter"))
    return found
