"""Print the paper's Table 2 for a data set: `python -m training.data PATH [--layout NAME]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from training.data.dataset import DataError
from training.data.reading import LAYOUTS, read
from training.data.summary import remarks, table


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 read and found sound, 2 not."""
    parser = argparse.ArgumentParser(prog="python -m training.data", description=__doc__)
    parser.add_argument("path", type=Path, help="folder of the data set, or a CSV file")
    parser.add_argument("--layout", choices=LAYOUTS, help="how it is laid out (default: by looking)")
    parser.add_argument("--ignore-cameras", action="store_true", help="take every camera as unknown")
    options = parser.parse_args(arguments)
    try:
        data = read(options.path, options.layout, ignore_cameras=options.ignore_cameras)
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console = Console(highlight=False)
    console.print(table(data))
    for remark in remarks(data):
        console.print(remark, markup=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
