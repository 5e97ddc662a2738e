"""`resight watch`: pictures are enrolled as a tracker drops them into a folder."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.connecting import DEFAULT_URL, KeyFile, Url, client_at, explained
from service.cli.enrol import record
from service.cli.items import Layout, SourceError
from service.cli.messages import NOT_POSSIBLE, SOME_FAILED, printing, say, stop, unwritable
from service.cli.options import Json, LayoutOption, a_path
from service.cli.output import OutputError, writing
from service.cli.watching import Seen, Unseen, Watcher, crop_id_of

if TYPE_CHECKING:
    from service.cli.bulk import Outcome
    from service.client import Resight
    from service.client.answers import ResightError

MANY = 200  # pictures at once for which progress is shown
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds until an absent service is tried again
ASKING = 3  # requests in flight about what the gallery knows
SHARE = 4  # times a look that is rested after it, in a folder that takes long to look at
PORTION = 512  # pictures asked for and enrolled at once: Ctrl-C waits for no more
KNOWN = "known"
WORDS = {KNOWN: "in the gallery already"}
STATUSES = ("created", "duplicate", "updated", "failed")


def watch(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", parser=a_path, help="A folder, or a .csv that grows.")],
    identity: Annotated[str | None, typer.Option(help="Who is on the images; wins over their names.")] = None,
    camera: Annotated[str | None, typer.Option(help="Which camera took them; wins over their names.")] = None,
    layout: LayoutOption = None,
    every: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.1, max=3600)] = 1.0,
    url: Url = DEFAULT_URL,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Enrol crops as a tracker drops them into FOLDER, until Ctrl-C.

    A picture is enrolled once its size and time of change have stayed the same for a second; names that begin with a
    dot, or do not end like a picture's, are passed over. A picture in a folder is of the person the folder is named
    after, and its name may tell the camera; one beside the folders may have a Market-1501 name. Of a CSV (columns as
    for enrol) every row is enrolled once its picture is there.

    Nothing is written into FOLDER: started again, it asks the gallery what it has, and leaves that as it is, corrected
    labels included. While the service is away it waits. What cannot be enrolled is said once, and tried again when
    it changes. Exit code, after Ctrl-C or SIGTERM: 0 all well, 1 some failed or the service refuses, 2 not possible.
    """
    table = folder.suffix.lower() == ".csv"
    if not (folder.is_file() if table else folder.is_dir()):
        stop(f"{folder} is no folder and no .csv file: make it first, or name the one that the tracker writes to.")
    if (layout is Layout.CSV) != table and layout is not None:
        stop(f"{folder}: --layout {layout} does not fit; a .csv has the layout csv, and a folder another one.")
    watcher = Watcher(folder, layout, identity, camera)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    with client_at(url, key_file, retries=1) as client:
        _Watch(client, watcher, as_json).run(f"watching {folder} for {url}; Ctrl-C ends it", every)


class _Watch:
    def __init__(self, client: Resight, watcher: Watcher, as_json: bool) -> None:
        self._client, self._watcher, self._as_json = client, watcher, as_json
        self._tally: Counter[str] = Counter()
        self._started = time.time_ns()
        self._trouble: str | None = None

    def run(self, welcome: str, every: float) -> None:
        """Looks and enrols until it is interrupted, which raises Exit with the exit code."""
        from service.client.answers import ResightError

        say(welcome)
        pause = FIRST_PAUSE
        try:
            while True:
                try:
                    pause, rest = FIRST_PAUSE, max(every, SHARE * self._once())
                    self._say_once(None)
                except Unseen as error:
                    self._say_once(f"{error}; looking again.")
                    rest = every
                except ResightError as error:
                    if not _passes(error):
                        self._end("Broken off")
                        stop(explained(error, self._client.base_url), SOME_FAILED if error.status else NOT_POSSIBLE)
                    self._say_once(f"{explained(error, self._client.base_url)} Trying again.")
                    rest, pause = pause, min(2 * pause, LONGEST_PAUSE)
                time.sleep(rest)
        except KeyboardInterrupt:
            self._end("Stopped")
            raise typer.Exit(SOME_FAILED if self._tally["failed"] else 0) from None
        except OutputError as error:  # records that nobody gets are no reason to go on
            self._end("Broken off")
            stop(unwritable(error), SOME_FAILED)

    def _once(self) -> float:
        """One look, and what it found is enrolled; how many seconds the look took.

        Raises Unseen, ResightError, OutputError.
        """
        from service.cli.terminal import console, progress

        began = time.monotonic()
        seen = self._watcher.look(began)
        took = time.monotonic() - began
        if not seen:
            return took
        before = self._tally.copy()
        with progress(console(stderr=True), len(seen)) if len(seen) >= MANY else nullcontext(_unshown) as advance:
            for start in range(0, len(seen), PORTION):
                portion = seen[start : start + PORTION]
                self._enrol(self._new(portion))
                advance(len(portion))
        counts = self._tally - before
        said = ", ".join(f"{counts[status]:,} {WORDS.get(status, status)}" for status in counts)
        say(f"{datetime.now():%H:%M:%S} {said}")
        return took

    def _enrol(self, seen: Sequence[Seen]) -> None:
        from service.cli.bulk import enrol_all

        by_item = {id(one.item): one for one in seen}
        for outcomes in enrol_all(self._client, [one.item for one in seen]):
            for outcome in outcomes:
                self._watcher.done(by_item[id(outcome.item)])
                self._tally[outcome.status] += 1
            self._print(outcomes)

    def _new(self, seen: Sequence[Seen]) -> list[Seen]:
        """What the gallery may not have: of pictures older than this run, it is asked for each."""
        old = [one for one in seen if one.stamp[2] < self._started]
        known: set[str] = set()
        if old:
            with ThreadPoolExecutor(ASKING) as threads:
                found = list(threads.map(partial(_known, self._client), old))
            for one in (one for one, there in zip(old, found, strict=True) if there):
                known.add(one.place)
                self._watcher.done(one)
            self._tally[KNOWN] += len(known)
        return [one for one in seen if one.place not in known]

    def _print(self, outcomes: Sequence[Outcome]) -> None:
        if self._as_json:
            with writing():
                typer.echo("\n".join(json.dumps(record(outcome)) for outcome in outcomes))
        for outcome in outcomes:
            if outcome.reason:
                say(f"{outcome.item.name}: {outcome.reason}")

    def _say_once(self, trouble: str | None) -> None:
        if trouble is None and self._trouble is not None:
            say("All is well again.")
        elif trouble is not None and trouble != self._trouble:
            say(trouble)
        self._trouble = trouble

    def _end(self, how: str) -> None:
        counts = ", ".join(f"{self._tally[status]:,} {status}" for status in STATUSES)
        left = f"; {self._watcher.waiting:,} not enrolled yet" if self._watcher.waiting else ""
        junk = f", {self._watcher.junk:,} passed over by their names" if self._watcher.junk else ""
        line = f"{how}: {counts}, {self._tally[KNOWN]:,} in the gallery before{junk}{left}"
        if self._as_json or how != "Stopped":
            say(line)
        else:
            with printing():
                typer.echo(line)


def _unshown(number: int) -> None:
    """In the place of a progress bar."""


def _known(client: Resight, seen: Seen) -> bool:
    from service.client.answers import ResightError

    try:
        crop_id = crop_id_of(seen.item.read())
    except SourceError:  # which enrolling it will say
        return False
    try:
        client.crop(crop_id)
    except ResightError as error:
        if error.problem.type != "/problems/unknown-crop":
            raise
        return False
    return True


def _passes(error: ResightError) -> bool:
    """Whether it may go by itself: an absent or busy service, and whatever a proxy says in its place."""
    from service.client.answers import NotResight

    if isinstance(error, NotResight):
        return False
    status = error.status or 500
    return status >= 500 or status == 429 or not error.problem.type.startswith("/problems/")
