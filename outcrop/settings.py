"""The service's settings: one table, read once at start; nothing else reads the environment.

Each setting may be given as an environment variable (`OUTCROP_PORT`), or in `outcrop.toml` in the home folder or the
current one. The environment wins.
"""

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource


class Settings(BaseSettings):
    """What an installation may change."""

    model_config = SettingsConfigDict(env_prefix="OUTCROP_", extra="forbid", frozen=True)

    home: Annotated[Path, Field(description="folder of records, objects, weights and keys")] = Path("~/.outcrop")
    host: Annotated[str, Field(description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Field(description="port to listen on; 0 takes a free one", ge=0, le=65535)] = 8787
    tls: Annotated[bool, Field(description="serve https with a certificate made in the home folder")] = False
    open: Annotated[bool, Field(description="accept any credentials; on loopback only")] = False
    region: Annotated[str, Field(description="region of requests that are not signed")] = "us-east-1"
    account: Annotated[str, Field(description="account number in ARNs", pattern="^[0-9]{12}$")] = "123456789012"
    workers: Annotated[int, Field(description="training jobs that run at once", ge=0, le=64)] = 1
    training_threads: Annotated[
        int, Field(description="threads of a training job; 0 takes the processors that are idle when it begins", ge=0)
    ] = 0
    training_processes: Annotated[
        int,
        Field(description="processes of one training job, each with its part of every step; one a GPU", ge=1, le=64),
    ] = 1
    training_device: Annotated[
        str, Field(description="what trains: cpu, or cuda (written, not yet tried on a GPU)", pattern="^(cpu|cuda)$")
    ] = "cpu"
    training_memory_gb: Annotated[
        float, Field(description="memory that a training job may take, in GB; 0 takes what is free", ge=0)
    ] = 0
    rows_cache_gb: Annotated[
        float, Field(description="rendered training data that is kept for the next job, in GB", ge=0)
    ] = 4
    engine: Annotated[
        str,
        Field(
            description="what answers: torch, vllm, or echo for trying out clients without weights",
            pattern="^(torch|vllm|echo)$",
        ),
    ] = "torch"
    engine_threads: Annotated[
        int, Field(description="threads of an engine; 0 takes one for small models, else all it may use", ge=0)
    ] = 0
    engine_slots: Annotated[int, Field(description="requests that an engine answers at once", ge=1, le=512)] = 16
    engine_weights: Annotated[
        str,
        Field(
            description="number format of an engine's weights: float32, or int8 for a quarter of the bytes",
            pattern="^(float32|int8)$",
        ),
    ] = "float32"
    engine_cache_gb: Annotated[
        float,
        Field(description="memory of an engine's key-value cache, in GB; 0 takes a quarter of what is free", ge=0),
    ] = 0
    engine_adapters_gb: Annotated[
        float, Field(description="memory of an engine's adapters, in GB; 0 takes a tenth of what is free", ge=0)
    ] = 0
    engine_pause_s: Annotated[
        float, Field(description="reading a prompt holds up other answers' next tokens for so long at most", gt=0)
    ] = 0.25
    engine_vllm: Annotated[
        str, Field(description="vLLM's command, from its own environment, or the address of a server that runs")
    ] = "vllm"
    engine_idle_s: Annotated[
        float, Field(description="an engine without provisioned capacity ends after this", gt=0)
    ] = 900
    log_delivery_s: Annotated[
        float, Field(description="invocation logs are delivered to S3 after so many seconds at most", gt=0)
    ] = 30
    teacher_key: Annotated[
        str, Field(description="API key of a teacher behind an OpenAI-shaped endpoint", repr=False)
    ] = ""
    min_training_rows: Annotated[int, Field(description="fewest rows of a training file", ge=1)] = 8
    min_distillation_prompts: Annotated[
        int, Field(description="fewest valid prompts, or logged answers, of a distillation", ge=1)
    ] = 100
    max_training_rows: Annotated[int, Field(description="most rows of a training file", ge=1)] = 20_000
    max_validation_rows: Annotated[int, Field(description="most rows of a validation file", ge=1)] = 10_000
    max_pretraining_rows: Annotated[int, Field(description="most lines of continued pre-training", ge=1)] = 100_000
    max_training_bytes: Annotated[int, Field(description="largest training file", ge=1)] = 10 * 1024**3
    max_validation_bytes: Annotated[int, Field(description="largest validation file", ge=1)] = 1024**3

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is said on the command line, then the environment, then the files."""
        home = Path(os.environ.get("OUTCROP_HOME", "~/.outcrop")).expanduser()
        files = [path for path in (Path("outcrop.toml"), home / "outcrop.toml") if path.is_file()]
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=files))

    @property
    def folder(self) -> Path:
        """The home folder, with `~` written out."""
        return self.home.expanduser().absolute()

    @property
    def engine_options(self) -> dict[str, Any]:
        """The settings of engines, by the names that they have there."""
        taken = self.model_dump(include={name for name in type(self).model_fields if name.startswith("engine")})
        return {name.removeprefix("engine_").replace("engine", "kind"): value for name, value in taken.items()}


def markdown() -> str:
    """The table as documentation."""
    lines = ["| setting | environment | meaning | default |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        lines.append(f"| `{name}` | `OUTCROP_{name.upper()}` | {field.description} | `{field.default}` |")
    return "\n".join(lines) + "\n"
