"""Does a gallery in Milvus answer as the embedded one? `python -m benchmarks.milvus_ranks MARKET1501 milvus://…`.

Market-1501's gallery goes into both, and its queries are asked of both, each without the query's own camera. With
Milvus's exact index the same identities must come in the same order; with another one it is told how many queries have
the same nearest one, and the same ten.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
import uuid
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.host import host
from service.gallery.gallery import Gallery
from service.gallery.records import Answer, Filters, Labels, NewCrop, QueryOptions
from service.gallery.store import Model
from service.gallery_milvus.address import Address
from service.gallery_milvus.gallery import MilvusGallery
from service.gallery_milvus.rows import VECTOR
from service.inference.images import decode_crop
from service.inference.loading import load_engine
from service.inference.model import read_model
from service.marketnames import read_market_name

AT_ONCE = 500
RANKED = 10
HANDED_OVER_SECONDS = 15.0  # in which the query nodes take an indexed segment for a growing one


@dataclass(frozen=True)
class Embedded:
    """Pictures of one of Market-1501's archives, without junk: names, ids, and embeddings [n, D]."""

    names: list[str]
    crop_ids: list[str]
    vectors: NDArray[np.float32]


def embedded(archive: Path, model: Path, cache: Path) -> Embedded:
    """Embeds an archive's pictures with the service's engine; what was embedded once is kept in `cache`."""
    kept = cache / f"{archive.stem}-{read_model(model).info.sha256[:12]}.npz"
    if not kept.exists():
        engine = load_engine(read_model(model), "cpu", 2, None, cache)
        info = engine.info
        names, ids, vectors = [], [], []
        with zipfile.ZipFile(archive) as pictures:
            listed = sorted(name for name in pictures.namelist() if _is_person(name))
            for start in range(0, len(listed), engine.max_batch):
                part = listed[start : start + engine.max_batch]
                contents = [pictures.read(name) for name in part]
                crops = np.stack([decode_crop(content, info.height, info.width) for content in contents])
                vectors.append(engine.run(crops).embeddings)
                names += [Path(name).name for name in part]
                ids += [str(uuid.UUID(bytes=hashlib.sha256(content).digest()[:16])) for content in contents]
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(kept, names=names, ids=ids, vectors=np.concatenate(vectors))
    with np.load(kept) as found:
        return Embedded(found["names"].tolist(), found["ids"].tolist(), found["vectors"])


def _is_person(name: str) -> bool:
    read = read_market_name(Path(name).name)
    return read is not None and not read.junk


def crops_of(gallery: Embedded) -> Iterator[list[NewCrop]]:
    """What is enrolled, some at a time."""
    crops = []
    for name, crop_id, vector in zip(gallery.names, gallery.crop_ids, gallery.vectors, strict=True):
        read = read_market_name(name)
        assert read is not None  # the others were left out
        crops.append(NewCrop(crop_id, vector, None, Labels(read.identity, read.camera)))
    for start in range(0, len(crops), AT_ONCE):
        yield crops[start : start + AT_ONCE]


def ranks(answer: Answer) -> list[tuple[str | None, str]]:
    """The ranking: identities, and the nearest crop of each."""
    return [(match.identity, match.crop.crop_id) for match in answer.matches]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="the folder with query.zip and bounding_box_test.zip")
    parser.add_argument("milvus", type=Address.parse, help="milvus://HOST:PORT/COLLECTION, a collection to fill")
    parser.add_argument("--model", type=Path, default=Path("models/market1501-int8.onnx"))
    parser.add_argument("--index", default="exact", help="exact, hnsw, ivf or compressed")
    parser.add_argument("--queries", type=int, default=3368, help="so many, evenly over all")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "resight-market1501")
    options = parser.parse_args()
    info = read_model(options.model).info
    gallery = embedded(options.data / "bounding_box_test.zip", options.model, options.cache)
    queries = embedded(options.data / "query.zip", options.model, options.cache)
    model = Model(info.sha256, info.name, info.embedding_dim)
    with tempfile.TemporaryDirectory() as folder:
        here = Gallery.open(Path(folder), model.sha256, model.name, model.dim, None, None)
        there = MilvusGallery.open(options.milvus, model, index=options.index)
        with here, there:
            started = time.perf_counter()
            for some in crops_of(gallery):
                there.enrol(some)
            enrolled = time.perf_counter() - started
            if options.index != "exact":
                _index(there)
            for some in crops_of(gallery):
                here.enrol(some)
            compared = _compare(here, there, queries, options.queries)
    print(json.dumps({"host": host(), "index": options.index, "enrolled_s": round(enrolled, 1), **compared}, indent=1))


def _index(there: MilvusGallery) -> None:
    """Waits until what was enrolled is in segments that have their index: growing ones are searched exactly."""
    server, crops = there.crops.server, there.collections.crops
    server.call("flush", 120, crops)
    while int(server.call("describe_index", 120, crops, VECTOR).get("pending_index_rows", 0)):
        time.sleep(1)
    time.sleep(HANDED_OVER_SECONDS)


def _compare(here: Gallery, there: MilvusGallery, queries: Embedded, count: int) -> dict[str, object]:
    chosen = np.linspace(0, len(queries.names) - 1, min(count, len(queries.names))).astype(int)
    nearest = same = distances = 0
    exact = True
    seconds: list[float] = []
    for at in chosen.tolist():
        read = read_market_name(queries.names[at])
        assert read is not None
        asked = QueryOptions(RANKED, filters=Filters(exclude_cameras=frozenset({read.camera})), strong=at == chosen[0])
        expected = here.query(queries.vectors[at : at + 1], asked)
        started = time.perf_counter()
        found = there.query(queries.vectors[at : at + 1], asked)
        seconds.append(time.perf_counter() - started)
        nearest += ranks(found)[:1] == ranks(expected)[:1]
        same += ranks(found) == ranks(expected)
        distances += found.matches == expected.matches
        exact &= found.exact
    return {
        "crops": here.crop_count,
        "queries": len(chosen),
        "same_nearest": nearest,
        "same_ten": same,
        "equal_to_the_last_bit": distances,
        "exact": exact,
        "ms_median": round(float(np.median(seconds)) * 1e3, 1),
        "ms_p95": round(float(np.quantile(seconds, 0.95)) * 1e3, 1),
    }


if __name__ == "__main__":
    main()
