"""The cpu image, built and run as the Compose files do: what it holds, what it survives, what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from tests.deploy.containers import (
    BUILD_SECONDS,
    OF_TESTS,
    ROOT,
    Compose,
    compose_command,
    docker,
    files,
    require_engine,
    said,
)

pytestmark = [pytest.mark.docker, pytest.mark.slow]

IMAGE = "resight-test:cpu"
LARGEST = 900_000_000  # bytes
CROPS = sorted((ROOT / "examples/crops").glob("*.jpg"))
PROBE, OTHERS = CROPS[0], CROPS[1:]


@pytest.fixture(scope="session")
def override(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compose") / "test.yml"
    path.write_text(OF_TESTS)
    return path


@pytest.fixture(scope="session")
def image(override: Path) -> str:
    """The image's name, once it is built. It stays, so that the next run builds only what has changed."""
    command = compose_command()
    require_engine()
    Compose(command, [*files("cpu"), override])("build", "resight", seconds=BUILD_SECONDS)
    return IMAGE


@pytest.fixture
def private(image: str, override: Path) -> Iterator[Compose]:
    """The service for this machine only, not yet started; nothing of it is left."""
    yield from _project(Compose(compose_command(), [*files("cpu"), override]))


@pytest.fixture
def public(image: str, override: Path) -> Iterator[Compose]:
    """The service with keys."""
    yield from _project(Compose(compose_command(), [*files("cpu", "public"), override]))


def _project(compose: Compose) -> Iterator[Compose]:
    compose("down", "--volumes", "--timeout", "5")
    yield compose
    compose("down", "--volumes", "--timeout", "5")


def start(compose: Compose) -> httpx.Client:
    """Starts the service, waits until it is healthy; a client of its published port."""
    compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", "120", "resight", seconds=150)
    return httpx.Client(base_url=f"http://{compose('port', 'resight', '8000')}", timeout=30)


def run(image: str, *arguments: str, **settings: str) -> tuple[int, str]:
    """Exit code and output of a container that is expected to end."""
    chosen = [part for name, value in settings.items() for part in ("--env", f"{name}={value}")]
    ended = said(["docker", "run", "--rm", *chosen, image, *arguments], 60)
    return ended.returncode, ended.stdout


def enrol(client: httpx.Client) -> None:
    for crop in OTHERS:
        identity, camera = crop.name[:4], crop.name[5:7]
        answer = client.post(
            "/gallery",
            files={"images": (crop.name, crop.read_bytes())},
            data={"identity": identity, "camera": camera},
        )
        assert answer.status_code == 201, answer.text


def ask(client: httpx.Client, **headers: str) -> httpx.Response:
    return client.post("/query", files={"images": PROBE.read_bytes()}, data={"top_k": "3"}, headers=headers)


def test_what_is_in_it(image: str) -> None:
    described = json.loads(docker("image", "inspect", image))[0]
    assert described["Size"] <= LARGEST
    assert described["Config"]["User"] == "10001:10001"
    assert described["Config"]["Entrypoint"] == ["resight"]
    assert described["Config"]["StopSignal"] == "SIGTERM"
    assert "ORT_DISABLE_TELEMETRY=1" in described["Config"]["Env"]
    labels = described["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == "Resight"
    absent = "cc gcc g++ c++ clang make ld nvcc"
    found = docker("run", "--rm", "--entrypoint", "sh", image, "-c", f"for c in {absent}; do command -v $c; done; true")
    assert found == ""
    for package in ("torch", "pip", "setuptools", "training"):
        ended = said(["docker", "run", "--rm", "--entrypoint", "python3", image, "-c", f"import {package}"], 60)
        assert "ModuleNotFoundError" in ended.stdout, package


def test_enrolled_killed_and_found(private: Compose) -> None:
    with start(private) as client:
        enrol(client)
        ranking = ask(client).json()
        assert ranking["searched"] == len(OTHERS)
        assert ranking["matches"][0]["identity"] == PROBE.name[:4]
    private("kill", "resight")
    assert private("ps", "--services", "--filter", "status=running") == ""
    with start(private) as client:
        after = ask(client).json()
        assert (after["searched"], after["matches"]) == (len(OTHERS), ranking["matches"])
        container = private("ps", "--quiet", "resight")
        private("stop", "resight")
    state = json.loads(docker("container", "inspect", container))[0]["State"]
    assert state["ExitCode"] == 143  # SIGTERM, as uvicorn passes it on; 137 would be a kill
    assert '"stopped"' in private("logs", "resight")


def test_it_runs_hardened(private: Compose) -> None:
    with start(private):
        status = private("exec", "-T", "resight", "cat", "/proc/self/status")
        facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert facts["Uid"].split()[0] == "10001"
        assert int(facts["CapEff"], 16) == 0
        assert facts["NoNewPrivs"] == "1"
        refused = private.end("exec", "-T", "resight", "touch", "/app/service/new")
        assert "Read-only file system" in refused.stdout
        private("exec", "-T", "resight", "touch", "/tmp/new", "/data/new")
        container = private("ps", "--quiet", "resight")
        [binding] = json.loads(docker("container", "inspect", container))[0]["NetworkSettings"]["Ports"]["8000/tcp"]
        assert binding["HostIp"] == "127.0.0.1"


def test_backed_up_and_restored(private: Compose, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    mounted = ("run", "--rm", "--no-deps", "--volume", f"{tmp_path}:/backups", "resight")
    with start(private) as client:
        enrol(client)
        private(*mounted, "backup", "/backups/first")
        assert client.delete("/identities/0002").status_code == 204
    private("down")
    for restored in _project(replace(private, environment={"DATA_VOLUME": f"{private.project}_restored"})):
        restored(*mounted, "restore", "/backups/first")
        with start(restored) as client:
            assert client.get("/identities/0002").status_code == 200


def test_a_model_of_ones_own(private: Compose) -> None:
    with start(private):
        private("cp", str(ROOT / "models/market1501-int8.onnx"), "resight:/data/own.onnx")
    own = replace(private, environment={"RESIGHT_MODEL": "/data/own.onnx"})
    with start(own) as client:
        assert client.get("/readyz").json()["warnings"] == []
        own("exec", "-T", "resight", "rm", "/data/own.onnx")
        assert "/data/own.onnx is missing" in client.get("/readyz").text


def test_others_need_a_key(public: Compose) -> None:
    refused = public.end("run", "--rm", "resight")
    assert refused.returncode
    assert "there is no key file /keys/keys.json" in refused.stdout
    made = public("run", "--rm", "resight", "keys", "create", "ops", "--scope", "admin")
    key = next(word for word in made.split() if word.startswith("rsk_"))
    with start(public) as client:
        assert ask(client).status_code == 401
        assert ask(client, Authorization=f"Bearer {key}").status_code == 200
        public("exec", "-T", "resight", "resight", "keys", "revoke", "ops")
        assert ask(client, Authorization=f"Bearer {key}").status_code == 401


def test_alone_it_opens_itself_to_nobody(image: str) -> None:
    code, output = run(image)
    assert code
    assert "listening on 0.0.0.0 lets everybody on the network read and change the gallery" in output


def test_it_does_not_fall_back_to_the_cpu(image: str) -> None:
    code, output = run(image, RESIGHT_ALLOW_ANONYMOUS="true", RESIGHT_DEVICE="cuda")
    assert code
    assert "Cannot start: This ONNX Runtime has no CUDAExecutionProvider" in output


def test_a_host_without_a_gpu_is_told(image: str, override: Path) -> None:
    if "nvidia" in docker("info", "--format", "{{json .}}").lower():
        pytest.skip("this engine knows NVIDIA's container toolkit")
    for compose in _project(Compose(compose_command(), [*files(), override])):
        ended = compose.end("up", "--detach", "--no-build", "resight")
        assert ended.returncode
        told = ('could not select device driver "nvidia" with capabilities: [[gpu]]', "no known GPU vendor found")
        assert any(message in ended.stdout for message in told), ended.stdout
        assert compose("ps", "--services", "--filter", "status=running") == ""
