"""The typed client: `Resight("http://127.0.0.1:8000").query("probe.jpg")`.

Requests are built by `calls` and answers read by `answers`, both pure; only `Resight.fetch` does input and
output, so a client over another transport is another `fetch`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import httpx
import numpy as np
from numpy.typing import NDArray

from service.client.addresses import DEFAULT_URL
from service.client.answers import Crop, Enrolment, Ranking, Readiness, ServedModel
from service.client.bulk import Bulk
from service.client.calls import (
    Consistency,
    Many,
    Moment,
    Vector,
    attention_call,
    crop_call,
    delete_call,
    embed_call,
    enrol_call,
    image_call,
    model_call,
    page_call,
    query_call,
    ready_call,
)
from service.client.decisions import Decisions
from service.client.failures import ResightError
from service.client.images import Images
from service.client.sending import Answer, Call, Retrying, accept, read_answer, unready
from service.client.wiring import wiring


class Resight(Decisions, Bulk):
    """A connection to one Resight service. May be used from several threads; close it, or use it in a `with`.

    Args:
        base_url: where the service listens.
        key: the API key of a service that asks for one; what RESIGHT_API_KEY holds when not given.
        timeout: seconds an answer may take; inference of a full request on a laptop takes a while.
        deadline: seconds after which a call is not sent again, however often it was.
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
        deadline: float = 120.0,
        retries: int = 4,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        wires = wiring(base_url, key, timeout)
        self.base_url = wires.base_url
        self._retrying = Retrying(retries, deadline)
        self._http = httpx.Client(transport=transport, **wires.arguments)

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
        consistency: Consistency | None = None,
    ) -> Ranking:
        """Who in the gallery is this? 1 to 16 images of one person, answered by the `top_k` nearest identities.

        Instead of `images`, `crop_ids` names 1 to 16 enrolled crops of the person, or `embedding` is a vector of
        the model `model_sha256` (as `embed` and `model` give them). Raises ValueError unless it is one of the three.
        `cameras` and `exclude_cameras` (one or several), `identity`, `since` and `until` narrow what is searched;
        `max_distance` in [0, 1] cuts the ranking; `exact` forbids an approximate index; `explain` adds the
        attention of every image; `consistency="strong"` asks a gallery in Milvus for all that was acknowledged before.
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
                consistency=consistency,
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
        consistency: Consistency | None = None,
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
                consistency=consistency,
            )
            page = self.send(call)
            yield from page.crops
            cursor = page.next_cursor
            if cursor is None:
                return

    def crop(self, crop_id: str, *, consistency: Consistency | None = None) -> Crop:
        """One crop by its id."""
        return self.send(crop_call(crop_id, consistency=consistency))

    def image(self, crop_id: str, *, consistency: Consistency | None = None) -> bytes:
        """The stored picture of one crop: what the model saw, as a JPEG file."""
        return self.send(image_call(crop_id, consistency=consistency))

    def attention(self, crop_id: str) -> bytes:
        """The stored picture of one crop under the model's attention, a PNG file; computed anew each time."""
        return self.send(attention_call(crop_id))

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
            raise unready(error) from error

    def send(self, call: Call[Answer]) -> Answer:
        """Send a call and read its answer."""
        return self.read(call, self.fetch(call))

    def read(self, call: Call[Answer], response: httpx.Response) -> Answer:
        """The answer in a response that `fetch` gave."""
        return read_answer(call, response, self.base_url)

    def fetch(self, call: Call[Any]) -> httpx.Response:
        """Send a call, again where `Retrying` says so; its response, unread, for the JSON as it came."""
        attempts = self._retrying.begin(call)
        while True:
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = self._http.request(**call.arguments())
            except httpx.TransportError as error:
                outcome = error
            pause = attempts.pause(outcome)
            if pause is None:
                return accept(call, outcome, self.base_url)
            time.sleep(pause)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
