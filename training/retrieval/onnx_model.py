"""An ONNX file as a function from crops to embeddings, without torch: our own files and other people's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from training.data.dataset import readable
from training.data.images import IMAGENET_MEAN, IMAGENET_STD

FORMAT = "resight/1"
MOST_SIDE = 4096  # pixels of a crop, either way
MOST_BATCH = 1024  # crops: a file with a fixed batch has it filled up
SILENT = 4  # of ONNX Runtime's own lines: what is wrong is raised as well
NUMBERS = "fiu"  # NumPy's kinds of them
ELEMENT_TYPES: Mapping[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
}


class ModelError(ValueError):
    """A file that cannot be used as asked; the message says why and what to do."""


@dataclass(frozen=True)
class InputLayout:
    """How uint8 RGB crops [N, H, W, 3] become a network's input: (scale * crop - mean) / std, in its order."""

    channels_first: bool = True
    bgr: bool = False
    scale: float = 1.0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)  # in the network's order of colours
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def keeps_bytes(self) -> bool:
        """Whether a colour's value stays as it is."""
        neutral = InputLayout()
        return (self.scale, self.mean, self.std) == (neutral.scale, neutral.mean, neutral.std)

    def apply(self, crops: NDArray[np.uint8], element: type[np.generic]) -> NDArray[Any]:
        """The input tensor: [N, 3, H, W] or [N, H, W, 3] of type `element`."""
        colours = crops[..., ::-1] if self.bgr else crops
        if element is np.uint8:
            prepared: NDArray[Any] = colours
        else:
            mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
            prepared = (colours * np.float32(self.scale) - mean) / std
        if self.channels_first:
            prepared = prepared.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(prepared, element)


OWN_LAYOUT = "nhwc-uint8-rgb"
_IMAGENET_RGB: dict[str, Any] = {
    "scale": 1 / 255,
    "mean": IMAGENET_MEAN,
    "std": IMAGENET_STD,
}
INPUT_LAYOUTS: Mapping[str, InputLayout] = {
    OWN_LAYOUT: InputLayout(channels_first=False),
    "nchw-float-rgb-imagenet": InputLayout(**_IMAGENET_RGB),  # torchreid, BoT, most PyTorch exports
    "nchw-float-rgb-half": InputLayout(scale=1 / 255, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),  # TransReID
    "nchw-float-rgb-1": InputLayout(scale=1 / 255),
    "nchw-float-rgb-255": InputLayout(),  # fast-reid, which normalises inside
    "nchw-float-bgr-255": InputLayout(bgr=True),  # OpenVINO's model zoo
    "nchw-float-bgr-imagenet": InputLayout(bgr=True, scale=1 / 255, mean=IMAGENET_MEAN[::-1], std=IMAGENET_STD[::-1]),
}


class OnnxModel:
    """An open ONNX file: `embed` turns crops of `height` x `width` into embeddings.

    Args:
        path: the file.
        layout: a key of INPUT_LAYOUTS; for a file without our metadata only, and needed there.
        size: (height, width) for a file that does not fix it itself.
        output: name of the embedding; needed for a foreign file with several outputs.
        threads: of ONNX Runtime within an operator; 0 leaves the number to it.

    Raises:
        ModelError: no ONNX file, or one that these arguments do not describe.
    """

    def __init__(
        self,
        path: Path,
        layout: str | None = None,
        size: tuple[int, int] | None = None,
        output: str | None = None,
        threads: int = 0,
    ) -> None:
        self.path = path
        self._session = open_session(path, threads)
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        own = self.metadata.get("format")
        if own is not None and own != FORMAT:
            raise ModelError(f"{path} has the format {own!r}, this program reads {FORMAT!r}: update it")
        if own and (layout or size or output):
            raise ModelError(f"{path} tells its input and output itself: leave layout, size and output out")
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise ModelError(f"{path} has {len(inputs)} inputs, one is needed: {[i.name for i in inputs]}")
        self._input = inputs[0].name
        self._element = _element(path, inputs[0].type)
        if own:
            size, layout, output = self._own_size(), OWN_LAYOUT, "embedding"
        self._layout = _layout(path, layout, inputs[0])
        if self._element is np.uint8 and not self._layout.keeps_bytes:
            raise ModelError(f"{path} takes bytes (uint8), which {layout} would change: choose a layout that does not")
        self._output = self._named_output(output)
        self._dim = 0  # values of an embedding: not known yet
        self.batch, self.height, self.width = fixed_sizes(path, self._layout, inputs[0].shape, size)

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embeddings float32 [N, D], as the file gives them, of crops uint8 [N, height, width, 3] RGB.

        Raises:
            ModelError: the file refuses such an input, or its output is not one vector a crop.
        """
        if self.batch is None:
            return self._run(crops)
        parts = [self._run_fixed(crops[i : i + self.batch], self.batch) for i in range(0, len(crops), self.batch)]
        return np.concatenate(parts)

    def _run_fixed(self, crops: NDArray[np.uint8], batch: int) -> NDArray[np.float32]:
        """A file exported with a fixed batch gets the last one filled up."""
        padding = np.zeros((batch - len(crops), *crops.shape[1:]), np.uint8)
        return self._run(np.concatenate([crops, padding]))[: len(crops)]

    def _run(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        try:
            (found,) = self._session.run([self._output], {self._input: self._layout.apply(crops, self._element)})
        except Exception as error:  # ONNX Runtime's exceptions share no other base
            raise ModelError(f"{self.path} does not run on {crops.shape[1:3]} crops: {error}") from error
        if not isinstance(found, np.ndarray) or found.dtype.kind not in NUMBERS:
            raise ModelError(f"{self.path}: output {self._output!r} is no tensor of numbers: choose another output")
        embeddings = found.astype(np.float32)
        while embeddings.ndim > 2 and embeddings.shape[-1] == 1:  # [N, D, 1, 1] of a pooled map
            embeddings = embeddings[..., 0]
        if embeddings.ndim != 2 or len(embeddings) != len(crops):
            raise ModelError(
                f"{self.path}: output {self._output!r} has the shape {embeddings.shape}, "
                f"not ({len(crops)}, D): choose another output"
            )
        if embeddings.shape[1] != (self._dim or embeddings.shape[1]):
            raise ModelError(
                f"{self.path}: output {self._output!r} has {embeddings.shape[1]} values a crop and had {self._dim} "
                "before: choose another output"
            )
        self._dim = embeddings.shape[1]
        return embeddings

    def _own_size(self) -> tuple[int, int]:
        try:
            return int(self.metadata["height"]), int(self.metadata["width"])
        except (KeyError, ValueError) as error:
            raise ModelError(f"{self.path} has no height and width in its metadata: export it again") from error

    def _named_output(self, output: str | None) -> str:
        names = [node.name for node in self._session.get_outputs()]
        if output is None and len(names) == 1:
            return str(names[0])
        if output not in names:
            asked = "which output is the embedding" if output is None else f"no output {output!r}"
            raise ModelError(f"{self.path}: {asked}? It has {', '.join(names)}")
        return str(output)


def open_session(path: Path, threads: int = 0) -> Any:
    """A CPU session of ONNX Runtime; raises ModelError where it cannot be opened."""
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise ModelError(f"{readable(str(path))}: ONNX Runtime opens paths in UTF-8 only; rename it") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = SILENT
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # as above
        raise ModelError(f"{path} is no ONNX file that ONNX Runtime can load: {error}") from error


def _element(path: Path, name: str) -> type[np.generic]:
    if name not in ELEMENT_TYPES:
        raise ModelError(f"{path} wants {name} as input, known are {', '.join(ELEMENT_TYPES)}")
    return ELEMENT_TYPES[name]


def _layout(path: Path, name: str | None, wanted: Any) -> InputLayout:
    if name is not None and name in INPUT_LAYOUTS:
        return INPUT_LAYOUTS[name]
    reason = "tells nothing about its input" if name is None else f"cannot be fed {name!r}"
    raise ModelError(
        f"{path} {reason} ({wanted.name}, {wanted.type}, {wanted.shape}): "
        f"name its input layout, one of {', '.join(INPUT_LAYOUTS)}"
    )


def fixed_sizes(
    path: Path, layout: InputLayout, shape: list[int | str | None], size: tuple[int, int] | None
) -> tuple[int | None, int, int]:
    """(batch or None, height, width) from what the file fixes and what was asked for."""
    if len(shape) != 4:
        raise ModelError(f"{path} takes an input of {len(shape)} dimensions {shape}, not a batch of pictures")
    channels = shape[1] if layout.channels_first else shape[3]
    if isinstance(channels, int) and channels != 3:
        fitting = [name for name, other in INPUT_LAYOUTS.items() if shape[1 if other.channels_first else 3] == 3]
        raise ModelError(
            f"{path} takes {shape}, which is not so laid out: "
            f"{'name ' + ' or '.join(fitting) if fitting else 'no layout that is known has 3 colours there'}"
        )
    batch = shape[0] if isinstance(shape[0], int) else None
    if batch is not None and not 1 <= batch <= MOST_BATCH:
        raise ModelError(f"{path} takes batches of {batch:,} pictures: export it with an open batch")
    rows, columns = shape[2:] if layout.channels_first else shape[1:3]
    fixed = (rows, columns) if isinstance(rows, int) and isinstance(columns, int) else None
    if fixed and size and fixed != size:
        raise ModelError(f"{path} takes {fixed[0]}x{fixed[1]} crops, not {size[0]}x{size[1]}")
    chosen = fixed or size
    if chosen is None:
        raise ModelError(f"{path} leaves its size open: say it (HEIGHTxWIDTH, usually 256x128)")
    if not all(1 <= side <= MOST_SIDE for side in chosen):
        raise ModelError(f"{path} takes {chosen[0]}x{chosen[1]} crops: 1 to {MOST_SIDE} pixels either way are possible")
    return batch, *chosen
