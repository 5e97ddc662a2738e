"""The files in deploy/kubernetes: as they are, and as kustomize puts them together where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import PREFIX, Settings

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
BASE = FOLDER / "base"
OVERLAYS = sorted((FOLDER / "overlays").iterdir())
COMPONENTS = sorted((FOLDER / "components").iterdir())
FILES = sorted(FOLDER.rglob("*.yaml"))
LABELS = {"app.kubernetes.io/name": "resight"}
WRITABLE = {"/data", "/tmp"}
SCHEMA = "1.37"

Manifest = dict[str, Any]


def read(file: Path) -> Manifest:
    """The one document of a file."""
    found: Manifest = yaml.safe_load(file.read_text(encoding="utf-8"))
    return found


@cache
def built(overlay: Path) -> dict[str, Manifest]:
    """What `kubectl apply -k` would apply, by kind; skips where nothing is there to build it."""
    for command in (["kubectl", "kustomize"], ["kustomize", "build"]):
        if shutil.which(command[0]):
            done = subprocess.run([*command, str(overlay)], capture_output=True, text=True, check=True)
            manifests = list(yaml.safe_load_all(done.stdout))
            assert len({manifest["kind"] for manifest in manifests}) == len(manifests)
            return {manifest["kind"]: manifest for manifest in manifests}
    pytest.skip("neither kubectl nor kustomize is installed here")


def pod(deployment: Manifest) -> Manifest:
    """The pod that a deployment makes."""
    found: Manifest = deployment["spec"]["template"]["spec"]
    return found


def literals(folder: Path) -> dict[str, str]:
    """The settings in a kustomization."""
    (generator,) = read(folder / "kustomization.yaml")["configMapGenerator"]
    assert generator["name"] == "resight"
    return dict(literal.split("=", 1) for literal in generator["literals"])


def components(overlay: Path) -> list[Path]:
    """The folders that an overlay adds to the base."""
    return [(overlay / name).resolve() for name in read(overlay / "kustomization.yaml").get("components", [])]


def settings(overlay: Path) -> dict[str, str]:
    """The settings that reach the process, by the names of `Settings`."""
    above = [] if overlay == BASE else [*components(overlay), overlay]
    folders = [folder for folder in [BASE, *above] if "configMapGenerator" in read(folder / "kustomization.yaml")]
    variables = {name: value for folder in folders for name, value in literals(folder).items()}
    assert all(name.startswith(PREFIX) for name in variables)
    return {name.removeprefix(PREFIX).lower(): value for name, value in variables.items()}


@pytest.mark.parametrize(
    "folder", [BASE, *COMPONENTS, *OVERLAYS], ids=lambda folder: f"{folder.parent.name}-{folder.name}"
)
def test_every_file_is_listed(folder: Path) -> None:
    kustomization = read(folder / "kustomization.yaml")
    listed = [*kustomization.get("resources", []), *(patch["path"] for patch in kustomization.get("patches", []))]
    files = {name for name in listed if name.endswith(".yaml")}
    assert files == {file.name for file in folder.glob("*.yaml")} - {"kustomization.yaml"}
    assert all((folder / name).exists() for name in listed)


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda overlay: overlay.name)
def test_settings_are_the_services(overlay: Path) -> None:
    chosen = settings(overlay)
    assert chosen.keys() <= Settings.model_fields.keys()
    read_back = Settings(**chosen)  # type: ignore[arg-type]
    assert (read_back.host, read_back.port) == ("0.0.0.0", 8000)
    assert read_back.keys_file == Path("/keys/keys.json")


def test_the_pod_may_do_little() -> None:
    spec = pod(read(BASE / "deployment.yaml"))
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["fsGroup"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is spec["enableServiceLinks"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert {path for path, mount in mounts.items() if not mount.get("readOnly")} == WRITABLE
    assert {mount["name"] for mount in mounts.values()} == {volume["name"] for volume in spec["volumes"]}
    assert Path(settings(BASE)["keys_file"]).parent == Path("/keys") in map(Path, mounts)


def test_probes_ask_what_they_should() -> None:
    (container,) = pod(read(BASE / "deployment.yaml"))["containers"]
    asked = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {name: get["path"] for name, get in asked.items()} == {
        "startup": "/livez",
        "liveness": "/livez",
        "readiness": "/readyz",
    }
    assert {get["port"] for get in asked.values()} == {"http"}
    assert container["ports"] == [{"name": "http", "containerPort": int(settings(BASE)["port"])}]


def test_one_process_owns_the_folder() -> None:
    deployment = read(BASE / "deployment.yaml")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    assert read(BASE / "claim.yaml")["spec"]["accessModes"] == ["ReadWriteOncePod"]
    (claim,) = (v for v in pod(deployment)["volumes"] if "persistentVolumeClaim" in v)
    assert claim["persistentVolumeClaim"]["claimName"] == read(BASE / "claim.yaml")["metadata"]["name"]
    assert settings(BASE)["gallery"] == "sqlite:////data"


def test_everything_selects_the_deployments_pods() -> None:
    deployment, network = read(BASE / "deployment.yaml"), read(BASE / "network.yaml")
    selectors = [
        deployment["spec"]["template"]["metadata"]["labels"],
        deployment["spec"]["selector"]["matchLabels"],
        read(BASE / "service.yaml")["spec"]["selector"],
        read(BASE / "disruption.yaml")["spec"]["selector"]["matchLabels"],
        network["spec"]["podSelector"]["matchLabels"],
    ]
    assert all(selector == LABELS for selector in selectors)


def test_the_network_is_closed_but_for_whom_it_names() -> None:
    network = read(BASE / "network.yaml")["spec"]
    assert network["policyTypes"] == ["Ingress", "Egress"]
    assert network["egress"] == []
    (rule,) = network["ingress"]
    assert rule["ports"] == [{"port": "http"}]
    assert all(peer.get("podSelector", {}).get("matchLabels") for peer in rule["from"])
    for rule in read(FOLDER / "overlays" / "milvus" / "network.yaml")["spec"]["egress"]:
        assert rule["to"]
        assert rule["ports"]


def test_no_secret_is_in_the_files() -> None:
    (volume,) = (v for v in pod(read(BASE / "deployment.yaml"))["volumes"] if "secret" in v)
    assert f"kubectl create secret generic {volume['secret']['secretName']}" in (FOLDER / "README.md").read_text()
    for file in FILES:
        manifest = read(file)
        assert manifest["kind"] != "Secret"
        assert "secretGenerator" not in manifest
        assert "rsk_" not in file.read_text(encoding="utf-8")


def test_resources_are_asked_for_and_limited() -> None:
    cpu, gpu = (pod(read(FOLDER / "components" / name / f"{name}.yaml"))["containers"][0] for name in ("cpu", "gpu"))
    for container, overlay in ((cpu, "cpu"), (gpu, "gpu")):
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert {"cpu", "memory", "ephemeral-storage"} <= requests.keys() == limits.keys()
        assert settings(FOLDER / "overlays" / overlay)["threads"] == limits["cpu"]
    assert gpu["resources"]["requests"]["nvidia.com/gpu"] == gpu["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "nvidia.com/gpu" not in cpu["resources"]["limits"]


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda overlay: overlay.name)
def test_the_image_is_the_overlays_own_whatever_was_set_in_others(overlay: Path, tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    for other in OVERLAYS:
        file = tmp_path / "overlays" / other.name / "kustomization.yaml"
        kustomization = read(file)
        # as `kustomize edit set image resight=registry.example/resight:TAG` leaves it
        kustomization["images"] = [{"name": "resight", "newName": "registry.example/resight", "newTag": other.name}]
        file.write_text(yaml.safe_dump(kustomization), encoding="utf-8")
    (container,) = pod(built(tmp_path / "overlays" / overlay.name)["Deployment"])["containers"]
    assert container["image"] == f"registry.example/resight:{overlay.name}"


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda overlay: overlay.name)
def test_an_overlay_builds_into_what_it_says(overlay: Path) -> None:
    manifests = built(overlay)
    shared = {"ConfigMap", "Deployment", "NetworkPolicy", "PodDisruptionBudget", "Service"}
    spec = pod(manifests["Deployment"])
    (container,) = spec["containers"]
    config = manifests["ConfigMap"]
    assert container["envFrom"] == [{"configMapRef": {"name": config["metadata"]["name"]}}]
    assert config["data"] == {f"{PREFIX}{name.upper()}": value for name, value in settings(overlay).items()}
    assert container["image"] == f"resight:{'cluster' if overlay.name == 'milvus' else overlay.name}"
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (overlay.name != "cpu")
    assert {"startupProbe", "livenessProbe", "readinessProbe", "securityContext"} <= container.keys()
    (data,) = (volume for volume in spec["volumes"] if volume["name"] == "data")
    if overlay.name == "milvus":
        assert manifests.keys() == shared | {"CronJob"}
        assert manifests["Deployment"]["spec"]["replicas"] > 1
        assert manifests["Deployment"]["spec"]["strategy"]["type"] == "RollingUpdate"
        assert manifests["Service"]["spec"]["sessionAffinity"] == "ClientIP"
        assert data.keys() == {"name", "emptyDir"}
        assert len(manifests["NetworkPolicy"]["spec"]["egress"]) == 2
    else:
        assert manifests.keys() == shared | {"PersistentVolumeClaim"}
        assert data.keys() == {"name", "persistentVolumeClaim"}


def test_the_nightly_job_is_as_closed_as_a_replica_and_takes_no_requests() -> None:
    manifests = built(FOLDER / "overlays" / "milvus")
    template = manifests["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]
    replica = pod(manifests["Deployment"])
    (job,), (container,) = template["spec"]["containers"], replica["containers"]
    for key in ("image", "envFrom", "securityContext"):
        assert job[key] == container[key]
    assert template["spec"]["securityContext"].items() <= replica["securityContext"].items()
    assert template["spec"]["automountServiceAccountToken"] is template["spec"]["enableServiceLinks"] is False
    assert job["args"] == ["maintain"]
    assert template["metadata"]["labels"] != LABELS
    selector = manifests["NetworkPolicy"]["spec"]["podSelector"]
    assert selector.keys() == {"matchExpressions"}
    named = selector["matchExpressions"][0]["values"]
    assert named == [LABELS["app.kubernetes.io/name"], template["metadata"]["labels"]["app.kubernetes.io/name"]]


def test_milvus_secrets_are_optional_and_lie_where_the_settings_say() -> None:
    overlay = FOLDER / "overlays" / "milvus"
    offered = re.findall(r"^ +# - (RESIGHT_\w+)=(\S+)$", (overlay / "kustomization.yaml").read_text(), re.MULTILINE)
    chosen = {name.removeprefix(PREFIX).lower(): value for name, value in offered}
    Settings(**settings(overlay), **chosen)  # type: ignore[arg-type]
    files = {Path(value) for name, value in chosen.items() if name.endswith("_file")}
    manifests = built(overlay)
    for spec in (pod(manifests["Deployment"]), pod(manifests["CronJob"]["spec"]["jobTemplate"])):
        (volume,) = (volume for volume in spec["volumes"] if volume["name"] == "secrets")
        assert volume["secret"]["optional"] is True
        (mount,) = (mount for mount in spec["containers"][0]["volumeMounts"] if mount["name"] == "secrets")
        assert {file.parent for file in files} == {Path(mount["mountPath"])}
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert f"kubectl create secret generic {volume['secret']['secretName']} -n resight" in page
    assert all(f"--from-file={file.name}" in page for file in files)


@pytest.mark.parametrize("folder", [BASE, *OVERLAYS], ids=lambda folder: folder.name)
def test_manifests_obey_the_schema_of_kubernetes(folder: Path) -> None:
    reason = "kubernetes-validate is not installed here (pip install kubernetes-validate)"
    validator = pytest.importorskip("kubernetes_validate", reason=reason)
    if folder == BASE:
        manifests = [read(folder / name) for name in read(folder / "kustomization.yaml")["resources"]]
    else:
        manifests = list(built(folder).values())
    for manifest in manifests:
        validator.validate(manifest, SCHEMA, strict=True)
    broken = {**manifests[0], "spec": {"replicas": "three", "ports": 7}}
    with pytest.raises(validator.ValidationError):
        validator.validate(broken, SCHEMA, strict=True)
