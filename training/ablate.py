"""Train and measure what the paper compares, and print its Tables 3, 6 and 7 with its figures beside ours:

    python training/ablate.py --preset paper --data market1501 --weights resnet50.pt --set stride_placement=3x3

They are six runs over one preset: three kinds of attention, two activations of its scores, three choices of losses;
times `--seeds`. Each has a folder of its own. A finished run is not run again and one that was stopped continues, so
the same command takes up where it was left. On several GPUs `--gpus N` trains N runs at a time.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from training.packages import INTERRUPTED, needed, stop_on_sigterm

with needed(__name__):
    import torch
    from rich.console import Console

    from training.arguments import add_teacher, count, path, positive, speak, teacher_of
    from training.config import PRESETS, ConfigError, build_config
    from training.data.cache import check_readable
    from training.data.dataset import short_name
    from training.data.reading import LAYOUTS, read
    from training.figures.ablation import MARKDOWN, Ablation, Job, base_config
    from training.figures.processes import Process, launch, spread, visible_gpus
    from training.figures.variants import TABLES, Table
    from training.loop.engine import NotFinite
    from training.loop.files import NotWritten, make_folder
    from training.loop.fit import check_fit
    from training.loop.memory import OutOfMemory
    from training.network.device import find_device
    from training.printing import printing
    from training.train import DRAWN, RUNS, draw_data

log = logging.getLogger("training")
ALL = "all"


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 all runs are finished; 1 a full disk (the same command continues), or a run failed; 2 bad input;
    130 interrupted (the same command continues)."""
    arguments = parse(argv)
    console = speak()
    try:
        failed = ablate(arguments, sys.argv[1:] if argv is None else argv, console)
    except NotWritten as error:
        print(f"stopped: {error}; make room, and the same command continues", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped: the same command continues the ablation", file=sys.stderr)
        return INTERRUPTED
    for reason in failed:
        print(f"failed: {reason}", file=sys.stderr)
    return int(bool(failed))


def ablate(arguments: argparse.Namespace, argv: Sequence[str], console: Console | None) -> list[str]:
    """Run what is not finished, print the tables, and return why runs failed."""
    tables = [table for table in TABLES if arguments.table in (ALL, str(table.number))]
    gpus = visible_gpus(arguments.gpus, os.environ)
    device = find_device(arguments.device)
    ablation = prepare(arguments, console)
    jobs = ablation.jobs(tables, arguments.seeds)
    if arguments.only:
        jobs, tables = named(jobs, arguments.only), []
    waiting = [job for job in jobs if ablation.finished(job) is None]
    log.info("%d runs in %s, %d of them finished", len(jobs), ablation.folder, len(jobs) - len(waiting))
    progress = Progress(ablation, tables, jobs, len(waiting))
    if gpus:
        run_on_gpus(waiting, progress, gpus, argv)
    else:
        run_here(waiting, progress, device, console)
    if tables:
        text = ablation.write_tables(tables, jobs)
        with printing():
            print(text)
        log.info("the tables are in %s", ablation.folder / MARKDOWN)
    return progress.failed


def prepare(arguments: argparse.Namespace, console: Console | None) -> Ablation:
    """The settings, the data set, drawn where none is given and its test pictures found readable, and the folder."""
    base = base_config(build_config(arguments.preset, arguments.config, arguments.set))

    def folder(data_name: str) -> Path:
        default = RUNS / f"ablation-{arguments.preset}-{short_name(data_name)}-{base.sha256()[:8]}"
        return arguments.runs or default

    if arguments.data is not None:
        data = read(arguments.data, arguments.layout, ignore_cameras=arguments.ignore_cameras)
        runs = folder(data.name)
    elif arguments.preset == "smoke":
        runs = folder(DRAWN)
        data = read(draw_data(runs / DRAWN), ignore_cameras=arguments.ignore_cameras)
    else:
        raise ConfigError("--data is needed: the data set to train on and to measure with")
    make_folder(runs)
    for note in data.notes:
        log.info(note)
    check_fit(base, data.train)
    check_readable((*data.query, *data.gallery), console=console)
    return Ablation(base, data, runs, arguments.weights, teacher_of(arguments))


def named(jobs: Sequence[Job], name: str) -> list[Job]:
    """The job in the folder `name`."""
    found = [job for job in jobs if job.folder.name == name]
    if not found:
        raise ConfigError(f"no run is called {name!r}; there are {', '.join(job.folder.name for job in jobs)}")
    return found


class Progress:
    """What becomes of the runs: says how far they are, keeps the tables up to date, collects failures."""

    def __init__(self, ablation: Ablation, tables: Sequence[Table], jobs: Sequence[Job], waiting: int) -> None:
        self.ablation, self.tables, self.jobs, self.waiting = ablation, tables, jobs, waiting
        self.begun = self.ended = 0
        self.failed: list[str] = []
        self.began = time.monotonic()

    def begin(self, job: Job) -> None:
        self.begun += 1
        left = ""
        if self.ended:
            seconds = (time.monotonic() - self.began) / self.ended * (self.waiting - self.ended)
            left = f", about {timedelta(seconds=round(seconds))} to go"
        log.info("run %d of %d: %s%s", self.begun, self.waiting, job.title, left)

    def end(self, job: Job, failure: str | None) -> None:
        self.ended += 1
        if failure:
            self.failed.append(f"{job.title}: {failure}")
            log.error(self.failed[-1])
        elif self.tables:
            self.ablation.write_tables(self.tables, self.jobs)


def run_here(waiting: Sequence[Job], progress: Progress, device: torch.device, console: Console | None) -> None:
    """One run after another, in this process; one that fails by itself does not stop the others."""
    for job in waiting:
        progress.begin(job)
        try:
            progress.ablation.run(job, device, console)
        except (NotFinite, OutOfMemory) as error:
            progress.end(job, str(error))
        else:
            progress.end(job, None)


def run_on_gpus(waiting: Sequence[Job], progress: Progress, gpus: Sequence[str], argv: Sequence[str]) -> None:
    """This same command once a run, each with a GPU of its own and its output beside the run's folder."""

    def output(job: Job) -> Path:
        return job.folder.with_suffix(".log")

    def start(job: Job, gpu: str) -> Process:
        progress.begin(job)
        one = ["--only", job.folder.name, "--runs", str(progress.ablation.folder), "--gpus", "0", "--device", "cuda"]
        return launch([sys.executable, "-m", "training.ablate", *argv, *one], gpu, output(job))

    def ended(job: Job, code: int) -> None:
        progress.end(job, f"exit code {code}, see {output(job)}" if code else None)

    stop_on_sigterm()
    spread(waiting, gpus, start, ended)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=list(PRESETS), default="paper", help="default: paper")
    parser.add_argument("--config", type=path, metavar="FILE", help="TOML file with settings over the preset's")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting; repeatable")
    parser.add_argument("--data", type=path, metavar="PATH", help="data set (smoke draws one)")
    parser.add_argument("--layout", choices=LAYOUTS, help="of the data (default: found out by looking)")
    parser.add_argument("--ignore-cameras", action="store_true", help="take every camera as unknown")
    parser.add_argument(
        "--weights", default="none", metavar="FILE", help="state dict for the backbone, 'imagenet' or 'none'"
    )
    add_teacher(parser)
    tables = [ALL, *(str(table.number) for table in TABLES)]
    parser.add_argument("--table", choices=tables, default=ALL, help="only the runs of one table")
    parser.add_argument("--seeds", type=positive, default=1, metavar="N", help="runs of each kind (default: 1)")
    parser.add_argument("--runs", type=path, metavar="FOLDER", help=f"for the run folders (default: in {RUNS})")
    parser.add_argument("--only", metavar="NAME", help="one run, by its folder's name, and no tables")
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=default, help=f"cpu, cuda or cuda:N (here: {default})")
    parser.add_argument("--gpus", type=count, default=0, metavar="N", help="train N runs at a time, one on each GPU")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
