"""What `resight enrol PATH…` reads: folders, zips, CSV tables and single image files, as labelled items.

Listing is eager (names and sizes only, so that a progress bar knows the total), reading is lazy. The order is
the sorted order of the names, so the same command reads the same crops in the same order again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

from service.cli.files import IMAGE_SUFFIXES, File, file_on_disk, is_image, list_zip, readable, to_item, walk
from service.cli.items import Item, Layout, Source, SourceError
from service.cli.tables import SPLITS, read_table
from service.marketnames import read_camera, read_market_name

TRAIN_PART = "bounding_box_train"
# Folders that hold crops of many people, not those of one: Market-1501's parts, and what one's own are divided into.
PARTS = frozenset({TRAIN_PART, "bounding_box_test", "query", "gt_bbox"})


@contextmanager
def open_sources(
    paths: Sequence[Path],
    *,
    layout: Layout | None = None,
    identity: str | None = None,
    camera: str | None = None,
) -> Iterator[list[Source]]:
    """List what lies at `paths`; zips stay open inside the `with`.

    The layout of each path is found out from its names, unless `layout` says it. `identity` and `camera`
    label the crops whose layout does not. Single image files among `paths` make one source, each by its own name.
    Raises SourceError for a path that cannot be understood and for labels that contradict the names.
    """
    given = identity, camera
    singles = [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    with ExitStack() as stack:
        sources = [_one_source(stack, path, layout, identity, camera) for path in paths if path not in singles]
        if singles:
            files = [file_on_disk(path, PurePosixPath(path.name)) for path in singles]
            name = str(singles[0]) if len(singles) == 1 else f"{len(singles):,} files"
            sources.append(_label(name, files, layout, identity, camera) if layout else _alone(name, files, given))
        yield sources


def _one_source(
    stack: ExitStack, path: Path, layout: Layout | None, identity: str | None, camera: str | None
) -> Source:
    if path.suffix.lower() == ".csv" and path.is_file():
        if layout not in (None, Layout.CSV):
            raise SourceError(f"{path} is a CSV: its layout cannot be {layout}")
        return read_table(path, identity, camera)
    if path.is_dir():
        files = walk(path)
    elif path.suffix.lower() == ".zip" and path.is_file():
        files = list_zip(stack, path, keep_top=layout is Layout.FOLDERS)
    elif not path.exists():
        raise SourceError(f"{path} does not exist")
    else:
        raise SourceError(f"{path} is neither an image, nor a folder, nor a .zip, nor a .csv")
    if layout is Layout.CSV:
        raise SourceError(f"{path} is no CSV; name the .csv file itself")
    return _label(str(path), files, layout or _detect(files, str(path)), identity, camera)


def _detect(files: Sequence[File], name: str) -> Layout:
    """Market-1501 names when most images have one and no folder is a person's; else folders or plain files by where
    the images lie."""
    images = [file.path for file in files if is_image(file.path)]
    named = 2 * sum(read_market_name(path.name) is not None for path in images) > len(images)
    holders = {path.parent for path in images}
    if named and all(not holder.name or holder.name in PARTS for holder in holders):
        return Layout.MARKET1501
    if named and len(holders) == 1:
        raise SourceError(
            f"{name} has one folder with images, {holders.pop()}, whose file names look like Market-1501's: say "
            "--layout market1501 when these tell the identity, or --layout folders when the folder's name does"
        )
    nested = sum(len(path.parts) > 1 for path in images)
    if nested in (0, len(images)):
        return Layout.FOLDERS if nested else Layout.FILES
    raise SourceError(
        f"{name} has images in folders and images beside these folders: say --layout folders when a folder's "
        "name is the identity, or --layout files when it is not"
    )


def _label(name: str, files: Sequence[File], layout: Layout, identity: str | None, camera: str | None) -> Source:
    images = [file for file in files if is_image(file.path)]
    others = tuple(readable(file.path) for file in files if not is_image(file.path))
    match layout:
        case Layout.MARKET1501:
            if identity or camera:
                raise SourceError(f"in {name} the file names say identity and camera; --layout files ignores them")
            return _label_by_market_name(name, images, others)
        case Layout.FOLDERS:
            if identity:
                raise SourceError(f"in {name} the folders say the identity; --layout files ignores them")
            items = [
                replace(
                    to_item(file),
                    identity=_person(file.path),
                    camera=read_camera(file.path.name) or camera,
                    split=_split(file.path),
                )
                for file in images
            ]
            return Source(name, layout, tuple(items), passed_over=others)
        case Layout.FILES:
            items = [replace(to_item(file), identity=identity, camera=camera) for file in images]
            return Source(name, layout, tuple(items), passed_over=others)
        case Layout.CSV:
            raise SourceError(f"{name} is no CSV; name the .csv file itself")


def label_alone(file: File, layout: Layout | None, identity: str | None, camera: str | None) -> Item | None:
    """One image by itself: what is given wins over what the layout says. None for junk, and for what is not of it.

    Without a layout, a folder's name is an identity, and a file in none may have its labels in its own name; the
    camera may stand in the name of either.
    """
    person = None if layout in (Layout.MARKET1501, Layout.FILES) else _person(file.path)
    if person is not None and person not in PARTS:
        return replace(to_item(file), identity=identity or person, camera=camera or read_camera(file.path.name))
    if layout in (Layout.FOLDERS, Layout.FILES):
        return replace(to_item(file), identity=identity, camera=camera)
    said = read_market_name(file.path.name)
    if said is None:
        return replace(to_item(file), identity=identity, camera=camera) if layout is None else None
    if said.junk and identity is None:
        return None
    named = replace(to_item(file), name=readable(file.path.name))
    return replace(named, identity=identity or said.identity, camera=camera or said.camera)


def _alone(name: str, files: Sequence[File], given: tuple[str | None, str | None]) -> Source:
    """Images that were named one by one."""
    said = [read_market_name(file.path.name) for file in files]
    named = [found for found in said if found is not None]
    found = [item for file in files if (item := label_alone(file, None, *given)) is not None]
    distractors = 0 if given[0] else sum(one.distractor for one in named)
    layout = Layout.MARKET1501 if named else Layout.FILES
    return Source(name, layout, tuple(found), len(files) - len(found), distractors)


def _label_by_market_name(name: str, images: Sequence[File], others: tuple[str, ...]) -> Source:
    """-1 (junk) is left out; 0000 (distractors) are many different people, so they get no identity."""
    items: list[Item] = []
    strangers: list[str] = []
    junk = distractors = 0
    for file in images:
        said = read_market_name(file.path.name)
        if said is None:
            strangers.append(readable(file.path))
        elif said.junk:
            junk += 1
        else:
            distractors += said.distractor
            item = replace(to_item(file), name=readable(file.path.name))
            split = "train" if file.path.parts[0] == TRAIN_PART else None
            items.append(replace(item, identity=said.identity, camera=said.camera, split=split))
    return Source(name, Layout.MARKET1501, tuple(items), junk, distractors, (*others, *strangers))


def _person(path: PurePosixPath) -> str | None:
    """The folder that is named after the person: the first, below train, query or gallery where there are such."""
    folders = path.parts[1:-1] if _split(path) else path.parts[:-1]
    return readable(folders[0]) if folders else None


def _split(path: PurePosixPath) -> str | None:
    """Which of train, query and gallery a person's folder lies in, where there are such."""
    return path.parts[0] if len(path.parts) > 2 and path.parts[0] in SPLITS else None
