"""Every RESIGHT_* setting, validated once when the service is built and never read at import."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.gallery.records import GalleryError
from service.gallery_milvus.address import SCHEME, Address
from service.gallery_milvus.collections import BUILT
from service.gallery_milvus.s3 import DEFAULT_ENDPOINT, Place

PREFIX = "RESIGHT_"
OF_CLIENTS = frozenset({"api_key", "url"})  # variables of the command line and of the client that are no settings
FOR_MILVUS = ("milvus_token_file", "pictures", "s3_credentials_file")  # settings that a gallery in a folder refuses
SQLITE_SCHEME = "sqlite:///"
LOOPBACK = "127.0.0.1"
MOST_THREADS = 1024
ENDPOINT = re.compile(r"https?://[^/@?#\s]+/?")
HOST_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+\]")  # as in a URL: IPv6 in brackets
SERVICE_LINK = re.compile(r"SERVICE_(HOST|PORT)(_\w+)?|PORT_\d+_\w+")  # of a Kubernetes Service named resight


class ElsewhereError(GalleryError):
    """What was asked for needs a gallery in a folder, and the gallery is in Milvus."""


class Settings(BaseSettings):
    """What a person may choose about one service process.

    Arguments win over `RESIGHT_*` environment variables, which win over the defaults. An empty
    variable counts as not set. Raises pydantic's `ValidationError` (a `ValueError`) with one
    sentence for every setting that cannot be used, unknown `RESIGHT_*` variables included, so that
    a misspelt name never passes silently.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    host: str = Field(default=LOOPBACK, description="address to listen on")
    port: int = Field(default=8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    model: Path = Field(default=Path("models/market1501-int8.onnx"), description="the model file")
    device: Literal["auto", "cpu", "cuda", "tensorrt"] = Field(
        default="auto",
        description="where model and searches run; with anything but auto the model must, or the start fails",
    )
    gallery: str = Field(
        default="sqlite:///data",
        description="sqlite:///FOLDER (relative), sqlite:////FOLDER (absolute), milvus://HOST:PORT/COLLECTION",
    )
    index: Literal["auto", "exact", "ivf", "hnsw", "compressed", "cagra"] = Field(
        default="auto",
        description="exact, or likely crops first (ivf, hnsw; compressed: with vectors on disk; cagra: on a GPU);"
        " auto: exact on a GPU, else ivf past 50,000",
    )
    store_images: Literal["none", "thumbnail", "original"] = Field(
        default="thumbnail",
        description="what is kept of a picture, as JPEG: none, thumbnail (the model's input), original (in full size)",
    )
    milvus_token_file: Path | None = Field(
        default=None, description="holds the token, or user:password, that Milvus asks for"
    )
    pictures: str | None = Field(
        default=None, description="for a gallery in Milvus: s3://BUCKET/PREFIX; no picture is kept without it"
    )
    s3_endpoint: str = Field(default=DEFAULT_ENDPOINT, description="the store of the pictures, http(s)://HOST:PORT")
    s3_credentials_file: Path | None = Field(
        default=None, description="its keys: a JSON file with access_key and secret_key"
    )
    match_distance: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="distance under which the nearest identity is a match; from the model when not set"
    )
    max_batch: int | None = Field(
        default=None, description="images in one run of the model: a power of two up to 64; 16 on CPU, 64 on GPU"
    )
    threads: Annotated[int, Field(ge=1, le=MOST_THREADS)] | None = Field(
        default=None, description="threads for inference and for decoding; all cores when not set"
    )
    queue_limit: Annotated[int, Field(ge=64)] | None = Field(
        default=None, description="images admitted at once; 4 s of the measured rate, at least 4 full requests"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="least level logged")
    retention_days: Annotated[int, Field(ge=1, le=36_500)] | None = Field(
        default=None, description="crops enrolled longer ago are erased; more than a fifth at once waits for a person"
    )
    keys_file: Path | None = Field(
        default=None, description="the API keys, as `resight keys` keeps them; without it nobody needs one"
    )
    rate_limit: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="images a minute that each key may send; without keys, all callers together"
    )
    allow_anonymous: bool = Field(default=False, description="listen on other addresses than loopback without keys")
    allowed_hosts: str | None = Field(
        default=None, description="names that requests may address it by, besides localhost and IP addresses: A,B"
    )

    @model_validator(mode="before")
    @classmethod
    def _no_unknown_variables(cls, values: Any) -> Any:
        for variable in sorted(name for name in os.environ if name.upper().startswith(PREFIX)):
            name = variable[len(PREFIX) :].lower()
            if _is_service_link(name, os.environ[variable]):
                raise ValueError(
                    f"{variable} is set by Kubernetes for a Service named resight and is no setting;"
                    " say enableServiceLinks: false in the pod's spec"
                )
            if name not in cls.model_fields and name not in OF_CLIENTS:
                near = difflib.get_close_matches(name, cls.model_fields, n=1)
                hint = f"; did you mean {PREFIX}{near[0].upper()}?" if near else ""
                raise ValueError(f"{variable} is set, but there is no such setting{hint}")
        return values

    @field_validator("gallery")
    @classmethod
    def _gallery_is_somewhere(cls, url: str) -> str:
        if url.startswith(SCHEME):
            return str(Address.parse(url))
        if not url.startswith(SQLITE_SCHEME) or not url.removeprefix(SQLITE_SCHEME).strip("/"):
            raise ValueError(
                "the gallery must be sqlite:///FOLDER, with three slashes for a relative folder"
                " and four for an absolute one, or milvus://HOST:PORT/COLLECTION"
            )
        return url

    @field_validator("index", mode="before")
    @classmethod
    def _index_is_one_of_milvus(cls, index: Any, known: ValidationInfo) -> Any:
        if str(known.data.get("gallery")).startswith(SCHEME) and index not in BUILT:
            raise ValueError(f"a gallery in Milvus has one of the indexes {', '.join(BUILT)}")
        return index

    @field_validator("s3_endpoint")
    @classmethod
    def _endpoint_is_an_address(cls, url: str) -> str:
        if not ENDPOINT.fullmatch(url):
            raise ValueError("the store of the pictures is written http(s)://HOST:PORT")
        return url

    @field_validator("pictures")
    @classmethod
    def _pictures_are_in_a_bucket(cls, url: str | None) -> str | None:
        if url is not None:
            Place.parse(url)
        return url

    @field_validator("allowed_hosts")
    @classmethod
    def _hosts_are_names(cls, names: str | None) -> str | None:
        if names is not None and not all(HOST_NAME.fullmatch(name.strip()) for name in names.split(",")):
            raise ValueError("the names are written A,B, without http://, port and *")
        return names

    @field_validator("max_batch")
    @classmethod
    def _max_batch_is_warmed(cls, size: int | None) -> int | None:
        if size is not None and size not in (1, 2, 4, 8, 16, 32, 64):
            raise ValueError("the largest batch must be 1, 2, 4, 8, 16, 32 or 64")
        return size

    @model_validator(mode="after")
    def _nobody_unknown_from_outside(self) -> Settings:
        if self.keys_file is None and not self.allow_anonymous and not is_loopback(self.host):
            raise ValueError(
                f"listening on {self.host} lets everybody on the network read and change the gallery;"
                f" set {PREFIX}KEYS_FILE (`resight keys create` makes the file),"
                f" say {PREFIX}ALLOW_ANONYMOUS=true if that is wanted, or listen on 127.0.0.1"
            )
        return self

    @model_validator(mode="after")
    def _no_graph_without_a_gpu(self) -> Settings:
        if self.index == "cagra" and self.device == "cpu":
            raise ValueError(
                f"{PREFIX}INDEX=cagra searches on a GPU, and {PREFIX}DEVICE=cpu rules that out;"
                f" leave {PREFIX}DEVICE out, or set {PREFIX}INDEX=auto"
            )
        return self

    @model_validator(mode="after")
    def _milvus_is_named_with_the_gallery(self) -> Settings:
        if self.milvus_address is None:
            for name in FOR_MILVUS:
                if getattr(self, name) is not None:
                    raise ValueError(f"{PREFIX}{name.upper()} is for a gallery in Milvus; {self.gallery} is a folder")
        elif (self.pictures is None) != (self.s3_credentials_file is None):
            raise ValueError(f"{PREFIX}PICTURES and {PREFIX}S3_CREDENTIALS_FILE belong together")
        elif self.pictures is None and "store_images" in self.model_fields_set and self.store_images != "none":
            raise ValueError(
                f"a gallery in Milvus keeps pictures in an S3-compatible store: set {PREFIX}PICTURES=s3://BUCKET/PREFIX,"
                f" or {PREFIX}STORE_IMAGES=none"
            )
        return self

    @property
    def gpu_wanted(self) -> bool | None:
        """Whether `device` asks for a GPU; None where it takes what there is."""
        return None if self.device == "auto" else self.device != "cpu"

    @property
    def host_names(self) -> frozenset[str] | None:
        """`allowed_hosts` one by one, in lower case, without brackets and the root's dot; None where it is not set."""
        if self.allowed_hosts is None:
            return None
        return frozenset(name.strip().strip("[]").rstrip(".").lower() for name in self.allowed_hosts.split(","))

    @property
    def milvus_address(self) -> Address | None:
        """Where in Milvus the gallery is, None where it is in a folder."""
        return Address.parse(self.gallery) if self.gallery.startswith(SCHEME) else None

    @property
    def kept_images(self) -> Literal["none", "thumbnail", "original"]:
        """What is kept of a picture: nothing where there is no place for it."""
        return "none" if self.milvus_address is not None and self.pictures is None else self.store_images

    @property
    def upkeep_warning(self) -> str | None:
        """What somebody has to run besides, None where the service does all by itself."""
        if self.milvus_address is None or self.retention_days is None:
            return None
        return (
            f"{PREFIX}RETENTION_DAYS={self.retention_days} erases nothing by itself in Milvus: "
            "`resight maintain` has to be run with the same settings, say every night"
        )

    @property
    def gallery_folder(self) -> Path:
        """The folder that `gallery` names. Raises ElsewhereError for a gallery in Milvus."""
        if self.milvus_address is not None:
            raise ElsewhereError(
                f"{self.gallery} is in Milvus and has no folder: this command is for a gallery in a folder."
                " docs/operations.md, `Past one machine`, says what to do instead."
            )
        return Path(self.gallery.removeprefix(SQLITE_SCHEME))

    @property
    def cache_folder(self) -> Path:
        """Where a GPU's start keeps what it made; it may be deleted."""
        return Path("data/cache") if self.milvus_address is not None else self.gallery_folder / "cache"

    @property
    def effective_threads(self) -> int:
        """`threads`, or as many as this process has cores."""
        return self.threads or available_cores()


def _is_service_link(name: str, value: str) -> bool:
    return bool(SERVICE_LINK.fullmatch(name.upper())) or (name == "port" and value.startswith(("tcp://", "udp://")))


def available_cores() -> int:
    """Cores that this process may use, which in a container are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`; a name other than `localhost` counts as reachable."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
