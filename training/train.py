"""Train a network: `python training/train.py --preset strong --data market1501 --weights resnet50.pt`.

A run lives in a folder outside the checkout. The same command continues a run that was stopped, from its
last complete epoch; on a CPU, with the same number of threads and the same torch, to the bit. On several
cards: `torchrun --nproc-per-node 4 -- training/train.py …` (without the two dashes torchrun takes --run for its own).
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from training.packages import INTERRUPTED, missing, needed, stop_on_sigterm

with needed(__name__):
    import torch
    from rich.console import Console

    from training.arguments import add_excluded_cameras, add_teacher, page, path, speak, teacher_of
    from training.config import PRESETS, Config, ConfigError, Misfit, build_config
    from training.data import synthetic
    from training.data.cache import check_readable
    from training.data.dataset import Dataset, short_name
    from training.data.holdout import without_cameras
    from training.data.reading import LAYOUTS, read
    from training.loop import runlog
    from training.loop.distributed import Processes, joined
    from training.loop.engine import NotFinite
    from training.loop.files import NotWritten, locked, make_folder
    from training.loop.fit import check_fit
    from training.loop.memory import OutOfMemory
    from training.loop.trainer import Trainer
    from training.network.device import find_device
    from training.network.stored import read_checkpoint
    from training.retrieval.report import table

log = logging.getLogger("training")
RUNS = Path.home() / "resight-runs"
DRAWN = "drawn"

Exporter = Callable[[Path, Dataset, Path, Console | None], None]


class Refused(RuntimeError):
    """The run is trained, but a model file failed its check."""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 trained and exported; 1 stopped before that (short of disk or memory: the same command continues;
    not finite or an export refused: the message says what to do); 2 bad input; 130 interrupted (the same command
    continues)."""
    arguments = parse(argv)
    try:
        train(arguments)
    except (NotFinite, NotWritten, OutOfMemory, Refused) as error:
        print(f"stopped: {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"stopped: {interrupt}" if str(interrupt) else "stopped", file=sys.stderr)
        return INTERRUPTED
    return 0


def train(arguments: argparse.Namespace) -> None:
    """Train, export and measure as the arguments say; of several processes the first exports."""
    config = find_config(arguments)
    export_all = None if arguments.no_export else load_exporter()  # before hours of training, not after
    with joined(find_device(arguments.device)) as (processes, device):
        console = speak(processes.first)
        data, run = find_data(arguments, config, processes)
        for note in data.notes:
            log.info(note)
        if data.left_out:
            log.info("%d junk and distractor pictures of the training part are left out", data.left_out)
        trainer = Trainer(config, data, run, device, console, processes)
        if processes.first:
            check_readable((*data.query, *data.gallery), console=console)
        trained = trainer.train(arguments.weights, teacher_of(arguments))
    if export_all is None or not processes.first:
        return
    if is_exported(trained, run):
        log.info("%s is complete: its model files and %s are of this checkpoint", run, runlog.RESULTS)
    else:
        stop_on_sigterm()  # not before: torchrun ends its processes by it, and they may be waiting for each other
        export_all(trained, data, run, console)


def is_exported(trained: Path, run: Path) -> bool:
    """Whether all that an export writes is there, and was written after the checkpoint."""
    from training.export import DEFAULT_PRECISIONS

    written = [*(model_file(run, precision) for precision in DEFAULT_PRECISIONS), run / runlog.RESULTS]
    return all(path.is_file() and path.stat().st_mtime_ns > trained.stat().st_mtime_ns for path in written)


def model_file(run: Path, precision: str) -> Path:
    """Where a run's exported model lies."""
    return run / f"model-{precision}.onnx"


def find_config(arguments: argparse.Namespace) -> Config:
    """The settings; where they do not fit each other, the data are looked at too, so that all is told at once."""
    try:
        return build_config(arguments.preset, arguments.config, arguments.set)
    except Misfit as misfit:
        if arguments.data is not None:
            check_fit(misfit.mended, read_data(arguments).train, earlier=misfit)
        raise


def find_data(arguments: argparse.Namespace, config: Config, processes: Processes) -> tuple[Dataset, Path]:
    """The data set, drawn where none is given, and the run's folder."""

    def run_folder(data_name: str) -> Path:
        run: Path | None = arguments.run
        return run or RUNS / f"{arguments.preset}-{short_name(data_name)}-{config.sha256()[:8]}"

    if arguments.data is not None:
        data = read_data(arguments)
        return data, run_folder(data.name)
    if arguments.preset != "smoke":
        raise ConfigError("--data is needed: the folder of a data set, or a CSV file (docs/training.md)")
    run = run_folder(DRAWN)
    if processes.first:
        draw_data(run / DRAWN)
    processes.wait()
    data = read(run / DRAWN, "market1501", ignore_cameras=arguments.ignore_cameras)
    return without_cameras(data, arguments.exclude_camera), run


def read_data(arguments: argparse.Namespace) -> Dataset:
    """The data set that is named."""
    data = read(arguments.data, arguments.layout, ignore_cameras=arguments.ignore_cameras)
    return without_cameras(data, arguments.exclude_camera)


def draw_data(folder: Path) -> Path:
    """The drawn data set of the smoke preset: complete, or not there.

    Raises:
        ValueError: another command draws it, or trains beside it.
        NotWritten: the disk is full, or the folder cannot be written.
    """
    if folder.is_dir():
        return folder
    make_folder(folder.parent)
    partial = folder.with_name(f"{folder.name}.partial")
    with locked(folder.parent):
        shutil.rmtree(partial, ignore_errors=True)  # of a command that was killed
        try:
            synthetic.draw_market1501(partial)
            partial.replace(folder)
        except OSError as error:
            raise NotWritten(f"{folder} could not be drawn ({error})") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def load_exporter() -> Exporter:
    """What exports a trained run: its model files, each evaluated as the file that it is, and results.json.

    Raises:
        ValueError: the packages for it are not installed.
    """
    try:
        from training.export import DEFAULT_PRECISIONS, export
        from training.modelfile.parity import ExportError
    except ImportError as error:
        raise ValueError(f"to export, {missing(error)}; or train with --no-export") from error

    def export_all(trained: Path, data: Dataset, run: Path, console: Console | None) -> None:
        checkpoint = read_checkpoint(trained)
        results = []
        for precision in DEFAULT_PRECISIONS:
            log.info("exporting %s", precision)
            try:
                exported = export(checkpoint, data, model_file(run, precision), precision, console=console)
            except ExportError as error:
                raise Refused(f"{error}; the checkpoint is {trained}") from error
            log.info(exported.summary())
            for warning in exported.warnings:
                log.warning("warning: %s", warning)
            if exported.evaluation is not None:
                page().print(table(exported.evaluation))
                results.append({"precision": precision, **exported.evaluation.as_dict()})
        runlog.write_json(run / runlog.RESULTS, results)

    return export_all


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=list(PRESETS), default="strong", help="default: strong")
    parser.add_argument("--config", type=path, metavar="FILE", help="TOML file with settings over the preset's")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting; repeatable")
    parser.add_argument(
        "--data",
        type=path,
        metavar="PATH",
        help="folder of a data set, or a CSV file (smoke draws one)",
    )
    parser.add_argument("--layout", choices=LAYOUTS, help="of the data (default: found out by looking)")
    parser.add_argument("--ignore-cameras", action="store_true", help="take every camera as unknown")
    add_excluded_cameras(parser)
    parser.add_argument(
        "--weights", default="none", metavar="FILE", help="state dict for the backbone, 'imagenet' or 'none'"
    )
    add_teacher(parser)
    parser.add_argument("--run", type=path, metavar="FOLDER", help=f"run folder (default: in {RUNS})")
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=default, help=f"cpu, cuda or cuda:N (here: {default})")
    parser.add_argument("--no-export", action="store_true", help="stop after the last checkpoint")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
