"""The same file behind LitServe, batched as its documentation advises: `max_batch_size` and a short `batch_timeout`.

`python -m benchmarks.peers.litserve_app --model FILE --gallery FILE --threads N --port N`. One worker: two would share
the same cores and hold the model twice.
"""

from typing import Any

import litserve
from fastapi import Request, Response

from benchmarks.peers.pipeline import Options, Pipeline, options


class ReID(litserve.LitAPI):  # type: ignore[misc]
    """One route; `path` among the form's fields says which answer is wanted."""

    def __init__(self, chosen: Options, path: str) -> None:
        batch = {"max_batch_size": chosen.max_batch, "batch_timeout": chosen.wait}
        super().__init__(**batch, api_path=f"/{path}")
        self._chosen, self._path = chosen, path

    def setup(self, device: str) -> None:
        self._pipeline = Pipeline(self._chosen)

    def decode_request(self, request: Request) -> list[bytes]:
        form: Any = request  # LitServe has read the form
        return [image.file.read() for image in form.getlist("images")]

    def batch(self, inputs: list[list[bytes]]) -> list[list[bytes]]:
        return inputs

    def predict(self, inputs: list[list[bytes]]) -> list[tuple[str, bytes]]:
        return self._pipeline.answer([(self._path, pictures) for pictures in inputs])

    def unbatch(self, output: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        return output

    def encode_response(self, output: tuple[str, bytes]) -> Response:
        media_type, body = output
        return Response(body, media_type=media_type)


if __name__ == "__main__":
    chosen = options(__doc__)
    # One process for each route: only the one that is asked is busy.
    server = litserve.LitServer([ReID(chosen, "query"), ReID(chosen, "embed")], accelerator="cpu", fast_queue=True)
    server.run(port=chosen.port, host="127.0.0.1", log_level="warning", generate_client_file=False)
