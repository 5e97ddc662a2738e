from __future__ import annotations

import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from training.config import build_config
from training.data import market1501, synthetic
from training.data.cache import decode_all
from training.data.dataset import DataError, Sample
from training.data.sampler import pk_batches
from training.data.transforms import Augment
from training.loop.runlog import data_fingerprint


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    synthetic.draw_market1501(folder, train_identities=6, test_identities=4, cameras=2, shots=2)
    return folder


def test_reader_takes_folders_and_zips_alike(drawn: Path, tmp_path: Path) -> None:
    for part in market1501.PARTS:
        with zipfile.ZipFile(tmp_path / f"{part}.zip", "w") as archive:
            for path in (drawn / part).iterdir():
                archive.write(path, f"{part}/{path.name}")
            archive.writestr(f"{part}/Thumbs.db", b"not a picture")
    folders, zips = market1501.read(drawn), market1501.read(tmp_path)
    for one, other in zip(folders.gallery, zips.gallery, strict=True):
        assert (one.name, one.identity, one.camera, one.read()) == (
            other.name,
            other.identity,
            other.camera,
            other.read(),
        )
    assert {sample.identity for sample in folders.gallery} >= {-1, 0}
    assert len(folders.train) == 24


@pytest.mark.parametrize(
    ("name", "identity", "camera"),
    [
        ("0002_c1s1_000451_03.jpg", 2, 1),
        ("-1_c6s3_000451_03.jpg", -1, 6),
        ("0000_c10s1_000451_03.jpeg", 0, 10),
        ("1488_c1s6_023021_00.jpg.jpg", 1488, 1),  # six queries of the original are called so
    ],
)
def test_names(name: str, identity: int, camera: int) -> None:
    match = market1501.NAME.match(name)
    assert match is not None
    assert (int(match[1]), int(match[2])) == (identity, camera)


def test_missing_part_is_named(drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="bounding_box_train"):
        market1501.read(tmp_path)
    with pytest.raises(DataError, match="is no folder"):
        market1501.read(tmp_path / "nowhere")
    (tmp_path / "bounding_box_train").mkdir()
    with pytest.raises(DataError, match="holds no picture"):
        market1501.read(tmp_path)
    (tmp_path / "bounding_box_train").rmdir()
    (tmp_path / "bounding_box_train.zip").write_bytes(b"rubbish")
    with pytest.raises(DataError, match="no readable zip"):
        market1501.read(tmp_path)


def copy_renamed(source: Path, target: Path, rename: dict[str, str]) -> None:
    """Copy a drawn data set, with the beginning of some names changed."""
    for path in source.rglob("*.jpg"):
        name = next(
            (new + path.name[len(old) :] for old, new in rename.items() if path.name.startswith(old)), path.name
        )
        (target / path.parent.name).mkdir(exist_ok=True, parents=True)
        (target / path.parent.name / name).write_bytes(path.read_bytes())


def test_split_is_checked(drawn: Path, tmp_path: Path) -> None:
    data = market1501.read(drawn)
    query, train = data.query[0].identity, data.train[0].identity
    copy_renamed(drawn, tmp_path / "shared", {f"{query:04d}": f"{train:04d}"})
    with pytest.raises(DataError, match="must be disjoint"):
        market1501.read(tmp_path / "shared")
    one_camera = {f"{s.identity:04d}_c{s.camera}": f"{s.identity:04d}_c1" for s in data.query + data.gallery}
    copy_renamed(drawn, tmp_path / "camera", one_camera)
    with pytest.raises(DataError, match="no query"):
        market1501.read(tmp_path / "camera")
    one_person = {f"{s.identity:04d}": f"{train:04d}" for s in data.train}
    copy_renamed(drawn, tmp_path / "person", one_person)
    with pytest.raises(DataError, match="two at least"):
        market1501.read(tmp_path / "person")


def test_incomplete_original_is_refused(monkeypatch: pytest.MonkeyPatch, drawn: Path) -> None:
    counts = {part: len(list((drawn / part).iterdir())) for part in market1501.PARTS}
    monkeypatch.setattr(market1501, "ORIGINAL_COUNTS", counts)
    assert market1501.read(drawn).name == "Market-1501"
    monkeypatch.setitem(counts, "bounding_box_train", 25)
    with pytest.raises(DataError, match="holds 24 pictures, Market-1501 has 25"):
        market1501.read(drawn)
    monkeypatch.setitem(counts, "query", 100)  # one part of another size: another data set
    assert market1501.read(drawn).name == drawn.name


def test_two_pictures_with_one_name_are_refused(drawn: Path, tmp_path: Path) -> None:
    copy_renamed(drawn, tmp_path, {})
    first = min((tmp_path / "query").iterdir())
    (tmp_path / "query" / "again").mkdir()
    (tmp_path / "query" / "again" / first.name).write_bytes(first.read_bytes())
    with pytest.raises(DataError, match=f"two pictures named {first.name}"):
        market1501.read(tmp_path)


def test_nobody_is_trained_on(drawn: Path, tmp_path: Path) -> None:
    copy_renamed(drawn, tmp_path, {})
    picture = min((tmp_path / "query").iterdir()).read_bytes()
    for name in ("-1_c1s1_000001_01.jpg", "0000_c1s1_000001_01.jpg"):
        (tmp_path / "bounding_box_train" / name).write_bytes(picture)
    data = market1501.read(tmp_path)
    assert (len(data.train), data.left_out) == (24, 2)
    assert min(sample.identity for sample in data.train) > 0


def test_a_person_of_train_in_the_gallery_is_refused(drawn: Path, tmp_path: Path) -> None:
    copy_renamed(drawn, tmp_path, {})
    train = min((tmp_path / "bounding_box_train").iterdir())
    (tmp_path / "bounding_box_test" / train.name).write_bytes(train.read_bytes())
    with pytest.raises(DataError, match="is in train and gallery"):
        market1501.read(tmp_path)


def test_the_fingerprint_is_of_names_and_lengths(drawn: Path, tmp_path: Path) -> None:
    copy_renamed(drawn, tmp_path, {})
    before, copied = data_fingerprint(market1501.read(drawn)), data_fingerprint(market1501.read(tmp_path))
    assert before["sha256"] == copied["sha256"]
    assert before["gallery"]["identities"] == 4  # people: neither distractors nor junk
    victim = min((tmp_path / "bounding_box_train").iterdir())
    victim.write_bytes(victim.read_bytes() + b"0")
    assert data_fingerprint(market1501.read(tmp_path))["sha256"] != before["sha256"]


def test_decoding_names_the_damaged_picture(drawn: Path, tmp_path: Path) -> None:
    copy_renamed(drawn, tmp_path, {})
    victim = sorted((tmp_path / "bounding_box_train").iterdir())[5]
    victim.write_bytes(victim.read_bytes()[:300])
    train = market1501.read(tmp_path).train
    with pytest.raises(DataError, match=victim.name):
        decode_all(train, 64, 32)
    asked: list[str] = []

    def counted(sample: Sample) -> Sample:
        def read() -> bytes:
            asked.append(sample.name)
            return sample.read()

        return replace(sample, read=read)

    with pytest.raises(DataError, match=victim.name):
        decode_all([counted(sample) for sample in train * 50], 64, 32, threads=1)
    assert len(asked) < 12 * 50  # the rest is not decoded


def test_decoding_resizes_and_keeps_the_order(drawn: Path) -> None:
    data = market1501.read(drawn)
    pictures = decode_all(data.train, 64, 32)
    assert pictures.shape == (24, 3, 64, 32)
    torch.testing.assert_close(pictures[3:4], decode_all(data.train[3:4], 64, 32))


LABELS = [label for label, count in enumerate((1, 2, 3, 4, 5, 9, 12, 17)) for _ in range(count)]


@pytest.mark.parametrize("epoch", range(20))
def test_batches_hold_shots_of_distinct_identities(epoch: int) -> None:
    for batch in pk_batches(LABELS, identities=3, shots=4, seed=7, epoch=epoch):
        counts = Counter(LABELS[index] for index in batch)
        assert list(counts.values()) == [4, 4, 4]


def test_epochs_differ_and_repeat() -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        return [batch.tolist() for batch in pk_batches(LABELS, identities=3, shots=4, seed=seed, epoch=epoch)]

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_an_epoch_of_images_shows_about_every_picture_and_none_twice_where_there_are_enough() -> None:
    labels = [label for label in range(40) for _ in range(12)]
    seen = np.concatenate(list(pk_batches(labels, identities=4, shots=4, seed=0, epoch=0)))
    assert len(seen) == len(set(seen.tolist()))
    assert len(seen) > 0.9 * len(labels)


def test_an_epoch_of_identities_shows_each_once() -> None:
    labels = [label for label in range(40) for _ in range(12)]
    batches = list(pk_batches(labels, identities=4, shots=4, seed=0, epoch=0, short=True))
    assert len(batches) == 10
    assert Counter(labels[index] for batch in batches for index in batch) == dict.fromkeys(range(40), 4)


def test_too_few_identities_are_named() -> None:
    with pytest.raises(ValueError, match="16 identities cannot be drawn from 8"):
        next(pk_batches(LABELS, identities=16, shots=4, seed=0, epoch=0))


def test_augmentation_is_seeded_and_off_is_off() -> None:
    pictures = torch.randint(0, 256, (6, 3, 64, 32), dtype=torch.uint8)
    augment = Augment(build_config("smoke"))
    torch.manual_seed(1)
    first = augment(pictures)
    torch.manual_seed(1)
    torch.testing.assert_close(augment(pictures), first, rtol=0, atol=0)
    assert not torch.equal(augment(pictures), first)
    plain = Augment(build_config("smoke", overrides=["flip=0", "translation=0", "erasing=0"]))
    mean, std = plain.mean, plain.std
    torch.testing.assert_close(plain(pictures), (pictures.float() / 255 - mean) / std)


def test_a_shift_alone_invents_no_colour() -> None:
    overrides = ["flip=0", "erasing=0", "translation=0.2"]
    augment = Augment(build_config("smoke", overrides=overrides))
    pictures = torch.randint(0, 2, (8, 3, 64, 32), dtype=torch.uint8) * 255
    shifted = augment(pictures) * augment.std + augment.mean
    assert ((shifted < 1e-5) | (shifted > 1 - 1e-5)).all()
    assert not torch.equal(shifted > 0.5, pictures > 0)
