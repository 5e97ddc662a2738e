"""Kinds of command-line arguments that several commands take."""

from __future__ import annotations

import argparse
from pathlib import Path

from training.config import ConfigError
from training.loop.distillation import TeacherFile
from training.retrieval.onnx_model import INPUT_LAYOUTS


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def count(text: str) -> int:
    """A whole number of at least 0."""
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


def add_teacher(parser: argparse.ArgumentParser) -> None:
    """The teacher to distil from, which `teacher_of` reads again."""
    parser.add_argument(
        "--teacher",
        type=Path,
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
    return TeacherFile(arguments.teacher, arguments.teacher_layout)
