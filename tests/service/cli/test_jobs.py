"""The commands around a gallery, as they are typed: what they print, where, and their exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from service.cli import commands as cli
from service.jobs import backup as backup_module
from service.settings import Settings
from tests.drawn_crops import crop, uploads
from tests.serving import serve
from tests.tiny_model import write_tiny_model

PEOPLE, CAMERAS = 12, 2


def resight(*arguments: str | Path, code: int = 0) -> Result:
    result = CliRunner().invoke(cli.command_line(), [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def audited(folder: Path, actor: str) -> list[tuple[str, int]]:
    """What the audit log says that `actor` did, and to how many crops."""
    lines = [
        json.loads(line)
        for path in sorted((folder / "audit").glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    return [(line["action"], line["count"]) for line in lines if line["actor"] == actor]


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    """Settings whose gallery has two crops of each of twelve people."""
    settings = make_settings(log_level="error")
    with serve(settings) as served:
        for camera in range(CAMERAS):
            items = [{"identity": f"p{number}", "camera": f"c{camera}"} for number in range(PEOPLE)]
            files = uploads(*(crop(number, camera) for number in range(PEOPLE)))
            answer = served.client.post("/gallery", files=files, data={"items": json.dumps(items)})
            assert answer.status_code == 201
    return settings


def test_backup_and_restore(settings: Settings, tmp_path: Path) -> None:
    with serve(settings):
        made = resight("backup", tmp_path / "backup", "--gallery", settings.gallery)
    assert made.stdout == f"24 crops of 12 identities, 24 pictures, backed up to {tmp_path / 'backup'}\n"
    other = f"sqlite:///{tmp_path / 'other'}"
    restored = resight("restore", tmp_path / "backup", "--gallery", other)
    assert restored.stdout.splitlines()[0].endswith(f"restored to {tmp_path / 'other'}")
    assert restored.stdout.splitlines()[1].startswith("serve it with the model tiny-colours (sha256 ")
    again = resight("restore", tmp_path / "backup", "--gallery", other, code=2)
    assert again.stderr == (
        f"{tmp_path / 'other'} is not empty (it has gallery.db), and a restore never replaces anything; "
        "choose another folder.\n"
    )
    nothing = resight("backup", tmp_path / "backup2", "--gallery", f"sqlite:///{tmp_path / 'nowhere'}", code=2)
    assert nothing.stderr.startswith("There is no gallery in ")
    wrong = resight("backup", tmp_path / "b", "--gallery", "http://x", code=2)
    assert wrong.stderr.startswith("RESIGHT_GALLERY / --gallery: the gallery must be sqlite:///FOLDER")


def test_a_job_on_a_folder_needs_no_setting_of_the_address_or_of_milvus(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESIGHT_HOST", "0.0.0.0")
    monkeypatch.setenv("RESIGHT_PICTURES", "s3://bucket/pictures")
    monkeypatch.setenv("RESIGHT_S3_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("RESIGHT_GALLERY", "milvus://localhost:19530/resight")
    resight("export", tmp_path / "crops.tar", "--gallery", settings.gallery)
    other = f"sqlite:///{tmp_path / 'other'}"
    resight("import", tmp_path / "crops.tar", "--gallery", other, "--model", settings.model)
    assert resight("backup", tmp_path / "backup", "--gallery", other).stdout.startswith("24 crops")
    resight("maintain", "--retention-days", "7", "--gallery", other)


def test_ctrl_c_is_one_sentence(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(backup_module, "describe", interrupted)
    stopped = resight("backup", tmp_path / "backup", "--gallery", settings.gallery, code=130)
    assert stopped.stderr.splitlines()[-1].startswith("Stopped while backing up")
    assert not (tmp_path / "backup").exists()


def test_export_and_import(settings: Settings, tmp_path: Path) -> None:
    file, other = tmp_path / "crops.tar", f"sqlite:///{tmp_path / 'other'}"
    with serve(settings):
        exported = resight("export", file, "--gallery", settings.gallery)
    assert exported.stdout == f"24 crops exported to {file}\n"
    assert resight("export", file, "--gallery", settings.gallery, code=2).stderr.startswith(f"{file} exists already")
    command = ("import", file, "--model", settings.model, "--device", "cpu", "--gallery", other)
    assert resight(*command).stdout == "24 crops imported, 0 there already, 0 left out\n"
    assert resight(*command).stdout == "0 crops imported, 24 there already, 0 left out\n"
    with serve(settings):
        assert "in use by another process" in resight(*command[:-1], settings.gallery, code=2).stderr
    assert audited(tmp_path / "other", "import") == [("enrol", 24)]


def test_an_import_that_leaves_crops_out_names_them(settings: Settings, tmp_path: Path) -> None:
    bare = settings.model_copy(update={"store_images": "none"})
    with serve(bare) as served:
        served.client.post("/gallery", files=uploads(crop(20)))
    file = tmp_path / "crops.tar"
    assert "25 crops, 1 of them without picture, exported" in resight("export", file, "--gallery", bare.gallery).stdout
    other = f"sqlite:///{tmp_path / 'other'}"
    done = resight("import", file, "--model", bare.model, "--device", "cpu", "--gallery", other, code=1)
    assert done.stdout == "24 crops imported, 0 there already, 1 left out\n"
    assert ": the archive has no picture of it" in done.stderr


def test_reembed(settings: Settings, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "new.onnx", {"name": "tiny-retrained"}, colours=(1.0, 0.2, -0.5))
    command = ("reembed", "--model", model, "--device", "cpu", "--gallery", settings.gallery)
    with serve(settings) as served:
        assert "in use by another process" in resight(*command, code=2).stderr
        served.client.post("/gallery", files=uploads(crop(20)))
    assert resight(*command).stdout == "25 crops embedded by tiny-retrained, 0 erased\n"
    assert resight(*command).stdout == "the gallery belongs to tiny-retrained already: nothing to do\n"
    back = ("reembed", "--model", settings.model, "--device", "cpu", "--gallery", settings.gallery)
    bare = settings.model_copy(update={"store_images": "none", "model": model})
    with serve(bare) as served:
        [lost] = served.client.post("/gallery", files=uploads(crop(21))).json()["results"]
    refused = resight(*back, code=2)
    assert refused.stderr.splitlines()[0] == f"{lost['crop_id']}: no picture was stored"
    assert refused.stderr.splitlines()[-1].startswith("1 crop has no picture that can be embedded.")
    assert resight(*back, "--drop-missing").stdout == "25 crops embedded by tiny-colours, 1 erased\n"
    with serve(settings) as served:
        assert served.client.get(f"/gallery/{lost['crop_id']}").status_code == 404
    assert audited(settings.gallery_folder, "reembed") == [("erase", 1)]
    assert "There is no model file at" in resight("reembed", "--model", tmp_path / "no.onnx", code=2).stderr


def test_calibrate(settings: Settings, tmp_path: Path) -> None:
    with serve(settings):
        own = resight("calibrate", "--gallery", settings.gallery, "--false-match-rate", "0.05")
    first, second, third, fourth, *rest = own.stdout.splitlines()
    assert 0 < float(first.removeprefix("RESIGHT_MATCH_DISTANCE=")) < 1
    assert second.startswith("measured at a false-match rate of 5.0e-02; 95 % interval of the distance 0.")
    assert third == "on 24 crops of 12 people: 264 pairs of strangers, 12 of one person under two cameras"
    assert fourth.startswith("embedded by the model tiny-colours (sha256 ")
    assert rest[0] == "100.0 % of the pairs of one person lie under it"
    assert rest[1].startswith("warning: only 12 identities")
    answer = json.loads(resight("calibrate", "--gallery", settings.gallery, "--json").stdout)
    assert (answer["false_match_rate"], answer["extrapolated"]) == (pytest.approx(0.01 / 12), True)

    for number in range(PEOPLE):
        for camera in range(CAMERAS):
            name = f"{number + 1:04}_c{camera + 1}s1_000001_00.jpg"
            (tmp_path / "labelled").mkdir(exist_ok=True)
            (tmp_path / "labelled" / name).write_bytes(crop(number, camera))
    folder = ("calibrate", tmp_path / "labelled", "--model", settings.model, "--device", "cpu")
    read = resight(*folder, "--false-match-rate", "0.05", "--gallery", f"sqlite:///{tmp_path / 'none'}")
    assert read.stdout.splitlines()[2:5] == [third, fourth, rest[0]]
    assert "all people are taken as new to the model" in read.stderr

    told = tmp_path / "told.csv"
    lines = [f"labelled/{path.name},{path.name[:4]}" for path in sorted((tmp_path / "labelled").iterdir())]
    parts = ["train"] * 4 + ["query", "gallery"] * ((len(lines) - 4) // 2)
    told.write_text(
        "path,identity,split\n" + "".join(f"{row},{part}\n" for row, part in zip(lines, parts, strict=True))
    )
    new = resight("calibrate", told, "--model", settings.model, "--device", "cpu", "--false-match-rate", "0.05")
    assert new.stdout.splitlines()[2].startswith("on 20 crops of 10 people: ")
    assert "left out: 4 crops of the training part; a model that learnt from them knows" in new.stderr
    assert "taken as new" not in new.stderr
    few = resight("calibrate", "--gallery", settings.gallery, tmp_path / "nowhere", code=2)
    assert few.stderr.endswith("does not exist.\n")


def test_calibrate_measures_the_gallery_for_no_other_model_than_its_own(settings: Settings, tmp_path: Path) -> None:
    command = ("calibrate", "--gallery", settings.gallery, "--false-match-rate", "0.05", "--model")
    assert "embedded by the model tiny-colours (sha256 " in resight(*command, settings.model).stdout
    other = write_tiny_model(tmp_path / "new.onnx", {"name": "tiny-retrained"}, colours=(1.0, 0.2, -0.5))
    refused = resight(*command, other, code=2).stderr
    assert refused.startswith("The gallery's embeddings are of tiny-colours (sha256 ")
    assert refused.endswith(": name labelled crops for --model to embed, or leave --model out.\n")
    assert "There is no model file at" in resight(*command, tmp_path / "no.onnx", code=2).stderr


def test_compact(settings: Settings) -> None:
    done = resight("compact", "--gallery", settings.gallery)
    assert done.stdout.endswith(" MB now\n")
    with serve(settings):
        assert "in use by another process" in resight("compact", "--gallery", settings.gallery, code=2).stderr


def test_every_job_answers_programs_in_json(settings: Settings, tmp_path: Path) -> None:
    gallery = ["--gallery", settings.gallery, "--json"]
    made = json.loads(resight("backup", tmp_path / "backup", *gallery).stdout)
    assert made["counts"] == {"crops": 24, "identities": 12, "pictures": 24}
    other = ["--gallery", f"sqlite:///{tmp_path / 'other'}", "--json"]
    assert json.loads(resight("restore", tmp_path / "backup", *other).stdout)["counts"]["crops"] == 24
    assert json.loads(resight("export", tmp_path / "crops.tar", *gallery).stdout) == {"crops": 24, "without_picture": 0}
    third: list[str | Path] = ["--gallery", f"sqlite:///{tmp_path / 'third'}", "--model", settings.model, "--json"]
    imported = json.loads(resight("import", tmp_path / "crops.tar", *third).stdout)
    assert imported == {"created": 24, "known": 0, "left_out": []}
    assert json.loads(resight("compact", *gallery).stdout)["before"] > 0
    assert not json.loads(resight("reembed", "--model", settings.model, *gallery).stdout)["needed"]
    past = json.loads(resight("maintain", "--retention-days", "7", *gallery).stdout)
    assert (past["old"], past["crops"], past["too_many"], past["confirmed"]) == (0, 24, False, False)
