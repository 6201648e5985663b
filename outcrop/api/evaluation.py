"""Evaluation jobs."""

import json
from typing import Any

from outcrop.api import jobs
from outcrop.api.call import Call
from outcrop.api.lists import page
from outcrop.api.tags import read_tags
from outcrop.clock import now
from outcrop.errors import Conflict, Invalid, NotFound, OutcropError, Unsupported
from outcrop.evaluation import judge, programmatic
from outcrop.evaluation.likeness import check_ready
from outcrop.jobs import Job
from outcrop.jobs.job import ENDED
from outcrop.names import short_id

Request = dict[str, Any]
KIND = "evaluation"
BUILT_IN_SETS = ("Builtin.Bold", "Builtin.RealToxicityPrompts", "Builtin.T-REx", "Builtin.WikiText2", "Builtin.Gigaword", "Builtin.BoolQ", "Builtin.NaturalQuestions",
                 "Builtin.TriviaQA", "Builtin.WomensEcommerceClothingReviews")  # fmt: skip
DEFAULT_TOKENS = 512


def create_evaluation_job(request: Request, call: Call) -> Request:
    """Score the responses of one or two models, or responses that the rows bring, by computed metrics and by a judge.

    Everything that can be known now is looked at: models, metrics, placeholders, parameters, places. The rows are read by the job.

    Raises Conflict, Invalid, NotFound, Unsupported.
    """
    return {"jobArn": call.once(KIND, request, lambda: _create(request, call))}


def _create(request: Request, call: Call) -> str:
    if request.get("customerEncryptionKeyId"):
        raise Unsupported("customerEncryptionKeyId: Outcrop does not encrypt objects with KMS keys; leave it out")
    config, inference = request["evaluationConfig"], request["inferenceConfig"]
    if "human" in config:
        raise Unsupported(
            "evaluationConfig.human: Outcrop has no work force; use automated with an evaluator model, or outcrop compare"
        )
    if "ragConfigs" in inference or request.get("applicationType") == "RagEvaluation":
        raise Unsupported(
            "RAG evaluation needs knowledge bases, which Outcrop does not have yet; evaluate models with inferenceConfig.models"
        )
    automated = config.get("automated")
    if not automated or not inference.get("models"):
        raise Invalid("evaluationConfig.automated and inferenceConfig.models are needed")
    by = _evaluator(automated.get("evaluatorModelConfig"), "evaluationConfig.automated.evaluatorModelConfig", call)
    custom, custom_by = _custom(automated.get("customMetricConfig"), call)
    models = [_model(one, number, call) for number, one in enumerate(inference["models"])]
    if len({model["id"] for model in models}) < len(models):
        raise Invalid("inferenceConfig.models names the same model twice")
    datasets = [_dataset(one, number, by, custom) for number, one in enumerate(automated["datasetMetricConfigs"])]
    if len({one["name"] for one in datasets}) < len(datasets):
        raise Invalid("evaluationConfig.automated.datasetMetricConfigs has two data sets of the same name")
    jobs.check_output(request["outputDataConfig"]["s3Uri"], "outputDataConfig.s3Uri", call)
    identifier = short_id()
    job = Job(
        id=identifier, arn=call.names.arn("evaluation-job", identifier), name=request["jobName"], kind=KIND, created_at=now(),
        modified_at=now(), tags=read_tags(request.get("jobTags")),
        request={
            "description": request.get("jobDescription"), "role": request["roleArn"], "application": request.get("applicationType", "ModelEvaluation"),
            "config": config, "inference": inference, "output_uri": request["outputDataConfig"]["s3Uri"], "datasets": datasets, "models": models,
            "judge": by, "custom": custom, "custom_judge": custom_by,
        },
    )  # fmt: skip
    return jobs.submit(job, call)


def _evaluator(config: Request | None, field: str, call: Call) -> str:
    """The judge's id; "" without one."""
    models = (config or {}).get("bedrockEvaluatorModels") or []
    if not models:
        return ""
    identifier = str(models[0]["modelIdentifier"])
    if call.service.serving.target(identifier).pooling is not None:
        raise Invalid(f"{field}: {identifier} is an embedding model; it cannot judge")
    return identifier


def _custom(config: Request | None, call: Call) -> tuple[list[Request], str]:
    """Custom metrics as the job reads them, and their judge."""
    if config is None:
        return [], ""
    found = []
    for number, one in enumerate(config["customMetrics"]):
        definition = one.get("customMetricDefinition")
        if definition is None:
            raise Invalid(f"customMetricConfig.customMetrics.{number} has no customMetricDefinition")
        scale = []
        for entry in definition.get("ratingScale") or []:
            value = entry["value"]
            if len(value) != 1:
                raise Invalid(
                    f"the metric {definition['name']}: a value of ratingScale is stringValue or floatValue, one of them"
                )
            scale.append((entry["definition"], value.get("floatValue", value.get("stringValue"))))
        if len({type(value) for _, value in scale}) > 1:
            raise Invalid(
                f"the metric {definition['name']}: the values of ratingScale are all stringValue or all floatValue"
            )
        if definition["name"] in judge.BUILT_IN or definition["name"].startswith(("Builtin.", programmatic.OWN)):
            raise Invalid(
                f"the metric {definition['name']}: a custom metric's name must not begin with Builtin. or {programmatic.OWN}"
            )
        judge.custom(definition["name"], definition["instructions"], scale)
        found.append(
            {
                "name": definition["name"],
                "instructions": definition["instructions"],
                "scale": scale,
                "definition": definition,
            }
        )
    if len({one["name"] for one in found}) < len(found):
        raise Invalid("customMetricConfig.customMetrics has two metrics of the same name")
    return found, _evaluator(config["evaluatorModelConfig"], "customMetricConfig.evaluatorModelConfig", call)


def _model(one: Request, number: int, call: Call) -> Request:
    field = f"inferenceConfig.models.{number}"
    source = one.get("precomputedInferenceSource")
    if source is not None:
        return {"id": source["inferenceSourceIdentifier"], "is_precomputed": True}
    model = one.get("bedrockModel")
    if model is None:
        raise Invalid(f"{field} has neither bedrockModel nor precomputedInferenceSource")
    target = call.service.serving.target(model["modelIdentifier"])
    if target.pooling is not None:
        raise Invalid(f"{field}: {model['modelIdentifier']} is an embedding model; it does not answer")
    return {
        "id": model["modelIdentifier"],
        "is_precomputed": False,
        "sampling": _sampling(model.get("inferenceParams"), f"{field}.bedrockModel.inferenceParams"),
    }


def _sampling(text: str | None, field: str) -> Request:
    """maxTokens, temperature, topP and stopSequences from a JSON string, plain or under inferenceConfig. Raises Invalid."""
    try:
        given = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{field} is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise Invalid(
            f'{field} must be a JSON object, such as {{"inferenceConfig": {{"maxTokens": 512, "temperature": 0}}}}'
        )
    plain = given.get("inferenceConfig", given)
    unknown = (set(plain) if isinstance(plain, dict) else {"inferenceConfig"}) - {
        "maxTokens",
        "temperature",
        "topP",
        "stopSequences",
    }
    unknown |= set(given) - {"inferenceConfig", "additionalModelRequestFields"} if "inferenceConfig" in given else set()
    if unknown or given.get("additionalModelRequestFields"):
        name = sorted(unknown)[0] if unknown else "additionalModelRequestFields"
        raise Invalid(
            f"{field}: {name} is not known; known are inferenceConfig with maxTokens, temperature, topP, stopSequences"
        )
    found = {
        "max_tokens": plain.get("maxTokens", DEFAULT_TOKENS),
        "temperature": plain.get("temperature", 0.0),
        "top_p": plain.get("topP", 1.0),
        "stop": plain.get("stopSequences", []),
    }
    for name, kind, low, high in (
        ("max_tokens", int, 1, 1_000_000),
        ("temperature", (int, float), 0, 2),
        ("top_p", (int, float), 0, 1),
    ):
        value = found[name]
        if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
            raise Invalid(f"{field}: {name} is {value!r}; it must be a number from {low} to {high:,}")
    if not isinstance(found["stop"], list) or not all(isinstance(one, str) and one for one in found["stop"]):
        raise Invalid(f"{field}: stopSequences must be a list of texts that are not empty")
    return found


def _dataset(one: Request, number: int, by: str, custom: list[Request]) -> Request:
    field = f"evaluationConfig.automated.datasetMetricConfigs.{number}"
    uri = (one["dataset"].get("datasetLocation") or {}).get("s3Uri")
    if uri is None:
        hint = (
            "Bedrock's built-in data sets do not come with Outcrop"
            if one["dataset"]["name"].startswith("Builtin.")
            else "the data set has no place"
        )
        raise Unsupported(f"{field}.dataset: {hint}; put rows in S3 and name them with datasetLocation.s3Uri")
    names = [entry["name"] for entry in custom]
    for name in one["metricNames"]:
        if name in names:
            continue
        if name in judge.BUILT_IN:
            if not by:
                raise Invalid(
                    f"{field}: {name} needs a judge; name one with evaluatorModelConfig.bedrockEvaluatorModels"
                )
            continue
        check_ready(name.removeprefix(programmatic.OWN))
        metric = programmatic.find(one["taskType"], name)
        if isinstance(metric, str):
            kinds = f"; with a judge {', '.join(judge.BUILT_IN)}" if by else ""
            raise (Unsupported if name.startswith("Builtin.") else Invalid)(f"{field}: {name} {metric}{kinds}")
    if len(set(one["metricNames"])) < len(one["metricNames"]):
        raise Invalid(f"{field}.metricNames names a metric twice")
    return {"name": one["dataset"]["name"], "uri": uri, "task": one["taskType"], "metrics": one["metricNames"]}


def get_evaluation_job(request: Request, call: Call) -> Request:
    """A job as it was asked for, and how it stands."""
    job = _find(request["jobIdentifier"], call)
    return {
        "jobName": job.name, "status": job.status, "jobArn": job.arn, "jobDescription": job.request["description"], "roleArn": job.request["role"],
        "jobType": "Automated", "applicationType": job.request["application"], "evaluationConfig": job.request["config"],
        "inferenceConfig": job.request["inference"], "outputDataConfig": {"s3Uri": job.request["output_uri"]}, "creationTime": job.created_at,
        "lastModifiedTime": job.modified_at, "failureMessages": [job.failure] if job.failure else None,
    }  # fmt: skip


def list_evaluation_jobs(request: Request, call: Call) -> Request:
    """Evaluation jobs, newest first."""
    found = [
        job
        for job in call.service.jobs.all(KIND)
        if request.get("applicationTypeEquals") in (None, job.request["application"])
    ]
    shown, following = page(found, request, lambda job: job.status)
    return {"jobSummaries": [_summary(job) for job in shown], "nextToken": following}


def _summary(job: Job) -> Request:
    models = [model["id"] for model in job.request["models"] if not model["is_precomputed"]]
    brought = [model["id"] for model in job.request["models"] if model["is_precomputed"]]
    by, custom_by = job.request["judge"], job.request["custom_judge"]
    return {
        "jobArn": job.arn, "jobName": job.name, "status": job.status, "creationTime": job.created_at, "jobType": "Automated",
        "evaluationTaskTypes": list(dict.fromkeys(one["task"] for one in job.request["datasets"])), "modelIdentifiers": models,
        "evaluatorModelIdentifiers": [by] if by else None, "customMetricsEvaluatorModelIdentifiers": [custom_by] if custom_by else None,
        "inferenceConfigSummary": {"modelConfigSummary": {"bedrockModelIdentifiers": models, "precomputedInferenceSourceIdentifiers": brought}},
        "applicationType": job.request["application"],
    }  # fmt: skip


def stop_evaluation_job(request: Request, call: Call) -> Request:
    """Stop; what has been answered is written out. Raises Conflict when it is over."""
    jobs.stop(_find(request["jobIdentifier"], call), call)
    return {}


def batch_delete_evaluation_job(request: Request, call: Call) -> Request:
    """Delete jobs that are over; of those that are not, or are not there, it says so one by one. What they wrote stays in S3."""
    errors, deleted = [], []
    for identifier in dict.fromkeys(request["jobIdentifiers"]):
        try:
            job = _find(identifier, call)
            if job.status not in ENDED:
                raise Conflict(f"The job {job.name} is {job.status}; stop it first")
        except OutcropError as error:
            errors.append({"jobIdentifier": identifier, "code": error.code, "message": error.message})
            continue
        call.service.jobs.records.remove(job.id)
        deleted.append({"jobIdentifier": identifier, "jobStatus": "Deleting"})
    return {"errors": errors, "evaluationJobs": deleted}


def _find(identifier: str, call: Call) -> Job:
    job = call.service.jobs.find(KIND, identifier)
    if job is None:
        raise NotFound(f"There is no evaluation job {identifier!r}")
    return job
