"""docs/performance.md's aims, tables and pictures from the JSON of the other benchmarks: `python -m benchmarks.report`.

What stands between `<!-- NAME -->` and `<!-- end of NAME -->` is written anew; everything else is written by hand.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks import BenchmarkError
from benchmarks.aims import AIMS
from benchmarks.results import MODIFIED, Pivot, Results

SECTIONS = {  # marker -> how the names of its files begin
    "engine": ("engine",),
    "decode": ("decode",),
    "service": ("service",),
    "search": ("search",),
    "enrolment": ("enrolment",),
    "start": ("start",),
    "growth": ("growth",),
    "gpu": ("gpu",),
}
ADDED = "aims"


def read_all(folder: Path) -> dict[str, Results]:
    """By name, the smaller galleries first. Raises BenchmarkError for a file that is none of ours."""
    paths = sorted(folder.glob("*.json"), key=lambda path: (len(path.stem), path.stem))
    return {path.stem: Results.read(path) for path in paths}


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In Markdown, the first column to the left and the others to the right."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def aims(found: Mapping[str, Results]) -> str:
    """Every aim with its figure."""
    return table(("", "figure", "aim", ""), [aim.row(found) for aim in AIMS])


def section(found: Mapping[str, Results], starts: tuple[str, ...], pictures: Sequence[str], folder: str) -> str:
    """The tables of the files whose names begin so; a sentence where there are none."""
    chosen = {name: results for name, results in found.items() if name.startswith(starts)}
    if not chosen:
        return "Not yet run."
    return "\n\n".join(part for name, results in chosen.items() for part in _parts(name, results, pictures, folder))


def _parts(name: str, results: Results, pictures: Sequence[str], folder: str) -> Iterator[str]:
    words = " Made by uncommitted code: that commit and changes to it." if _modified(results) else ""
    settings = {key: value for key, value in results.settings.items() if key not in ("model", "only")}
    yield f"`{name}`: {_machine(results)}; {', '.join(f'{key} {value}' for key, value in settings.items())}.{words}"
    if name in pictures:
        yield f"![{name}]({folder}/{name}.svg)"
    for pivot in Pivot.all(results):
        yield table((pivot.unit, *pivot.across), [(row, *cells) for row, cells in pivot.rows])
    if results.not_run:
        yield "\n".join(f"- Not run: {who}: {_plain(reason)}" for who, reason in results.not_run.items())
    if results.notes:
        yield " ".join(results.notes)


def _modified(results: Results) -> bool:
    return results.code.endswith(MODIFIED)


def _plain(reason: str) -> str:
    """Without the names of a module and an exception before it."""
    return reason.rpartition("Error: ")[2]


def _machine(results: Results) -> str:
    host = results.host
    return f"{host.get('gpu', host['processor'])}, {host['cores']} cores, {host['memory']}, code {results.code}"


def hosts(found: Mapping[str, Results]) -> str:
    """Every machine that figures come from, with its versions."""
    lines = {", ".join(f"{name} {value}" for name, value in results.host.items()) for results in found.values()}
    return "\n".join(f"- {line}" for line in sorted(lines)) or "Not yet run."


def replaced(text: str, blocks: Mapping[str, str]) -> str:
    """The page with its blocks anew. Raises BenchmarkError where a marker is missing."""
    for name, block in blocks.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise BenchmarkError(f"the page has no {begin} … {end}")
        text = f"{before}{begin}\n\n{block}\n\n{end}{after}"
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 written, 2 not possible."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"), metavar="FOLDER")
    parser.add_argument("--page", type=Path, default=Path("docs/performance.md"))
    options = parser.parse_args(argv)
    try:
        found = read_all(options.results)
        from benchmarks.plots import draw

        pictures = draw(found, options.page.parent / options.page.stem)
        blocks = {ADDED: aims(found), "hosts": hosts(found)}
        blocks |= {name: section(found, starts, pictures, options.page.stem) for name, starts in SECTIONS.items()}
        options.page.write_text(replaced(options.page.read_text(), blocks))
    except (BenchmarkError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.page}: {len(found)} files of results, {len(pictures)} pictures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
