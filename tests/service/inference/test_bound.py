"""Fixed buffers and the thread that owns them, on a CPU session: what a GPU does, but for its speed."""

from __future__ import annotations

import gc
import threading

import numpy as np
import onnxruntime
import pytest

from service.inference.bound import BoundRuns, OwnThread, plan
from service.inference.model import ModelFile
from tests.eventually import until
from tests.tiny_model import HEIGHT, WIDTH

RANDOM = np.random.default_rng(0)


def session(file: ModelFile) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(file.content, providers=["CPUExecutionProvider"])


@pytest.fixture
def runs(model_file: ModelFile) -> BoundRuns:
    return BoundRuns(session(model_file), model_file.info, 4, None, True, lambda: None)


@pytest.mark.parametrize("warm", [False, True])
def test_it_embeds_as_a_plain_session_whatever_the_number(model_file: ModelFile, runs: BoundRuns, warm: bool) -> None:
    if warm:
        runs.warm_up()
    plain = session(model_file)
    for count in range(1, 14):
        crops = RANDOM.integers(0, 256, (count, HEIGHT, WIDTH, 3), np.uint8)
        embeddings, attention = plain.run(["embedding", "attention"], {"crops": crops})
        found, maps = runs.run(crops, True)
        assert maps is not None
        np.testing.assert_allclose(found, embeddings, atol=1e-6)
        np.testing.assert_allclose(maps, attention, atol=1e-6)
        assert runs.run(crops, False)[1] is None


def test_what_it_gave_stays_what_it_was(runs: BoundRuns) -> None:
    first, _ = runs.run(RANDOM.integers(0, 256, (4, HEIGHT, WIDTH, 3), np.uint8), False)
    before = first.copy()
    runs.run(RANDOM.integers(0, 256, (4, HEIGHT, WIDTH, 3), np.uint8), False)
    np.testing.assert_array_equal(first, before)


def test_crops_of_another_size_are_an_error(runs: BoundRuns) -> None:
    with pytest.raises(ValueError, match="are not those of the model"):
        runs.run(np.zeros((2, 1, 1, 3), np.uint8), False)


def test_a_warm_up_times_every_size(runs: BoundRuns) -> None:
    runs.warm_up()
    assert list(runs.seconds) == [1, 2, 4]
    assert runs.captured <= {1, 2, 4}


def test_a_size_that_fails_is_named(model_file: ModelFile) -> None:
    class Small(onnxruntime.InferenceSession):  # type: ignore[misc]
        def run_with_iobinding(self, binding: onnxruntime.IOBinding, options: onnxruntime.RunOptions) -> None:
            if binding.get_outputs()[0].shape()[0] > 2:
                raise ValueError("out of memory")
            super().run_with_iobinding(binding, options)

    small = Small(model_file.content, providers=["CPUExecutionProvider"])
    with pytest.raises(RuntimeError, match="at 4 images: out of memory"):
        BoundRuns(small, model_file.info, 8, None, False, lambda: None).warm_up()


@pytest.mark.parametrize(
    ("count", "seconds", "sizes"),
    [
        (13, {}, [8, 4, 1]),
        (13, {1: 1.0, 4: 1.1, 8: 1.2, 16: 1.4}, [16]),  # a GPU: each run costs, images hardly
        (13, {1: 1.0, 4: 4.0, 8: 8.0, 16: 16.0}, [8, 4, 1]),  # a CPU: images cost
        (16, {8: 1.0, 16: 9.0}, [16]),
        (19, {1: 1.0, 2: 1.1, 4: 1.2, 16: 1.4}, [16, 4]),
        (40, {8: 1.0, 16: 1.5}, [16, 16, 8]),
    ],
)
def test_places_are_left_empty_where_that_is_quicker(count: int, seconds: dict[int, float], sizes: list[int]) -> None:
    assert plan(count, 16, seconds) == sizes


def test_all_calls_share_one_thread_and_errors_come_out() -> None:
    own = OwnThread(lambda: None)
    assert own.call(threading.get_ident) == own.call(threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        own.call(lambda: 1 / 0)
    assert own.call(lambda: 7) == 7


def test_the_thread_ends_with_its_owner() -> None:
    own = OwnThread(lambda: None)
    thread = own.call(threading.current_thread)
    assert thread.daemon
    del own
    gc.collect()
    until(lambda: not thread.is_alive())
