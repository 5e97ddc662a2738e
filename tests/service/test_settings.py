"""Settings: where they come from, and the sentences for those that cannot be used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.api.limits import MAX_IMAGES
from service.settings import ElsewhereError, Settings


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("RESIGHT_")]:
        monkeypatch.delenv(name)


def test_the_defaults_are_the_documented_ones() -> None:
    settings = Settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.model == Path("models/market1501-int8.onnx")
    assert (settings.device, settings.gallery, settings.gallery_folder) == ("auto", "sqlite:///data", Path("data"))
    assert (settings.store_images, settings.match_distance, settings.log_level) == ("thumbnail", None, "info")
    assert settings.effective_threads >= 1


def test_environment_and_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESIGHT_PORT", "9000")
    monkeypatch.setenv("RESIGHT_GALLERY", "sqlite:////var/lib/resight")
    monkeypatch.setenv("RESIGHT_THREADS", "3")
    monkeypatch.setenv("RESIGHT_MAX_BATCH", "")
    assert Settings().port == 9000
    assert Settings().gallery_folder == Path("/var/lib/resight")
    assert (Settings().effective_threads, Settings().max_batch) == (3, None)
    assert Settings(port=9001).port == 9001


UNUSABLE = [
    ("PORT", "99999", "65535"),
    ("DEVICE", "gpu", "auto"),
    ("INDEX", "gpu", "'compressed' or 'cagra'"),
    ("GALLERY", "postgres://x", "sqlite:///FOLDER"),
    ("GALLERY", "sqlite://data", "sqlite:///FOLDER"),
    ("GALLERY", "sqlite:///", "sqlite:///FOLDER"),
    ("GALLERY", "milvus://host/a-b", "milvus://HOST:PORT/COLLECTION"),
    ("PICTURES", "s3://crops", "RESIGHT_PICTURES is for a gallery in Milvus"),
    ("PICTURES", "file:///crops", "s3://BUCKET/PREFIX"),
    ("S3_ENDPOINT", "minio:9000", r"http\(s\)://HOST:PORT"),
    ("S3_ENDPOINT", "http://key:secret@minio:9000", r"http\(s\)://HOST:PORT"),
    ("S3_ENDPOINT", "http://minio:9000/crops", r"http\(s\)://HOST:PORT"),
    ("STORE_IMAGES", "all", "thumbnail"),
    ("MATCH_DISTANCE", "1.5", "less than or equal to 1"),
    ("MATCH_DISTANCE", "nan", "less than or equal to 1"),
    ("MAX_BATCH", "24", "1, 2, 4, 8, 16, 32 or 64"),
    ("THREADS", "0", "greater than or equal to 1"),
    ("QUEUE_LIMIT", str(MAX_IMAGES - 1), f"greater than or equal to {MAX_IMAGES}"),
    ("LOG_LEVEL", "loud", "info"),
    ("HOST", "0.0.0.0", "RESIGHT_ALLOW_ANONYMOUS=true"),
    ("HOST", "camera-server", "RESIGHT_ALLOW_ANONYMOUS=true"),
    ("HOST", "192.168.0.7", "RESIGHT_KEYS_FILE"),
    ("RATE_LIMIT", "0", "greater than or equal to 1"),
    ("ALLOWED_HOSTS", "http://resight", "written A,B, without http://"),
    ("ALLOWED_HOSTS", "resight:8000", "written A,B"),
    ("ALLOWED_HOSTS", "resight,", "written A,B"),
    ("ALLOWED_HOSTS", "*", "written A,B"),
    ("KEY_FILE", "keys.json", "did you mean RESIGHT_KEYS_FILE"),
    ("PROT", "9000", "did you mean RESIGHT_PORT"),
    ("SOMETHING", "1", "there is no such setting"),
    ("SERVICE_HOST", "10.0.0.1", "RESIGHT_SERVICE_HOST .*enableServiceLinks: false"),
    ("SERVICE_PORT_HTTP", "80", "enableServiceLinks: false"),
    ("PORT_80_TCP_ADDR", "10.0.0.1", "enableServiceLinks: false"),
    ("PORT", "tcp://10.0.0.1:80", "RESIGHT_PORT .*enableServiceLinks: false"),
    ("SERVICES", "1", "there is no such setting"),
]


def test_a_graph_on_a_gpu_is_not_for_a_service_on_the_cpu() -> None:
    with pytest.raises(
        ValueError, match="RESIGHT_INDEX=cagra searches on a GPU, and RESIGHT_DEVICE=cpu rules that out"
    ):
        Settings(index="cagra", device="cpu")
    assert [Settings(device=device).gpu_wanted for device in ("cpu", "auto", "cuda", "tensorrt")] == [
        False,
        None,
        True,
        True,
    ]
    assert Settings(index="cagra").gpu_wanted is None


@pytest.mark.parametrize(("name", "value", "sentence"), UNUSABLE)
def test_an_unusable_setting_is_refused_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(f"RESIGHT_{name}", value)
    with pytest.raises(ValueError, match="(?s)" + sentence):
        Settings()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_no_keys(host: str) -> None:
    assert Settings(host=host).host == host


def test_who_has_keys_may_come_from_elsewhere() -> None:
    assert Settings(host="0.0.0.0", keys_file=Path("keys.json")).keys_file == Path("keys.json")


def test_the_key_of_the_command_line_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESIGHT_API_KEY", "rsk_0")
    assert "rsk_0" not in repr(Settings())


def test_the_address_of_the_command_line_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESIGHT_URL", "http://127.0.0.1:9000")
    assert Settings() == Settings(port=8000)


def test_a_gallery_in_milvus_keeps_pictures_where_there_is_a_place_for_them() -> None:
    gallery, keys = "milvus://host/people", Path("s3.json")
    assert Settings(gallery=gallery).gallery == "milvus://host:19530/people"
    assert Settings(gallery=gallery).kept_images == "none"
    assert Settings(gallery=gallery, pictures="s3://crops/a", s3_credentials_file=keys).kept_images == "thumbnail"
    with pytest.raises(ValueError, match="belong together"):
        Settings(gallery=gallery, pictures="s3://crops/a")
    with pytest.raises(ValueError, match="set RESIGHT_PICTURES"):
        Settings(gallery=gallery, store_images="original")
    with pytest.raises(ElsewhereError, match="is in Milvus and has no folder"):
        _ = Settings(gallery=gallery).gallery_folder


@pytest.mark.parametrize("index", ["cagra", "foo"])
def test_an_index_that_milvus_does_not_build_is_refused(index: str) -> None:
    with pytest.raises(ValueError, match="one of the indexes auto, exact, hnsw, ivf, compressed") as refused:
        Settings(gallery="milvus://host/people", index=index)  # type: ignore[arg-type]
    assert "cagra" not in str(refused.value)
    assert Settings(gallery="milvus://host/people", index="ivf").index == "ivf"


def test_endpoints_of_the_pictures() -> None:
    for url in ("http://minio:9000", "https://s3.amazonaws.com/", "http://[::1]:9000"):
        assert Settings(s3_endpoint=url).s3_endpoint == url


def test_everybody_may_be_let_in_on_purpose() -> None:
    assert Settings(host="0.0.0.0", allow_anonymous=True).host == "0.0.0.0"


def test_names_of_the_service() -> None:
    assert Settings().host_names is None
    named = Settings(allowed_hosts="Resight, reid.example.org.,[::1]")
    assert named.host_names == frozenset({"resight", "reid.example.org", "::1"})
    with pytest.raises(ValueError, match="the names are written A,B"):
        Settings(allowed_hosts=".example.org")
