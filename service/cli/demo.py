"""`resight demo`: the drawn crops enrolled and queried, in a gallery that ends with the demo."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from service.cli.connecting import DEFAULT_URL, KeyFile, Url, client_at, explained, service
from service.cli.items import Item, SourceError, count
from service.cli.messages import NOT_POSSIBLE, SOME_FAILED, printing, say, stop
from service.cli.options import a_path
from service.cli.sources import open_sources

EXAMPLES = Path("examples/crops")
CHECKOUT = Path(__file__).parents[2]
MODEL = Path("models/market1501-int8.onnx")
KEPT = ("RESIGHT_MODEL", "RESIGHT_DEVICE", "RESIGHT_THREADS", "RESIGHT_MAX_BATCH")
LONGEST_START, LONGEST_END = 600.0, 20.0  # seconds; on a GPU the first start builds what later ones find


def demo(
    crops: Annotated[
        Path | None,
        typer.Option(parser=a_path, metavar="FOLDER", help="Crops with Market-1501 names. [default: the drawn ones]"),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(parser=a_path, metavar="FILE", help="The model of a service that is started.")
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the console in a browser.")] = True,
    url: Url = DEFAULT_URL,
    key_file: KeyFile = None,
) -> None:
    """Show how it works: drawn people are enrolled, one of them is asked for, and the console opens in a browser.

    Where a service answers whose gallery is empty, or holds nothing but these crops, that is used. Otherwise one is
    started on a free port, with a gallery that is gone when Ctrl-C ends the demo: drawn people do not get among
    real ones.
    """
    items = _items(crops)
    try:
        if _usable(url, key_file, items):
            say(f"using the service at {url}")
            _show(url, key_file, items, browser)
            return
        with _started(model) as started:
            _show(started, None, items, browser)
            say("The service and its gallery last until Ctrl-C.")
            threading.Event().wait()
    except KeyboardInterrupt:
        say("The demo is over.")


def _items(crops: Path | None) -> list[Item]:
    folder = crops or next((one for one in (EXAMPLES, CHECKOUT / EXAMPLES) if one.is_dir()), None)
    if folder is None:
        stop(
            "The drawn crops come with Resight's source, in examples/crops, and are not here: run this in a checkout,"
            " or name a folder with crops of people by --crops FOLDER."
        )
    try:
        with open_sources([folder]) as [source]:
            items = list(source.items)
    except SourceError as error:
        stop(f"{error}.")
    if not items:
        stop(f"There are no crops in {folder}.")
    return items


def _usable(url: str, key_file: Path | None, items: Sequence[Item]) -> bool:
    """Whether a service answers there that has none but these crops."""
    from service.cli.watching import crop_id_of
    from service.client.answers import NotResight, ResightError, Unreachable

    client = client_at(url, key_file, retries=0)
    try:
        with client:
            if not client.ready().ready:
                return False
            ours = {crop_id_of(item.read()) for item in items}
            if all(crop.crop_id in ours for crop in client.crops()):
                return True
            say(f"the gallery at {url} has other people in it, so a service of the demo's own is started")
    except (Unreachable, NotResight):
        return False
    except ResightError as error:
        say(f"{explained(error, url)} A service of the demo's own is started.")
    except SourceError as error:
        stop(f"A crop {error}.")
    return False


def _show(url: str, key_file: Path | None, items: Sequence[Item], browser: bool) -> None:
    """Enrols, asks, prints the ranking, opens the console."""
    from service.cli.bulk import enrol_all
    from service.cli.tabular import ranking_table
    from service.cli.terminal import console, footer, progress, verdict

    probe = items[-1]
    with service(url, key_file) as client:
        names = {}
        with progress(console(stderr=True), len(items)) as advance:
            for outcomes in enrol_all(client, items):
                for outcome in outcomes:
                    if outcome.crop_id is None:
                        stop(f"{outcome.item.name}: {outcome.reason}", SOME_FAILED)
                    names[outcome.crop_id] = outcome.item.name
                advance(len(outcomes))
        excluded = [probe.camera] if probe.camera else []
        ranking = client.query(probe.read(), top_k=5, exclude_cameras=excluded)
    with printing():
        typer.echo(f"{count(len(items), 'crop')} enrolled. Who is on {probe.name}, seen by other cameras?\n")
        out = console()
        out.print(verdict(ranking))
        out.print(ranking_table(ranking, names))
        out.print(footer(ranking))
        typer.echo(f"\nThe console: {url}/")
    if browser and not webbrowser.open(f"{url}/"):
        say(f"No browser can be opened here; open {url}/ in yours.")


@contextmanager
def _started(model: Path | None) -> Iterator[str]:
    """A service of its own on a free port, with a gallery that is gone afterwards; its address."""
    with tempfile.TemporaryDirectory(prefix="resight-demo-") as folder:
        log = Path(folder, "log")
        with (
            log.open("wb") as errors,
            subprocess.Popen(
                [sys.executable, "-c", "from service.cli.commands import main; main()", *_serve_options(folder, model)],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=_environment(),
                start_new_session=True,  # Ctrl-C is for the demo, which ends it
            ) as process,
        ):
            earlier = signal.signal(signal.SIGTERM, _end)
            try:
                yield _address(process, log)
            finally:
                signal.signal(signal.SIGTERM, earlier)
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(LONGEST_END)
                except subprocess.TimeoutExpired:
                    process.kill()


def _end(_number: int, _frame: object) -> NoReturn:
    """Ends the demo as Ctrl-C does, and the service with it."""
    raise KeyboardInterrupt


def _address(process: subprocess.Popen[str], log: Path) -> str:
    assert process.stdout is not None
    impatient = threading.Timer(LONGEST_START, process.kill)
    impatient.start()
    try:
        line = process.stdout.readline()
    finally:
        impatient.cancel()
    found = re.search(r"http://[\d.:]+\d", line)
    if found is None:
        process.wait()
        said = log.read_text(errors="replace").splitlines()
        stop(f"No service could be started. {said[-1] if said else ''} `resight doctor` says more.", NOT_POSSIBLE)
    return found[0]


def _serve_options(folder: str, model: Path | None) -> list[str]:
    options = ["serve", "--port", "0", "--gallery", f"sqlite:///{folder}/gallery", "--log-level", "error"]
    if model is None and "RESIGHT_MODEL" not in os.environ and not MODEL.exists() and (CHECKOUT / MODEL).exists():
        model = CHECKOUT / MODEL
    return options if model is None else [*options, "--model", str(model)]


def _environment() -> dict[str, str]:
    """What the user has set, without what belongs to another service of theirs: keys, address, gallery."""
    return {
        name: value for name, value in os.environ.items() if not name.upper().startswith("RESIGHT_") or name in KEPT
    }
