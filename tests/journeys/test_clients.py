"""The other clients, and the other ways in: AWS CLI, the JavaScript SDK over HTTP/2, TLS, bearer keys, open mode."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.conftest import Outcrop, end, start

BASE = "outcrop.pebble-v1:0"


def aws(outcrop: Outcrop, *arguments: str) -> str:
    done = subprocess.run(
        ["aws", *arguments], env=outcrop.environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_line_moves_files_and_asks(outcrop: Outcrop, tmp_path: Path) -> None:
    big = tmp_path / "big.bin"
    big.write_bytes(os.urandom(9 << 20))  # above the size from which the CLI uploads in parts
    aws(outcrop, "s3", "mb", "s3://from-cli")
    aws(outcrop, "s3", "cp", str(big), "s3://from-cli/dir/big.bin", "--no-progress")
    assert "PRE dir/" in aws(outcrop, "s3", "ls", "s3://from-cli/")
    aws(outcrop, "s3", "sync", "s3://from-cli", str(tmp_path / "back"), "--no-progress")
    assert (tmp_path / "back/dir/big.bin").read_bytes() == big.read_bytes()
    aws(outcrop, "s3", "rm", "s3://from-cli", "--recursive")
    aws(outcrop, "s3", "rb", "s3://from-cli")
    assert "123456789012" in aws(outcrop, "sts", "get-caller-identity")
    assert BASE in aws(outcrop, "bedrock", "list-foundation-models")
    messages = json.dumps([{"role": "user", "content": [{"text": "Hello"}]}])
    answer = json.loads(
        aws(
            outcrop,
            "bedrock-runtime",
            "converse",
            "--model-id",
            BASE,
            "--messages",
            messages,
            "--inference-config",
            "maxTokens=5",
        )
    )
    assert answer["usage"]["outputTokens"] <= 5


SCRIPT = """
import { BedrockRuntimeClient, ConverseCommand, ConverseStreamCommand, InvokeModelCommand } from "@aws-sdk/client-bedrock-runtime";
const client = new BedrockRuntimeClient({});
const request = { modelId: process.argv[2], messages: [{ role: "user", content: [{ text: "Hello" }] }] };
const whole = await client.send(new ConverseCommand(request));
let text = "";
for await (const event of (await client.send(new ConverseStreamCommand(request))).stream)
  text += event.contentBlockDelta?.delta?.text ?? "";
const native = await client.send(new InvokeModelCommand({ modelId: request.modelId, body: JSON.stringify({ prompt: "Hello" }) }));
console.log(JSON.stringify({ whole: whole.output.message.content[0].text, text, native: JSON.parse(new TextDecoder().decode(native.body)).generation }));
"""


@pytest.fixture(scope="module")
def sdk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the JavaScript SDK; skipped where there is no npm or no registry within reach."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("sdk")
    (folder / "package.json").write_text('{"type": "module", "private": true}')
    done = subprocess.run(
        ["npm", "install", "--silent", "@aws-sdk/client-bedrock-runtime"],
        cwd=folder,
        capture_output=True,
        timeout=240,
        check=False,
    )
    if done.returncode:
        pytest.skip("the npm registry cannot be reached")
    return folder


@pytest.mark.slow
def test_the_javascript_sdk_converses_over_its_default_http2(outcrop: Outcrop, sdk: Path) -> None:
    (sdk / "ask.mjs").write_text(SCRIPT)
    done = subprocess.run(
        ["node", "ask.mjs", BASE],
        cwd=sdk,
        env=outcrop.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["whole"] == said["text"] == said["native"]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcrop]:
    server = start(tmp_path_factory.mktemp("tls") / "home", "--tls", OUTCROP_ENGINE="echo")
    yield server
    end(server)


def test_tls_with_the_local_certificate_and_trailing_checksums(tls: Outcrop) -> None:
    bundle = str(tls.home / "tls-certificate.pem")
    s3 = tls.client("s3", verify=bundle)
    s3.create_bucket(Bucket="secure")
    s3.put_object(Bucket="secure", Key="k", Body=b"data" * 100_000)  # over https boto3 sends aws-chunked with a trailer
    got = s3.get_object(Bucket="secure", Key="k")
    assert got["Body"].read() == b"data" * 100_000
    assert "ContentEncoding" not in got


def test_a_bearer_key_opens_bedrock_over_https(tls: Outcrop, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = str(tls.home / "tls-certificate.pem")

    def models(token: str) -> Any:
        monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", token)
        client = boto3.client(
            "bedrock",
            endpoint_url=tls.endpoint,
            region_name="us-east-1",
            verify=bundle,
            config=Config(retries={"max_attempts": 0}),
        )
        return client.list_foundation_models()["modelSummaries"]

    assert models(tls.keys.bearer)
    with pytest.raises(ClientError, match="the API key is not known"):
        models("wrong")


def test_open_mode_takes_any_credentials_and_only_on_loopback(tmp_path: Path) -> None:
    server = start(tmp_path / "home", "--open", OUTCROP_ENGINE="echo")
    assert server.client("bedrock", access_key="any", secret="thing").list_foundation_models()["modelSummaries"]
    assert server.client("s3", access_key="any", secret="thing").list_buckets()["Buckets"] == []
    end(server)
    refused = subprocess.run(
        ["outcrop", "serve", "--open", "--host", "0.0.0.0", "--port", "0"],
        env={**os.environ, "OUTCROP_HOME": str(tmp_path / "other")}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert refused.returncode == 1
    assert "on loopback only" in refused.stderr.replace("\n", " ") or "for loopback only" in refused.stderr.replace(
        "\n", " "
    )


def test_two_servers_do_not_share_a_home(outcrop: Outcrop) -> None:
    refused = subprocess.run(
        ["outcrop", "serve", "--port", "0"],
        env=outcrop.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode == 1
    assert "another Outcrop already serves" in refused.stderr.replace("\n", " ")


def test_the_printed_exports_work(outcrop: Outcrop) -> None:
    script = 'eval "$(outcrop env)" && aws sts get-caller-identity --query Arn --output text'
    clean = {name: value for name, value in outcrop.environment.items() if not name.startswith("AWS_")}
    done = subprocess.run(["bash", "-c", script], env=clean, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "arn:aws:iam::123456789012:root", done.stderr


def test_the_catalogue_takes_a_local_model_and_an_alias(outcrop: Outcrop, tmp_path: Path) -> None:
    from tests.models import make_llama

    folder = make_llama(tmp_path / "tiny")
    environment = outcrop.environment

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["outcrop", "models", *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    assert run("add", "test.tiny-v1:0", "--from", str(folder)).returncode == 0
    assert run("alias", "meta.llama3-2-1b-instruct-v1:0", "test.tiny-v1:0").returncode == 0
    assert outcrop.ask("meta.llama3-2-1b-instruct-v1:0", "the cat", inferenceConfig={"maxTokens": 3}) is not None
    assert "is needed by meta.llama3-2-1b-instruct-v1:0" in run("remove", "test.tiny-v1:0").stderr.replace("\n", " ")
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "config.json").write_text("{}")
    (bad / "pytorch_model.bin").write_bytes(b"x")
    assert "pickles can run code" in run("add", "test.bad-v1:0", "--from", str(bad)).stderr.replace("\n", " ")
    assert "is not a model id" in run("add", "Bad Id", "--from", str(folder)).stderr.replace("\n", " ")
    assert run("remove", "meta.llama3-2-1b-instruct-v1:0").returncode == 0
    assert run("remove", "test.tiny-v1:0").returncode == 0
