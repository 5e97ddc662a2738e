"""What tests of the service share: a tiny model file, settings for it, and a running service."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.inference.model import ModelFile, ModelInfo, read_model
from service.settings import Settings
from tests.milvus_server import MilvusServer, milvus_server
from tests.serving import Served, serve
from tests.tiny_model import write_tiny_model

# A job in a shell's background ignores Ctrl-C, and so would every process that tests start and then interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model file that obeys the whole contract."""
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture(scope="session")
def model_file(model_path: Path) -> ModelFile:
    """The tiny model, read and verified."""
    return read_model(model_path)


@pytest.fixture(scope="session")
def model_info(model_file: ModelFile) -> ModelInfo:
    """What the tiny model says about itself."""
    return model_file.info


@pytest.fixture
def make_settings(model_path: Path, tmp_path: Path) -> Callable[..., Settings]:
    """Settings for the tiny model and a gallery in a folder of this test; keywords replace some."""

    def make(**changes: Any) -> Settings:
        gallery = f"sqlite:///{tmp_path / 'data'}"
        return Settings(**{"model": model_path, "device": "cpu", "gallery": gallery, "threads": 2, **changes})

    return make


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusServer]:
    """A Milvus server; who kills it starts it again."""
    with milvus_server(tmp_path_factory.mktemp("milvus")) as server:
        yield server


@pytest.fixture
def service(make_settings: Callable[..., Settings]) -> Iterator[Served]:
    """A running service with an empty gallery."""
    with serve(make_settings()) as served:
        yield served


@pytest.fixture
def client(service: Served) -> httpx.Client:
    """A client of a running service with an empty gallery."""
    return service.client
