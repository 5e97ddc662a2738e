"""The log: one JSON object a line, whatever is logged."""

from __future__ import annotations

import json
import logging
import warnings

import pytest

from service.telemetry import configure_logging


def read_with(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_record_is_one_line_with_what_extra_added(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info")
    logging.getLogger("service.any").info("two\nlines and %s", "ü", extra={"crops": 3, "path": object})
    (line,) = read_with(capsys)
    assert (line["message"], line["level"], line["logger"]) == ("two\nlines and ü", "info", "service.any")
    assert line["crops"] == 3
    assert str(line["time"]).endswith("+00:00")
    assert "request_id" not in line


def test_a_traceback_stays_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("error")
    try:
        raise ValueError("why")
    except ValueError:
        logging.getLogger("service").exception("failed")
    logging.getLogger("service").info("below the level")
    (line,) = read_with(capsys)
    assert "ValueError: why" in str(line["exception"])


def test_warnings_are_lines_too(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)  # an earlier test's capture ended with its own context
        configure_logging("info")
        warnings.warn("old picture", UserWarning, stacklevel=1)
        logging.captureWarnings(False)
    (line,) = read_with(capsys)
    assert (line["logger"], line["level"]) == ("py.warnings", "warning")
    assert "old picture" in str(line["message"])


def test_warnings_of_libraries_are_lines_too(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("debug")
    for name in ("python_multipart.multipart", "asyncio"):
        logging.getLogger(name).warning("strange %s", "boundary")
        logging.getLogger(name).info("every callback")
    lines = read_with(capsys)
    assert [(line["logger"], line["message"]) for line in lines] == [
        ("python_multipart.multipart", "strange boundary"),
        ("asyncio", "strange boundary"),
    ]
