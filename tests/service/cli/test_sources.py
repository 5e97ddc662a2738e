from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from service.cli.items import MAX_FILE_BYTES, Item, Layout, Source, SourceError
from service.cli.sources import open_sources

MARKET = {
    "0002_c1s1_000451_03.jpg": b"a",
    "0002_c3s2_000007_01.jpg": b"b",
    "1501_c6s4_001902_01.jpg.jpg": b"c",
    "0000_c2s1_000151_01.jpg": b"d",
    "0000_c4s1_000151_02.jpg": b"e",
    "-1_c1s1_000401_03.jpg": b"f",
}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def one(path: Path, layout: Layout | None = None, identity: str | None = None, camera: str | None = None) -> Source:
    with open_sources([path], layout=layout, identity=identity, camera=camera) as sources:
        [source] = sources
        return source


def labels(source: Source) -> list[tuple[str, str | None, str | None]]:
    return [(item.name, item.identity, item.camera) for item in source.items]


MARKET_LABELS = [
    ("0000_c2s1_000151_01.jpg", None, "c2"),
    ("0000_c4s1_000151_02.jpg", None, "c4"),
    ("0002_c1s1_000451_03.jpg", "0002", "c1"),
    ("0002_c3s2_000007_01.jpg", "0002", "c3"),
    ("1501_c6s4_001902_01.jpg.jpg", "1501", "c6"),
]


def test_market_names_in_a_folder(tmp_path: Path) -> None:
    source = one(write(tmp_path / "test", MARKET))
    assert source.layout is Layout.MARKET1501
    assert labels(source) == MARKET_LABELS
    assert (source.junk, source.distractors, source.passed_over) == (1, 2, ())
    assert [item.read() for item in source.items] == [b"d", b"e", b"a", b"b", b"c"]


def test_market_names_in_a_zip_with_a_folder_in_it(tmp_path: Path) -> None:
    files = {f"Market/bounding_box_test/{name}": data for name, data in MARKET.items()}
    files |= {"Market/bounding_box_test/Thumbs.db": b"x", "Market/readme.txt": b"x", "__MACOSX/._0002.jpg": b"x"}
    path = pack(tmp_path / "market.zip", files)
    with open_sources([path]) as [source]:
        assert labels(source) == MARKET_LABELS
        assert [item.read() for item in source.items] == [b"d", b"e", b"a", b"b", b"c"]
        assert len(source.passed_over) == 3
        assert source.describe() == (
            f"reading 5 crops, Market-1501 names, from {path}: 2 identities; "
            "2 distractors (0000) enrolled without identity; 1 junk (-1) left out; "
            "3 other files passed over (__MACOSX/._0002.jpg, bounding_box_test/Thumbs.db, readme.txt)"
        )


def test_a_zip_made_by_windows_has_backslashes(tmp_path: Path) -> None:
    path = pack(tmp_path / "w.zip", {"test\\0002_c1s1_000451_03.jpg": b"a"})
    assert labels(one(path)) == [("0002_c1s1_000451_03.jpg", "0002", "c1")]


def test_dukemtmc_names_read_alike(tmp_path: Path) -> None:
    assert labels(one(write(tmp_path / "d", {"0005_c2_f0046985.jpg": b"a"}))) == [
        ("0005_c2_f0046985.jpg", "0005", "c2")
    ]


def test_most_names_decide_and_the_strangers_are_reported(tmp_path: Path) -> None:
    source = one(write(tmp_path / "test", {**MARKET, "cover.png": b"x", ".hidden.jpg": b"x"}))
    assert labels(source) == MARKET_LABELS
    assert source.passed_over == (".hidden.jpg", "cover.png")


PEOPLE = {"0042/b.png": b"1", "0042/a.jpg": b"2", "anna/tour/c.webp": b"3", "anna/notes.txt": b"x"}


def test_a_folder_for_each_identity(tmp_path: Path) -> None:
    source = one(write(tmp_path / "people", PEOPLE), camera="door")
    assert source.layout is Layout.FOLDERS
    assert labels(source) == [
        ("0042/a.jpg", "0042", "door"),
        ("0042/b.png", "0042", "door"),
        ("anna/tour/c.webp", "anna", "door"),
    ]
    assert source.passed_over == ("anna/notes.txt",)
    assert one(tmp_path / "people").items[0].camera is None


@pytest.mark.parametrize("top", ["", "train/", "gallery/"])
def test_a_persons_folder_says_who_it_is_whatever_the_files_are_called(tmp_path: Path, top: str) -> None:
    names = [f"{top}{person}/{n:04d}_c{n}s1_000451_03.jpg" for person in ("anna", "ben") for n in (1, 2)]
    source = one(write(tmp_path / "people", dict.fromkeys(names, b"1")))
    assert source.layout is Layout.FOLDERS
    assert [item.identity for item in source.items] == ["anna", "anna", "ben", "ben"]
    assert [item.camera for item in source.items] == ["c1", "c2", "c1", "c2"]
    assert [item.camera for item in one(tmp_path / "people", camera="door").items] == ["c1", "c2", "c1", "c2"]
    assert {item.split for item in source.items} == {top.strip("/") or None}


def test_the_training_part_of_a_benchmark_is_known(tmp_path: Path) -> None:
    parts = {part: f"000{n}_c1s1_000001_01.jpg" for n, part in enumerate(("bounding_box_train", "query"), 1)}
    source = one(write(tmp_path / "market", {f"{part}/{name}": b"1" for part, name in parts.items()}))
    assert {item.identity: item.split for item in source.items} == {"0001": "train", "0002": None}


def test_one_folder_of_market_names_is_asked_about(tmp_path: Path) -> None:
    folder = write(tmp_path / "examples", {f"crops/{name}": data for name, data in MARKET.items()})
    with pytest.raises(SourceError, match=r"one folder with images, crops, .*--layout market1501 .*--layout folders"):
        one(folder)
    assert labels(one(folder, Layout.MARKET1501)) == MARKET_LABELS
    assert {item.identity for item in one(folder, Layout.FOLDERS).items} == {"crops"}


def test_the_parts_of_a_benchmark_are_nobodys_folders(tmp_path: Path) -> None:
    names = [f"Market/{part}/0002_c1s1_000451_03.jpg" for part in ("bounding_box_train", "query", "gt_bbox")]
    assert {item.identity for item in one(write(tmp_path / "m", dict.fromkeys(names, b"1"))).items} == {"0002"}


@pytest.mark.parametrize("top", ["", "people/"])
def test_a_folder_for_each_identity_in_a_zip(tmp_path: Path, top: str) -> None:
    path = pack(tmp_path / "people.zip", {top + name: data for name, data in PEOPLE.items()})
    assert [item.identity for item in one(path).items] == ["0042", "0042", "anna"]


def test_the_only_folder_of_a_zip_is_no_identity_unless_said(tmp_path: Path) -> None:
    path = pack(tmp_path / "z.zip", {"0042/a.jpg": b"1", "0042/b.jpg": b"2"})
    assert labels(one(path)) == [("a.jpg", None, None), ("b.jpg", None, None)]
    assert [item.identity for item in one(path, Layout.FOLDERS).items] == ["0042", "0042"]


def test_plain_files_take_the_labels_given(tmp_path: Path) -> None:
    source = one(write(tmp_path / "shots", {"b.JPG": b"1", "a.webp": b"2"}), identity="0042", camera="c3")
    assert source.layout is Layout.FILES
    assert labels(source) == [("a.webp", "0042", "c3"), ("b.JPG", "0042", "c3")]


def test_images_beside_folders_need_a_word(tmp_path: Path) -> None:
    folder = write(tmp_path / "mixed", {"0042/a.jpg": b"1", "b.jpg": b"2"})
    with pytest.raises(SourceError, match="--layout folders"):
        one(folder)
    assert [item.identity for item in one(folder, Layout.FOLDERS).items] == ["0042", None]
    assert [item.identity for item in one(folder, Layout.FILES, identity="7").items] == ["7", "7"]


def test_single_images_make_one_source_after_the_others(tmp_path: Path) -> None:
    write(tmp_path, {"b.jpg": b"1", "a.jpg": b"2", "people/0042/c.jpg": b"3"})
    with open_sources([tmp_path / "b.jpg", tmp_path / "people", tmp_path / "a.jpg"]) as [folder, files]:
        assert [item.identity for item in folder.items] == ["0042"]
        assert [item.name for item in files.items] == ["b.jpg", "a.jpg"]
        assert files.describe() == "reading 2 crops, plain image files, from 2 files"


def test_labels_given_win_over_the_name_of_a_single_image(tmp_path: Path) -> None:
    path = write(tmp_path, {"0002_c1s1_000451_03.jpg": b"1"}) / "0002_c1s1_000451_03.jpg"
    assert labels(one(path)) == [(path.name, "0002", "c1")]
    assert labels(one(path, camera="c9")) == [(path.name, "0002", "c9")]
    assert labels(one(path, identity="anna")) == [(path.name, "anna", "c1")]
    assert labels(one(path, Layout.FILES, camera="c9")) == [(path.name, None, "c9")]


def test_single_images_are_each_labelled_by_their_own_names(tmp_path: Path) -> None:
    names = ["0002_c1s1_000451_03.jpg", "anna.jpg", "ben.jpg", "-1_c1s1_000401_03.jpg", "0000_c2s1_000151_01.jpg"]
    write(tmp_path, dict.fromkeys(names, b"1"))
    with open_sources([tmp_path / name for name in names]) as [source]:
        assert labels(source) == [
            (names[0], "0002", "c1"),
            (names[1], None, None),
            (names[2], None, None),
            (names[4], None, "c2"),
        ]
        assert (source.layout, source.junk, source.distractors) == (Layout.MARKET1501, 1, 1)


@pytest.mark.parametrize(("identity", "camera"), [("7", None), (None, "c7")])
def test_labels_that_contradict_market_names_are_refused(
    tmp_path: Path, identity: str | None, camera: str | None
) -> None:
    with pytest.raises(SourceError, match="file names say"):
        one(write(tmp_path / "test", MARKET), identity=identity, camera=camera)


def test_an_identity_that_contradicts_the_folders_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="folders say the identity"):
        one(write(tmp_path / "people", PEOPLE), identity="7")


@pytest.mark.parametrize("separator", [",", ";"])
def test_a_table(tmp_path: Path, separator: str) -> None:
    write(tmp_path, {"shots/a.jpg": b"1", "b, c.jpg": b"2"})
    rows = [
        ["path", "identity", "camera", "captured_at", "track", "split"],
        ["shots/a.jpg", "0042", "c1", "2026-11-01T10:00:00Z", "t7", "train"],
        ['"b, c.jpg"', "", "", "", "", ""],
        ["gone.jpg", "7", "", "", "", "query"],
    ]
    text = "\r\n".join(separator.join(row) for row in rows) + "\r\n"
    table = tmp_path / "crops.csv"
    table.write_bytes(b"\xef\xbb\xbf" + text.encode())
    source = one(table, camera="c9")
    first, second, gone = source.items
    assert (first.identity, first.camera, first.captured_at, first.track) == (
        "0042",
        "c1",
        "2026-11-01T10:00:00Z",
        "t7",
    )
    assert (second.identity, second.camera, second.captured_at, second.track) == (None, "c9", None, None)
    assert [item.split for item in source.items] == ["train", None, "query"]
    assert (first.name, first.read(), second.read()) == ("shots/a.jpg", b"1", b"2")
    with pytest.raises(SourceError, match="No such file"):
        gone.read()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("path,cam\na.jpg,c1\n", "unknown columns 'cam'"),
        ("path,split\na.jpg,query\nb.jpg,test\n", "line 3: split is 'test', not one of train, query, gallery"),
        ("identity\n0042\n", "no column 'path'"),
        ("path,identity\na.jpg,1\n,2\n", "line 3"),
        ("path,identity\na.jpg,1,2\n", "line 2"),
        ("", "no column 'path'"),
    ],
)
def test_a_table_that_cannot_be_understood(tmp_path: Path, text: str, reason: str) -> None:
    table = tmp_path / "crops.csv"
    table.write_text(text)
    with pytest.raises(SourceError, match=reason):
        one(table)


def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"notes.txt": b"x", "broken.zip": b"PK no zip", "crops.csv": b"path\n"})
    for name, reason in [("notes.txt", "neither"), ("broken.zip", "cannot be opened"), ("gone", "not exist")]:
        with pytest.raises(SourceError, match=reason):
            one(tmp_path / name)
    with pytest.raises(SourceError, match="is a CSV"):
        one(tmp_path / "crops.csv", Layout.FOLDERS)
    with pytest.raises(SourceError, match="is no CSV"):
        one(tmp_path, Layout.CSV)


def test_a_damaged_member_fails_by_itself(tmp_path: Path) -> None:
    path = pack(tmp_path / "z.zip", {"a.jpg": b"first " * 50, "b.jpg": b"second " * 50})
    data = bytearray(path.read_bytes())
    start = data.index(b"a.jpg") + len("a.jpg")
    data[start : start + 8] = b"\xff" * 8
    path.write_bytes(data)
    with open_sources([path]) as [source]:
        with pytest.raises(SourceError, match="unpacked"):
            source.items[0].read()
        assert source.items[1].read() == b"second " * 50


def test_a_file_over_the_limit_is_not_even_read() -> None:
    def load() -> bytes:
        raise AssertionError("was read")

    with pytest.raises(SourceError, match="8 MiB"):
        Item("big.jpg", MAX_FILE_BYTES + 1, load).read()


def test_an_empty_folder_holds_nothing(tmp_path: Path) -> None:
    source = one(tmp_path)
    assert source.items == ()
    assert source.describe() == f"reading 0 crops, plain image files, from {tmp_path}"


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "t.csv").write_text("path\npipe.jpg\ndevice.jpg\nfolder.jpg\n")
    for item in one(tmp_path / "t.csv").items + one(tmp_path, Layout.FILES).items:
        with pytest.raises(SourceError, match="no regular file"):
            item.read()
    with pytest.raises(SourceError, match="neither an image"):
        one(tmp_path / "pipe.jpg")


def test_a_name_that_no_file_can_have_fails_by_itself(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")
    (tmp_path / "t.csv").write_bytes(b"path\na\0b.jpg\na.jpg\n")
    bad, good = one(tmp_path / "t.csv").items
    with pytest.raises(SourceError, match="no file has such a name"):
        bad.read()
    assert good.read() == b"a"


def test_a_name_that_is_not_utf8_is_written_with_replacements(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/Zo\xeb"
    os.mkdir(folder)
    for name in (b"/caf\xe9.jpg", b"/caf\xe9.txt"):
        Path(os.fsdecode(folder + name)).write_bytes(b"a")
    source = one(tmp_path)
    assert labels(source) == [("Zo\ufffd/caf\ufffd.jpg", "Zo\ufffd", None)]
    assert source.passed_over == ("Zo\ufffd/caf\ufffd.txt",)
    assert source.items[0].read() == b"a"


def test_an_encrypted_member_is_a_sentence(tmp_path: Path) -> None:
    path = pack(tmp_path / "secret.zip", {"a.jpg": b"a"})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the directory
    path.write_bytes(content)
    with open_sources([path]) as [source], pytest.raises(SourceError, match=r"^is encrypted; unpack the zip"):
        source.items[0].read()
