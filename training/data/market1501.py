"""The Market-1501 reader (Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015).

Names such as `0002_c1s1_000451_03.jpg` tell identity and camera. Any data set in the same layout
(the drawn one of `training.data.synthetic`, one's own) is read by the same code.
"""

from __future__ import annotations

import re
from pathlib import Path

from training.data.checks import checked
from training.data.dataset import Dataset
from training.data.parts import Benchmark, read_parts

ORIGINAL_NAME = "Market-1501"
MARKET1501 = Benchmark(
    name=ORIGINAL_NAME,
    pattern=re.compile(r"(-1|\d{4,})_c(\d+)s\d+_\d+.*\.jpe?g$", re.IGNORECASE),
    example="0002_c1s1_000451_03.jpg",
    counts=(12_936, 3_368, 19_732),
)


def read(path: Path | str, ignore_cameras: bool = False) -> Dataset:
    """Read a folder that holds `bounding_box_train`, `query` and `bounding_box_test`, as folders or zips.

    Junk and distractors of the train part are left out. `gt_bbox`, where there is one, serves multi-query.

    Raises:
        DataError: as `parts.read_parts` and `checks.checked` say.
    """
    return checked(Path(path), read_parts(Path(path), MARKET1501), ignore_cameras)
