"""What is derived for a GPU is the same model, and what is kept of it is not trusted."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from service.inference import derived
from service.inference.derived import DERIVATION, DIGEST_BYTES, derive, derive_cached
from service.inference.loading import load_engine
from service.inference.model import ModelError, ModelFile, read_model
from tests.tiny_model import DIM, in_ort_format, write_tiny_model


def test_it_keeps_name_identity_and_curve(model_file: ModelFile) -> None:
    info = derive(model_file).info
    assert (info.name, info.sha256) == (model_file.info.name, model_file.info.sha256)
    assert (info.precision, info.derivation) == ("fp16", DERIVATION)
    assert info.impostor_curve == model_file.info.impostor_curve


def test_it_serves_on_any_device(model_file: ModelFile) -> None:
    assert load_engine(derive(model_file), "cpu", threads=1, max_batch=2).info.precision == "fp16"


def test_its_self_test_is_its_own(model_file: ModelFile) -> None:
    info = derive(model_file).info
    assert info.test_embedding @ model_file.info.test_embedding > 0.999
    assert not np.array_equal(info.test_embedding, model_file.info.test_embedding)


def test_an_fp16_file_stays_as_it_is(tmp_path: Path) -> None:
    file = read_model(write_tiny_model(tmp_path / "m.onnx", {"precision": "fp16"}))
    assert derive(file) is file
    assert derive_cached(file, tmp_path / "cache") is file


def test_one_that_embeds_otherwise_is_refused(model_file: ModelFile) -> None:
    other = replace(model_file.info, test_embedding=np.full(DIM, DIM**-0.5, np.float32))
    with pytest.raises(ModelError, match=r"embeds the test pattern with cosine .* 0.999 is needed"):
        derive(ModelFile(other, model_file.content))


def test_a_graph_that_cannot_be_derived_names_the_file(model_file: ModelFile) -> None:
    model = onnx.load_from_string(model_file.content)
    model.graph.node[0].input[0] = "nowhere"
    with pytest.raises(ModelError, match=r"tiny.onnx cannot be made fp16 for a GPU: "):
        derive(ModelFile(model_file.info, model.SerializeToString()))


def test_from_ort_format_nothing_can_be_derived(model_path: Path, tmp_path: Path) -> None:
    file = read_model(in_ort_format(model_path, tmp_path / "tiny.ort"))
    assert load_engine(file, "cpu", threads=1, max_batch=2).info == file.info
    with pytest.raises(ModelError, match=r"tiny.ort cannot be made fp16 for a GPU: it is in ORT format"):
        derive_cached(file, tmp_path / "cache")  # as a start on a GPU does


def kept(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def forbid(_: ModelFile) -> ModelFile:
    raise AssertionError("derived anew")


def test_a_second_start_takes_what_is_kept(
    model_file: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = derive_cached(model_file, tmp_path / "cache")
    monkeypatch.setattr(derived, "derive", forbid)
    second = derive_cached(model_file, tmp_path / "cache")
    assert second.content == first.content
    assert second.info.path == model_file.info.path


def with_digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest() + content


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "no model", "source", "other model"])
def test_what_is_kept_but_wrong_is_made_anew(
    model_file: ModelFile, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "cache"
    good = derive_cached(model_file, folder).content
    path = kept(folder)
    data = path.read_bytes()
    other = derive(read_model(write_tiny_model(tmp_path / "other.onnx", colours=(1, 2, 1))))
    wrong = {
        "cut": data[:-100],
        "flipped": data[: DIGEST_BYTES + 50] + bytes([data[DIGEST_BYTES + 50] ^ 1]) + data[DIGEST_BYTES + 51 :],
        "empty": b"",
        "no model": with_digest(b"no model"),
        "source": with_digest(model_file.content),
        "other model": with_digest(other.content),
    }
    path.write_bytes(wrong[damage])
    assert derive_cached(model_file, folder).info.sha256 == model_file.info.sha256
    assert "made anew" in caplog.text
    assert kept(folder).read_bytes()[DIGEST_BYTES:] == good


def test_what_is_kept_but_huge_is_not_read(
    model_file: ModelFile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = derive_cached(model_file, tmp_path).content
    with kept(tmp_path).open("ab") as file:
        file.truncate(1 << 40)
    assert derive_cached(model_file, tmp_path).content == good
    assert vars(caplog.records[-1])["reason"] == "it is too large"
    assert kept(tmp_path).stat().st_size == DIGEST_BYTES + len(good)


def test_only_the_present_models_is_kept(model_file: ModelFile, tmp_path: Path) -> None:
    other = read_model(write_tiny_model(tmp_path / "other.onnx", colours=(1, 2, 1)))
    derive_cached(other, tmp_path / "cache")
    derive_cached(model_file, tmp_path / "cache")
    assert kept(tmp_path / "cache").name.startswith(model_file.info.sha256)


def test_a_folder_that_cannot_be_written_is_no_reason_not_to_start(
    model_file: ModelFile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file, where the folder should be")
    assert derive_cached(model_file, tmp_path / "cache").info.precision == "fp16"
    assert "cannot be kept" in caplog.text


@pytest.mark.parametrize(
    "value", ['{"sha256": "12"}', '{"derivation": "fp16/1"}', "[]", '{"sha256": 1, "derivation": 2}']
)
def test_a_file_with_a_doubtful_source_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(ModelError, match="derived_from"):
        read_model(write_tiny_model(tmp_path / "m.onnx", {"derived_from": value}))
