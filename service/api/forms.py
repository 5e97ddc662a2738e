"""Reads a multipart form as it arrives, in memory, and gives up at the first byte over a limit.

Starlette's parser spools files to disk and has no limit for one file. A person's picture is better kept
off the disk, and a file over the limit is better refused before the rest of it has come.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

from service.api.limits import FORM, MAX_FIELD_BYTES, MAX_FIELDS, MAX_FILE_BYTES, MAX_JSON_BYTES, media_type
from service.api.problems import Kind, Problem, invalid, shown

IMAGES = "images"
JSON = "application/json"

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Form:
    """A form's files, in their order, and its text fields, each with all values given."""

    images: tuple[bytes, ...]
    fields: Mapping[str, tuple[str, ...]]


async def read_form(request: Request, known: frozenset[str], max_images: int) -> Form:
    """Reads a form of 1 to `max_images` images and the `known` text fields; raises Problem."""
    if media_type(request.headers) != FORM:
        detail = "Send the pictures as multipart/form-data with one or more files named 'images'."
        raise Problem(Kind.UNSUPPORTED_MEDIA_TYPE, detail)
    boundary = parse_options_header(request.headers["content-type"])[1].get(b"boundary")
    if not boundary:
        raise _malformed("the Content-Type names no boundary")
    reader = _Reader(known, max_images)
    spent = 0.0
    try:
        parser = MultipartParser(boundary, reader.callbacks())
        async for chunk in request.stream():
            started = time.perf_counter()
            parser.write(chunk)
            spent += time.perf_counter() - started
        parser.finalize()
    except FormParserError as error:
        raise _malformed(str(error)) from error
    request.state.timings["parse"] = spent * 1e3
    return reader.form()


async def read_json(request: Request, model: type[Model]) -> Model:
    """Reads a JSON body of at most 1 MiB into `model`; raises Problem."""
    if media_type(request.headers) != JSON:
        raise Problem(Kind.UNSUPPORTED_MEDIA_TYPE, f"Send JSON, with Content-Type: {JSON}.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_JSON_BYTES:
            raise Problem(Kind.BODY_TOO_LARGE, f"A JSON body may have {MAX_JSON_BYTES // 2**20} MiB.")
    try:
        return model.model_validate_json(bytes(body))
    except ValidationError as error:
        raise invalid(error) from error


def parse_fields(
    model: type[Model], fields: Mapping[str, tuple[str, ...]], repeatable: frozenset[str] = frozenset()
) -> Model:
    """Fills `model` from a form's text; raises Problem, also for a value given twice."""
    for name, values in fields.items():
        if len(values) > 1 and name not in repeatable:
            raise Problem(Kind.INVALID_FIELD, f"{name}: given {len(values)} times; give it once.")
    try:
        return model.model_validate(
            {name: list(values) if name in repeatable else values[0] for name, values in fields.items()}
        )
    except ValidationError as error:
        raise invalid(error) from error


def multipart_body(
    model: type[BaseModel] | None, max_images: int, json_body: type[BaseModel] | None = None
) -> dict[str, Any]:
    """OpenAPI's `requestBody` for a form of images with the text fields of `model`."""
    images = {
        "type": "array",
        "items": {"type": "string", "format": "binary"},
        "minItems": 1,
        "maxItems": max_images,
        "description": "JPEG, PNG or WebP files, each the crop of one person",
    }
    fields = {} if model is None else model.model_json_schema()["properties"]
    schema = {"type": "object", "required": [IMAGES], "properties": {IMAGES: images, **fields}}
    content: dict[str, Any] = {FORM: {"schema": schema}}
    if json_body is not None:
        content[JSON] = {"schema": json_body.model_json_schema()}
    return {"requestBody": {"required": True, "content": content}}


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """OpenAPI's `requestBody` for a JSON object."""
    return {"requestBody": {"required": True, "content": {JSON: {"schema": model.model_json_schema()}}}}


class _Reader:
    """Collects the parts that the parser reports, and counts."""

    def __init__(self, known: frozenset[str], max_images: int) -> None:
        self._known = known
        self._max_images = max_images
        self._images: list[bytes] = []
        self._fields: dict[str, list[str]] = {}
        self._header = bytearray()
        self._value = bytearray()
        self._disposition = b""
        self._name = ""
        self._data = bytearray()
        self._parts = 0
        self._ended = False

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def form(self) -> Form:
        if not self._ended:
            raise _malformed("it ends before its last boundary")
        if not self._images:
            raise Problem(Kind.NO_IMAGES, "Add at least one file named 'images'.")
        return Form(tuple(self._images), {name: tuple(values) for name, values in self._fields.items()})

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_FIELDS + self._max_images:
            raise Problem(Kind.MALFORMED_BODY, f"A form may have {MAX_FIELDS} fields beside its images.")
        self._disposition, self._data = b"", bytearray()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header, self._value = bytearray(), bytearray()

    def _headers_finished(self) -> None:
        name = parse_options_header(self._disposition)[1].get(b"name")
        if name is None:
            raise _malformed("a part has no name in its Content-Disposition")
        self._name = name.decode("utf-8", "replace")
        if self._name == IMAGES and len(self._images) == self._max_images:
            detail = f"At most {self._max_images} images are taken at a time here; send fewer."
            raise Problem(Kind.TOO_MANY_IMAGES, detail, self._max_images)
        if self._name not in self._known | {IMAGES}:
            raise Problem(Kind.UNKNOWN_FIELD, f"There is no field {shown(self._name)!r} here; leave it out.")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        size = len(self._data) + end - start
        if self._name == IMAGES and size > MAX_FILE_BYTES:
            detail = f"A file may have {MAX_FILE_BYTES // 2**20} MiB; send the crop of one person."
            raise Problem(Kind.FILE_TOO_LARGE, detail, len(self._images))
        if self._name != IMAGES and size > MAX_FIELD_BYTES:
            raise Problem(Kind.INVALID_FIELD, f"{self._name}: longer than {MAX_FIELD_BYTES // 2**20} MiB.")
        self._data += data[start:end]

    def _part_end(self) -> None:
        if self._name == IMAGES:
            self._images.append(bytes(self._data))
            return
        try:
            text = self._data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Problem(Kind.INVALID_FIELD, f"{self._name}: not UTF-8 text.") from error
        self._fields.setdefault(self._name, []).append(text)

    def _end(self) -> None:
        self._ended = True


def _malformed(reason: str) -> Problem:
    return Problem(Kind.MALFORMED_BODY, f"The multipart body cannot be read: {reason}.")
