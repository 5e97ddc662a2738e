"""Count the cameras, people and images of a data set: `python -m training.data PATH [--decode] [--list FILE.csv]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from training.packages import INTERRUPTED, needed

with needed(__name__):
    from rich.console import Console
    from rich.progress import track

    from training.data.dataset import DataError, Dataset, Sample
    from training.data.images import read_crop
    from training.data.listing import write_list
    from training.data.reading import LAYOUTS, read
    from training.data.summary import remarks, table
    from training.printing import printing


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 read and found sound, 2 not, 130 interrupted."""
    parser = argparse.ArgumentParser(prog="python -m training.data", description=__doc__)
    parser.add_argument("path", type=Path, help="folder of the data set, or a CSV file")
    parser.add_argument("--layout", choices=LAYOUTS, help="how it is laid out (default: by looking)")
    parser.add_argument("--ignore-cameras", action="store_true", help="take every camera as unknown")
    parser.add_argument("--decode", action="store_true", help="decode every picture too, and name all that are damaged")
    parser.add_argument(
        "--list",
        type=Path,
        metavar="FILE.csv",
        help="write who is learnt and who is tested: a line a picture of your own, to edit and to give as PATH",
    )
    options = parser.parse_args(arguments)
    try:
        data = read(options.path, options.layout, ignore_cameras=options.ignore_cameras)
        damaged = find_damaged(data) if options.decode else None
        with printing():
            show(data, damaged)
            if options.list:
                write_list(data, options.list)
                print(f"{options.list} tells who is learnt and who is tested")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return INTERRUPTED
    for reason in damaged or ():
        print(f"error: {reason}", file=sys.stderr)
    return 2 if damaged else 0


def show(data: Dataset, damaged: Sequence[str] | None) -> None:
    """The counts, and what else is to be known; `damaged` says what cannot be read, None where nobody looked."""
    console = Console(highlight=False)
    console.print(table(data))
    for remark in remarks(data):
        console.print(remark, markup=False, soft_wrap=True)
    if damaged is not None:
        console.print(f"{len(pictures(data)):,} pictures decoded, {len(damaged) or 'none'} damaged", soft_wrap=True)


def pictures(data: Dataset) -> tuple[Sample, ...]:
    return (*data.train, *data.query, *data.gallery, *data.multi_query)


def find_damaged(data: Dataset) -> list[str]:
    """Why pictures cannot be read, a sentence each, with a progress bar on the error stream."""
    damaged = []
    for sample in track(pictures(data), description="decoding", console=Console(stderr=True), transient=True):
        try:
            read_crop(sample, 1, 1)
        except DataError as error:
            damaged.append(str(error))
    return damaged


if __name__ == "__main__":
    sys.exit(main())
