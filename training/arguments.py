"""Kinds of command-line arguments that several commands take."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.logging import RichHandler

from training.config import ConfigError
from training.retrieval.onnx_model import INPUT_LAYOUTS

if TYPE_CHECKING:  # it needs torch, which evaluating an ONNX file does not
    from training.loop.distillation import TeacherFile

MOST = 1_000_000
MOST_THREADS = 1024
PAGE = 160  # columns of a file or pipe


def path(text: str) -> Path:
    """A path; an empty one would be the working directory, which nobody means."""
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError("an empty path, or one with a zero byte in it")
    return Path(text)


def words(text: str) -> str:
    """Words that a file will hold; bytes on the command line that are no UTF-8 could not be written into it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise argparse.ArgumentTypeError("bytes that are no text in UTF-8") from error
    return text


def positive(text: str) -> int:
    """A whole number from 1 to a million."""
    return _whole(text, 1, MOST)


def count(text: str) -> int:
    """A whole number from 0 to a million."""
    return _whole(text, 0, MOST)


def threads(text: str) -> int:
    """A number of threads; 0 leaves it to the library."""
    return _whole(text, 0, MOST_THREADS)


def _whole(text: str, low: int, high: int) -> int:
    try:
        number = int(text)
    except ValueError:  # also of more digits than Python reads
        number = low - 1
    if not low <= number <= high:
        shown = text if len(text) <= 20 else f"{text[:20]}…"
        raise argparse.ArgumentTypeError(f"{shown} is no whole number from {low:,} to {high:,}")
    return number


def page() -> Console:
    """The standard output for tables: as wide as the terminal, and not 80 columns where it is none."""
    console = Console()
    return console if console.is_terminal else Console(width=PAGE)


def terminal() -> Console | None:
    """The error stream for progress bars, where it is a terminal."""
    console = Console(stderr=True)
    return console if console.is_terminal else None


def speak(first: bool = True) -> Console | None:
    """Let the log appear on the error stream, and return the console for progress bars: None where there are none.

    A terminal shows bars beside the log, a file or pipe plain lines. Of several processes only the first has bars, and
    the others only fail.
    """
    if not first:
        logging.basicConfig(level=logging.ERROR)
        return None
    console = terminal()
    if console is not None:
        handler = RichHandler(console=console, show_path=False, show_level=False, omit_repeated_times=False)
        logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])
    else:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S")
    return console


def add_excluded_cameras(parser: argparse.ArgumentParser) -> None:
    """`--exclude-camera`, for `without_cameras`."""
    parser.add_argument(
        "--exclude-camera",
        action="append",
        default=[],
        metavar="NAME",
        help="learn nothing from this camera, to measure on one that is new; repeatable",
    )


def add_teacher(parser: argparse.ArgumentParser) -> None:
    """The teacher to distil from, which `teacher_of` reads again."""
    parser.add_argument(
        "--teacher",
        type=path,
        metavar="FILE",
        help="to distil from: an ONNX model, or a .npy file with a row a training picture in name order",
    )
    parser.add_argument("--teacher-layout", choices=INPUT_LAYOUTS, help="what the ONNX model takes")


def teacher_of(arguments: argparse.Namespace) -> TeacherFile | None:
    """The teacher that the arguments name."""
    if arguments.teacher is None:
        if arguments.teacher_layout is not None:
            raise ConfigError("--teacher-layout is for a --teacher")
        return None
    from training.loop.distillation import TeacherFile

    return TeacherFile(arguments.teacher, arguments.teacher_layout)
