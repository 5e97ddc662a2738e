"""Which gallery the settings name: the embedded one in a folder, or the distributed one in Milvus."""

from __future__ import annotations

from service.gallery.audit import Audit
from service.gallery.building import Searching
from service.gallery.contract import AnyAudit, AnyGallery
from service.gallery.gallery import Gallery
from service.gallery.ranking import ImpostorCurve
from service.gallery.records import GalleryUnavailable
from service.gallery.store import Model
from service.gallery_milvus.address import Address
from service.gallery_milvus.audit import StreamAudit
from service.gallery_milvus.collections import model_of
from service.gallery_milvus.gallery import MilvusGallery
from service.gallery_milvus.s3 import Place, S3Pictures
from service.gallery_milvus.server import Server
from service.inference.model import ModelInfo
from service.settings import Settings


def open_gallery(settings: Settings, info: ModelInfo, *, searched: bool = True) -> AnyGallery:
    """The gallery that the settings name, for the model that `info` describes. Raises GalleryError.

    Where it is not to be `searched`, nothing is built that only makes searches quick.
    """
    measured = info.impostor_curve
    curve = None if measured is None else ImpostorCurve(measured.false_match_rate, measured.distance)
    address = settings.milvus_address
    if address is not None:
        return open_milvus(settings, address, Model(info.sha256, info.name, info.embedding_dim), curve)
    # Half of the cores: the others run the model, as a search of one batch overlaps the inference of the next.
    threads = max(1, settings.effective_threads // 2)
    searching = Searching.here(settings.index, threads, searched, settings.gpu_wanted)
    return Gallery.open(
        settings.gallery_folder, info.sha256, info.name, info.embedding_dim, curve, settings.match_distance, searching
    )


def open_milvus(
    settings: Settings, address: Address, model: Model, curve: ImpostorCurve | None = None
) -> MilvusGallery:
    """The gallery at an address, as the settings say. Raises GalleryError."""
    token = milvus_token(settings)  # before anything is asked of the network
    pictures = None
    if settings.pictures is not None and settings.s3_credentials_file is not None:
        pictures = S3Pictures(Place.parse(settings.pictures), settings.s3_endpoint, settings.s3_credentials_file)
    return MilvusGallery.open(
        address, model, curve, settings.match_distance, index=settings.index, token=token, pictures=pictures
    )


def open_existing(settings: Settings) -> MilvusGallery:
    """The gallery in Milvus that the settings name, for the model that it has. Raises GalleryError."""
    address = settings.milvus_address
    if address is None:
        raise GalleryUnavailable(f"{settings.gallery} is not in Milvus.")
    server = Server(address, milvus_token(settings))
    try:
        model = model_of(server, address.collection)
    finally:
        server.close()
    if model is None:
        raise GalleryUnavailable(f"There is no gallery {address} in Milvus.")
    return open_milvus(settings, address, model)


def open_audit(settings: Settings, gallery: AnyGallery) -> AnyAudit:
    """Where it is written down who did what with an open gallery. Raises GalleryError."""
    if isinstance(gallery, MilvusGallery):
        return StreamAudit(gallery.collections.secret)
    return Audit.open(settings.gallery_folder)


def milvus_token(settings: Settings) -> str:
    """What Milvus asks for, "" where no file is named. Raises GalleryUnavailable for a file that has none."""
    path = settings.milvus_token_file
    if path is None:
        return ""
    try:
        token = path.read_text().strip()
    except (OSError, ValueError) as error:
        raise GalleryUnavailable(f"{path}, which holds Milvus's token, cannot be read.") from error
    if not token:
        raise GalleryUnavailable(f"{path} is empty: it must hold Milvus's token, or user:password.")
    return token
