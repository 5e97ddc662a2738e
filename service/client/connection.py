"""The typed client: `Resight("http://127.0.0.1:8000").query("probe.jpg")`.

Requests are built by `calls` and answers read by `answers`, both pure; only `Resight.fetch` does input and
output, so a client over another transport is another `fetch`.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import numpy as np
from numpy.typing import NDArray

from service.client.answers import (
    Crop,
    Enrolment,
    NotResight,
    Problem,
    Ranking,
    Readiness,
    ResightError,
    ServedModel,
)
from service.client.calls import (
    Answer,
    Call,
    Images,
    Many,
    Moment,
    Vector,
    accept,
    crop_call,
    delete_call,
    embed_call,
    enrol_call,
    image_call,
    model_call,
    page_call,
    query_call,
    ready_call,
    retry_pause,
)
from service.client.credentials import api_key
from service.client.decisions import Decisions

DEFAULT_URL = "http://127.0.0.1:8000"
CONNECT_TIMEOUT = 5.0
LONGEST_LABEL = 63  # of a host's name, between two dots


class Resight(Decisions):
    """A connection to one Resight service. May be used from several threads; close it, or use it in a `with`.

    Args:
        base_url: where the service listens.
        key: the API key of a service that asks for one; what RESIGHT_API_KEY holds when not given.
        timeout: seconds an answer may take; inference of a full request on a laptop takes a while.
        retries: how often a call is sent again while the service is busy (429), starting (503) or restarting
            (connection refused), with pauses that double from 0.25 s to 8 s or follow `Retry-After`.
        transport: another httpx transport, for tests.

    Images are bytes of a JPEG, PNG or WebP file, paths of such files, or Pillow images (sent as PNG).
    Every method raises `ResightError`, whose `problem` is the service's own; `Unreachable` when nothing answers.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        *,
        key: str | None = None,
        timeout: float = 120.0,
        retries: int = 4,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.base_url = _service_url(base_url)
        self._retries = retries
        limits = httpx.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT))
        key = api_key(key)
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        # Proxies come from the environment, and none leads back to this machine.
        trust_env = not _is_loopback(httpx.URL(self.base_url).host)
        self._http = httpx.Client(
            base_url=self.base_url, headers=headers, timeout=limits, transport=transport, trust_env=trust_env
        )

    def enrol(
        self,
        images: Images,
        *,
        identity: str | None = None,
        camera: str | None = None,
        captured_at: Moment | None = None,
        track: str | None = None,
        meta: Mapping[str, object] | None = None,
        items: Sequence[Mapping[str, object]] | None = None,
        on_error: str | None = None,
    ) -> Enrolment:
        """Put 1 to 64 images into the gallery, all or none of them.

        The labels hold for all images; `items`, one mapping of such labels for each image, wins over them.
        `captured_at` is an aware datetime or RFC 3339 text. With `on_error="skip"` a bad image fails alone.
        Enrolling the same bytes again is no error (`duplicate`, or `updated` when the labels differ).
        """
        return self.send(
            enrol_call(
                images,
                identity=identity,
                camera=camera,
                captured_at=captured_at,
                track=track,
                meta=meta,
                items=items,
                on_error=on_error,
            )
        )

    def query(
        self,
        images: Images | None = None,
        *,
        crop_ids: Many | None = None,
        embedding: Vector | None = None,
        model_sha256: str | None = None,
        top_k: int = 10,
        crops_per_identity: int = 5,
        cameras: Many = (),
        exclude_cameras: Many = (),
        since: Moment | None = None,
        until: Moment | None = None,
        identity: str | None = None,
        max_distance: float | None = None,
        exact: bool = False,
        explain: bool = False,
    ) -> Ranking:
        """Who in the gallery is this? 1 to 16 images of one person, answered by the `top_k` nearest identities.

        Instead of `images`, `crop_ids` names 1 to 16 enrolled crops of the person, or `embedding` is a vector of
        the model `model_sha256` (as `embed` and `model` give them). Raises ValueError unless it is one of the three.
        `cameras` and `exclude_cameras` (one or several), `identity`, `since` and `until` narrow what is searched;
        `max_distance` in [0, 1] cuts the ranking; `exact` forbids an approximate index; `explain` adds the
        attention of every image.
        """
        return self.send(
            query_call(
                images,
                crop_ids=crop_ids,
                embedding=embedding,
                model_sha256=model_sha256,
                top_k=top_k,
                crops_per_identity=crops_per_identity,
                cameras=cameras,
                exclude_cameras=exclude_cameras,
                since=since,
                until=until,
                identity=identity,
                max_distance=max_distance,
                exact=exact,
                explain=explain,
            )
        )

    def embed(self, images: Images) -> NDArray[np.float32]:
        """The embeddings of 1 to 64 images, float32 [N, D] of unit norm, in their order; nothing is stored."""
        return self.send(embed_call(images))

    def crops(
        self,
        *,
        cameras: Many = (),
        exclude_cameras: Many = (),
        since: Moment | None = None,
        until: Moment | None = None,
        identity: str | None = None,
        unidentified: bool = False,
        page_size: int = 1000,
    ) -> Iterator[Crop]:
        """Every enrolled crop that passes the filters; pages are fetched as the iteration reaches them."""
        cursor: str | None = None
        while True:
            call = page_call(
                cameras=cameras,
                exclude_cameras=exclude_cameras,
                since=since,
                until=until,
                identity=identity,
                unidentified=unidentified,
                limit=page_size,
                cursor=cursor,
            )
            page = self.send(call)
            yield from page.crops
            cursor = page.next_cursor
            if cursor is None:
                return

    def crop(self, crop_id: str) -> Crop:
        """One crop by its id."""
        return self.send(crop_call(crop_id))

    def image(self, crop_id: str) -> bytes:
        """The stored picture of one crop: what the model saw, as a JPEG file."""
        return self.send(image_call(crop_id))

    def delete(self, crop_id: str) -> None:
        """Remove one crop from the gallery for good."""
        self.send(delete_call(crop_id))

    def model(self) -> ServedModel:
        """What serves, with the licence notice of its training data."""
        return self.send(model_call())

    def ready(self) -> Readiness:
        """Whether the service can answer now, and why not. Asked once, not again.

        Raises NotResight when something else answers.
        """
        try:
            return self.send(ready_call())
        except ResightError as error:
            problem = error.problem
            if problem.status is None or problem.status >= 500 or problem.type.startswith("/problems/"):
                raise
            raise NotResight(problem) from error  # every Resight has this page

    def send(self, call: Call[Answer]) -> Answer:
        """Send a call and read its answer."""
        return self.read(call, self.fetch(call))

    def read(self, call: Call[Answer], response: httpx.Response) -> Answer:
        """The answer in a response that `fetch` gave."""
        try:
            return call.parse(response)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            detail = f"{self.base_url}{call.path} did not answer as Resight does ({type(error).__name__}: {error})."
            raise NotResight(
                Problem("about:blank", "Not an answer of Resight", response.status_code, detail)
            ) from error

    def fetch(self, call: Call[Any]) -> httpx.Response:
        """Send a call, again where `retry_pause` says so; its response, unread, for the JSON as it came."""
        attempt = 0
        while True:
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = self._http.request(**call.arguments())
            except httpx.TransportError as error:
                outcome = error
            pause = retry_pause(call, outcome, attempt) if attempt < self._retries else None
            if pause is None:
                return accept(call, outcome, self.base_url)
            time.sleep(pause)
            attempt += 1

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _service_url(text: str) -> str:
    """The URL without a slash at its end. Raises ValueError when no service can be there."""
    try:
        url = httpx.URL(text)
        urlsplit(text)  # looks at brackets, which httpx does not
    except (httpx.InvalidURL, ValueError) as error:
        raise ValueError(f"{text!r} is no URL: {error}") from error
    if url.port is not None and not 0 < url.port < 2**16:
        raise ValueError(f"{text!r} is no URL: a port is a number from 1 to 65535")
    if any(len(label) > LONGEST_LABEL for label in url.host.split(".")):
        raise ValueError(f"{text!r} is no URL: its host's name is too long")
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"{text!r} is no URL of a service; one looks like {DEFAULT_URL}")
    return text.rstrip("/")
