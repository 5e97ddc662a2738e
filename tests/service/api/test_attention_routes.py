"""The stored picture under the model's attention, and pictures kept in their full size."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.gallery.database import DATABASE_NAME
from service.inference.images import decode_crop
from service.inference.overlay import draw_attention
from service.settings import Settings
from tests.drawn_crops import crop, encoded, person, uploads
from tests.service.api.canonical_error import expect
from tests.serving import Served, serve
from tests.tiny_model import HEIGHT, WIDTH

NOBODY = "00000000-0000-0000-0000-000000000000"


def enrolled(served: Served, data: bytes) -> str:
    crop_id: str = served.client.post("/gallery", files=uploads(data)).json()["results"][0]["crop_id"]
    return crop_id


def brightness(picture: bytes) -> NDArray[np.float64]:
    return np.asarray(Image.open(io.BytesIO(picture)).convert("L"), float)


def test_what_receives_most_is_brightest() -> None:
    weights = np.zeros((4, 2), np.float32)
    weights[0, 1] = 0.7
    drawn = brightness(draw_attention(encoded(Image.new("RGB", (40, 80), (128, 128, 128))), weights))
    assert drawn.shape == (80, 40)
    row, column = np.unravel_index(drawn.argmax(), drawn.shape)
    assert row < 20
    assert column >= 20
    assert drawn[60:, :20].max() < drawn[:10, 30:].min()


def test_even_attention_is_drawn_evenly() -> None:
    drawn = brightness(draw_attention(encoded(Image.new("RGB", (40, 80))), np.full((4, 2), 0.125, np.float32)))
    assert np.ptp(drawn) == 0


def test_an_enrolled_crops_attention(service: Served) -> None:
    answer = service.client.get(f"/gallery/{enrolled(service, crop(1))}/attention.png")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"
    picture = Image.open(io.BytesIO(answer.content))
    assert (picture.format, picture.size) == ("PNG", (WIDTH, HEIGHT))
    assert answer.content != service.client.get(f"/gallery/{enrolled(service, crop(2))}/attention.png").content


def test_there_is_none_without_a_crop(service: Served) -> None:
    expect(service.client.get(f"/gallery/{NOBODY}/attention.png"), "unknown-crop")
    expect(service.client.get("/gallery/x/attention.png"), "unknown-crop")
    expect(service.client.get(f"/gallery/{NOBODY}/attention.png?x=1"), "unknown-field")


def test_there_is_none_where_no_picture_is_kept(make_settings: Callable[..., Settings]) -> None:
    with serve(make_settings(store_images="none")) as served:
        expect(served.client.get(f"/gallery/{enrolled(served, crop(1))}/attention.png"), "no-stored-image")


@pytest.mark.parametrize("damaged", [b"", b"no picture"])
def test_a_damaged_picture_is_the_services_fault(service: Served, tmp_path: Path, damaged: bytes) -> None:
    crop_id = enrolled(service, crop(1))
    with sqlite3.connect(tmp_path / "data" / DATABASE_NAME) as connection:
        connection.execute("UPDATE pictures SET jpeg = ?", (damaged,))
    connection.close()
    expect(service.client.get(f"/gallery/{crop_id}/attention.png"), "damaged-crop")


def test_originals_keep_their_size(make_settings: Callable[..., Settings]) -> None:
    data = encoded(person(5, size=(150, 310)), "JPEG", quality=97, comment=b"secret")
    with serve(make_settings(store_images="original")) as served:
        crop_id = enrolled(served, data)
        stored = served.client.get(f"/gallery/{crop_id}/image").content
        attention = served.client.get(f"/gallery/{crop_id}/attention.png").content
    assert Image.open(io.BytesIO(stored)).size == Image.open(io.BytesIO(attention)).size == (150, 310)
    assert b"secret" not in stored
    assert stored != data
    again = decode_crop(stored, HEIGHT, WIDTH).astype(int)
    assert np.abs(again - decode_crop(data, HEIGHT, WIDTH)).mean() < 1
