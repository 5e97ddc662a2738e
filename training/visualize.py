"""Draw the paper's figures: `python training/visualize.py all RUNS --data market1501`.

RUNS are run folders, folders of run folders (an ablation's) and checkpoints. `all` draws every figure for which
they have what it needs and says what the others miss; names, with commas, choose some:

    embeddings    Fig. 4   test people's embeddings under each loss (t-SNE)         checkpoints, --data
    accuracy      Figs. 6, 7   rank-1 while training and mAP of Table 3's models    run folders with eval_every
    losses        Fig. 8   the losses of every iteration                            run folders
    feature-maps  Fig. 9   the maps of each stage, for the first query              a checkpoint, --data
    kernel        Fig. 10  one attention kernel, at the most attended position      a checkpoint, --data
    attention     Fig. 11  attention over several people                            a checkpoint, --data
    ranked        queries and their ten nearest, right and wrong ones framed        a checkpoint, --data
    cmc           cumulative match characteristics of all models                    an ablation's runs, or --data
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from training.packages import INTERRUPTED, needed

with needed(__name__):
    import torch
    from rich.console import Console

    from training.data.reading import LAYOUTS, read
    from training.figures.makers import MAKERS
    from training.figures.material import Material, Missing
    from training.figures.runs import find_runs
    from training.figures.style import save
    from training.loop.files import NotWritten
    from training.network.device import find_device

ALL = "all"


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 drawn; 1 a figure that was asked for by name, or every one, misses something, or one could not be
    written; 2 bad input; 130 interrupted."""
    options = parse(argv)
    try:
        missing = visualize(options, Console(stderr=True))
    except NotWritten as error:
        print(f"stopped: {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped: what is drawn stays", file=sys.stderr)
        return INTERRUPTED
    wanted = set(MAKERS) if options.figures == list(MAKERS) else set()
    return int(missing == wanted if wanted else bool(missing))


def visualize(options: argparse.Namespace, console: Console) -> set[str]:
    """Draw what was asked for, and return the names of what could not be drawn.

    Raises:
        ValueError, OSError: runs, data or output that cannot be used; the message says why.
    """
    device = find_device(options.device)
    runs = find_runs(options.runs)
    data = read(options.data, options.layout, ignore_cameras=options.ignore_cameras) if options.data else None
    first: Path = options.runs[0]
    output: Path = options.output or (first if first.is_dir() else first.parent) / "figures"
    material = Material(runs, data, device, console)
    missing = set()
    for name in options.figures:
        material.remarks.clear()  # of a figure that was not drawn
        try:
            for stem, figure in MAKERS[name](material):
                paths = save(figure, output, stem)
                console.print(f"{name}: {', '.join(str(path) for path in paths)}", soft_wrap=True)
            for remark in material.remarks:
                console.print(f"{name}: {remark}", soft_wrap=True)
        except Missing as error:
            console.print(f"{name}: not drawn, it needs {error}", soft_wrap=True)
            missing.add(name)
    return missing


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", type=_figures, help="all, or names from above with commas between")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUNS", help="run folders, folders of those, checkpoints")
    parser.add_argument("--data", type=Path, metavar="PATH", help="data set whose test part is shown")
    parser.add_argument("--layout", choices=LAYOUTS, help="of the data (default: found out by looking)")
    parser.add_argument("--ignore-cameras", action="store_true", help="take every camera as unknown")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="default: figures, in the first of RUNS")
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=default, help=f"cpu, cuda or cuda:N (here: {default})")
    return parser.parse_args(argv)


def _figures(text: str) -> list[str]:
    names = list(MAKERS) if text == ALL else text.split(",")
    if unknown := [name for name in names if name not in MAKERS]:
        raise argparse.ArgumentTypeError(f"no figure is called {unknown[0]!r}; there are {ALL}, {', '.join(MAKERS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
