"""Who asks and who answers, and everything that is measured on them."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tests.training.retrieval.cells import HEIGHT, WIDTH, cell_means, unit
from training.data.dataset import DataError, Dataset
from training.data.reading import read
from training.retrieval.camera_pairs import camera_pairs
from training.retrieval.metrics import cosine_distances, rank_metrics, rank_metrics_of_distances
from training.retrieval.onnx_model import OnnxModel
from training.retrieval.protocol import Evaluation, Options, evaluate, evaluate_embeddings
from training.retrieval.ranking import ranking_of
from training.retrieval.rerank import Reciprocal, reranked_distances
from training.retrieval.single_shot import single_gallery_shot

EVERYTHING = Options(rerank=Reciprocal(k1=4, k2=2), single_gallery_shot=True, camera_pairs=True, multi_query=True)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("saved")


@pytest.fixture(scope="module")
def everything(own_file: Path, data: Dataset, saved: Path) -> Evaluation:
    return evaluate(OnnxModel(own_file, threads=1), data, save=saved, options=EVERYTHING)


def test_an_own_file_needs_nothing_told(own_file: Path, data: Dataset, tmp_path: Path) -> None:
    found = evaluate(OnnxModel(own_file, threads=1), data, batch=4, save=tmp_path)
    ranking = ranking_of(data, "test")
    for name, samples in (("query", ranking.query), ("gallery", ranking.gallery)):
        expected = unit(np.stack([cell_means(sample) for sample in samples]))
        saved = np.load(tmp_path / f"{name}.npy")
        assert saved.dtype == np.float32
        np.testing.assert_allclose(saved, expected, atol=1e-5)
    assert (found.size, found.dim, found.split, found.flip) == ((HEIGHT, WIDTH), 24, "test", False)
    assert (found.queries, found.gallery) == (10, 23)  # 5 identities x 2 cameras x 2 shots, 3 distractors
    assert found.metrics.queries == 10


def test_saved_embeddings_give_the_figures_again(own_file: Path, data: Dataset, tmp_path: Path) -> None:
    first = evaluate(OnnxModel(own_file), data, save=tmp_path)
    again = evaluate_embeddings(tmp_path, data)
    assert again.metrics == first.metrics
    assert again.sha256 is None
    assert first.sha256 is not None
    assert len(first.sha256) == 64


def test_embeddings_of_other_pictures_are_refused(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no readable \.npy"):
        evaluate_embeddings(tmp_path, data)
    np.save(tmp_path / "query.npy", np.zeros((3, 8), np.float32))
    with pytest.raises(DataError, match=r"query.npy holds float32 \(3, 8\): floats \(10, D\)"):
        evaluate_embeddings(tmp_path, data)


def test_the_training_part_can_be_measured(own_file: Path, data: Dataset) -> None:
    found = evaluate(OnnxModel(own_file), data, split="train")
    assert found.queries == 6
    assert found.protocol.startswith("the training part, those of its identities too that a run held out; ")


def test_progress_is_shown_on_the_given_console(own_file: Path, data: Dataset) -> None:
    screen = io.StringIO()
    evaluate(OnnxModel(own_file), data, console=Console(file=screen, force_terminal=True, width=100))
    assert "33/33" in screen.getvalue()


def test_the_data_may_lie_in_zips(own_file: Path, folder: Path, tmp_path: Path) -> None:
    for part in ("bounding_box_train", "bounding_box_test", "query"):
        with zipfile.ZipFile(tmp_path / f"{part}.zip", "w") as archive:
            for path in (folder / part).iterdir():
                archive.write(path, f"{part}/{path.name}")
    zips, folders = read(tmp_path), read(folder)
    assert evaluate(OnnxModel(own_file), zips).metrics == evaluate(OnnxModel(own_file), folders).metrics


def test_everything_is_measured_on_the_same_embeddings(everything: Evaluation, data: Dataset, saved: Path) -> None:
    ranking = ranking_of(data, "test")
    labels = ranking.labels()
    query, gallery = np.load(saved / "query.npy"), np.load(saved / "gallery.npy")
    assert everything.metrics == rank_metrics(query, gallery, labels)
    again = rank_metrics_of_distances(reranked_distances(query, gallery, Reciprocal(k1=4, k2=2)), labels)
    assert everything.reranked == again
    assert everything.single_gallery_shot == single_gallery_shot(cosine_distances(query, gallery), labels)
    assert everything.camera_pairs == camera_pairs(query, gallery, labels)


def test_a_multi_query_is_the_mean_of_its_pictures(everything: Evaluation, data: Dataset, saved: Path) -> None:
    ranking = ranking_of(data, "test")
    assert len(data.multi_query) == 30
    asked = np.stack(
        [
            np.mean(
                [
                    unit(cell_means(picture)[None])[0]
                    for picture in data.multi_query
                    if (picture.identity, picture.camera) == (query.identity, query.camera)
                ],
                axis=0,
            )
            for query in ranking.query
        ]
    )
    expected = rank_metrics(unit(asked), np.load(saved / "gallery.npy"), ranking.labels())
    assert everything.multi_query is not None
    assert everything.multi_query.mAP == pytest.approx(expected.mAP, abs=1e-6)
    assert everything.multi_query != everything.metrics


def test_all_of_it_comes_again_from_the_saved_embeddings(everything: Evaluation, data: Dataset, saved: Path) -> None:
    again = evaluate_embeddings(saved, data, options=EVERYTHING)
    own = {"model": str(saved), "sha256": None, "size": None, "flip": None, "seconds": again.seconds}
    assert again == replace(everything, **own)  # type: ignore[arg-type]


def test_an_evaluation_is_json_and_can_be_sent(everything: Evaluation) -> None:
    values = json.loads(json.dumps(everything.as_dict()))
    assert values["protocol"].startswith("single query")
    assert (values["rank1"], values["mAP"]) == (everything.metrics.rank(1), everything.metrics.mAP)
    assert everything.reranked is not None
    assert values["reranked"]["rank1"] == everything.reranked.rank(1)
    assert values["reranked"]["mAP"] == everything.reranked.mAP
    assert values["reranked"]["protocol"] == "k-reciprocal re-ranking, k1 4, k2 2, lambda 0.3"
    assert values["multi_query"]["protocol"].startswith("multi-query")
    assert values["single_gallery_shot"]["protocol"].endswith("10 draws a query")
    assert values["camera_pairs"]["rank1"][0][0] is None
    assert pickle.loads(pickle.dumps(everything)) == everything


def test_what_was_not_measured_is_not_in_it(own_file: Path, data: Dataset) -> None:
    values = evaluate(OnnxModel(own_file), data).as_dict()
    assert not {"rerank", "reranked", "multi_query", "single_gallery_shot", "camera_pairs"} & set(values)


def test_cuhk03_is_always_measured_by_its_classic_metric_too(own_file: Path, data: Dataset) -> None:
    assert evaluate(OnnxModel(own_file), data).single_gallery_shot is None
    found = evaluate(OnnxModel(own_file), replace(data, name="CUHK03 (labeled)"))
    assert found.single_gallery_shot is not None


def test_without_cameras_a_match_of_the_same_camera_counts(own_file: Path, folder: Path, data: Dataset) -> None:
    blind = evaluate(OnnxModel(own_file), read(folder, ignore_cameras=True))
    assert "cameras unknown" in blind.as_dict()["protocol"]
    assert blind.metrics != evaluate(OnnxModel(own_file), data).metrics


def test_what_the_data_cannot_give_is_refused_before_anything_is_embedded(
    own_file: Path, folder: Path, data: Dataset
) -> None:
    model = OnnxModel(own_file)
    blind = read(folder, ignore_cameras=True)
    with pytest.raises(DataError, match="no camera pairs where no camera is known"):
        evaluate(model, blind, options=Options(camera_pairs=True))
    with pytest.raises(DataError, match="averages over a query's camera"):
        evaluate(model, blind, options=Options(multi_query=True))
    with pytest.raises(DataError, match="only the market1501 layout has them, in gt_bbox"):
        evaluate(model, replace(data, multi_query=()), options=Options(multi_query=True))
    with pytest.raises(DataError, match="for the test split"):
        evaluate(model, data, split="train", options=Options(multi_query=True))
