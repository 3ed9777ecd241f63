"""One HTML file that shows what runs found: opens from disk, asks no other machine for anything.

`contents` reads the runs; here their data, the page's own scripts and plotly.js become one file.
What a run says is data: it goes in as JSON and base 64, is shown as text, and cannot become a
script: the page's policy names the two scripts that may run by their hashes.
"""

import base64
import hashlib
import html
import json
import re
from collections import Counter
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from plotly.offline import get_plotlyjs

from hotoven import runs as run_folders
from hotoven.palette import COLOURS
from hotoven.report.contents import Detail, contents
from hotoven.report.packing import Packed, pack
from hotoven.storage import write_bytes

OWN: Final = "report.html"  # in a run's folder
DOCTYPE: Final = b"<!doctype html"
LIMIT: Final = 15_000_000  # bytes that a report may have
# What is left out, step by step, of a report that would be larger, and what its page then says.
DETAILS: Final = (
    (Detail(), ""),
    (Detail(scores=False), "Of the scores only those of mean and std are here"),
    (
        Detail(scores=False, members=False),
        "Of the scores only those of mean and std are here, and not what each member said",
    ),
    (
        Detail(scores=False, members=False, num_levels=250),
        "Only the first 250 test levels are here, and of the scores only those of mean and std",
    ),
    (
        Detail(scores=False, members=False, num_levels=50),
        "Only the first 50 test levels are here, and of the scores only those of mean and std",
    ),
)
STATIC: Final = files("hotoven") / "report" / "static"
SHARED: Final = files("hotoven") / "page"
STYLES: Final = (SHARED / "page.css", STATIC / "report.css")
# In this order: a script imports from those before it only.
SCRIPTS: Final = (
    SHARED / "bars.js",
    *(
        STATIC / f"{name}.js"
        for name in (
            *("page", "data", "counts", "tables", "charts", "draw_lavagrid", "draw_coinrun"),
            *("overview", "alarms", "inspector", "main"),
        )
    ),
)
_IMPORT: Final = re.compile(r'^import \{([^}]*)\} from "\./(\w+)\.js";\n', re.MULTILINE)
_EXPORT: Final = re.compile(
    r"^export (?=(?:async )?(?:function\*?|const|class) (\w+))", re.MULTILINE
)


def write_report(paths: Sequence[Path], out: Path) -> int:
    """Writes the report of the runs at `paths` to `out`; returns its size in bytes.

    Nothing is written unless all is well: what stands at `out` stays until the new file is whole.

    Raises:
      ValueError: a run is missing, damaged or not finished, or `out` is a folder, lies in none, or
        is something else than a report.
    """
    if not paths:
        raise ValueError("a report needs at least one run's folder")
    for path in paths:
        run_folders.read_about(path)
    _check_out(out)
    page = make_page(paths)
    write_bytes(out, page)
    return len(page)


def _check_out(out: Path) -> None:
    """Raises ValueError if a report at `out` would take the place of something else."""
    if out.is_dir():
        raise ValueError(f"{out} is a folder; --out names a file")
    if not out.parent.is_dir():
        raise ValueError(f"no folder {out.parent}: --out names a file in a folder that is there")
    place = out.resolve()
    for folder in place.parents:
        inside = place.relative_to(folder)
        if not (folder / "run.json").exists() or inside.parts[0] not in run_folders.ENTRIES:
            continue
        if inside == Path(OWN):  # whatever is there, the place is a report's
            return
        raise ValueError(f"{out} is a place that the run {folder} writes: --out names another")
    if out.exists() and not out.is_file():
        raise ValueError(f"{out} is no file: --out names one")
    if out.exists():
        with out.open("rb") as file:
            begins = file.read(len(DOCTYPE))
        if begins.lower() != DOCTYPE:
            raise ValueError(f"{out} is there and is no HTML page: --out names another")


def make_page(paths: Sequence[Path]) -> bytes:
    """The whole file, the same bytes for the same runs; less detailed where it would be too large.

    Raises:
      ValueError: as `write_report`, or the file is too large whatever is left out.
    """
    for detail, note in DETAILS:
        packed = Packed()
        runs = [contents(path, packed, detail) for path in paths]
        _name_apart(runs)
        note = note and f"{note}: the file would be larger than {LIMIT // 10**6} MB."
        page = _page({"runs": runs, "note": note, "palette": COLOURS}, packed)
        if len(page) <= LIMIT:
            return page
    raise ValueError(
        f"the report would have {len(page) / 1e6:.1f} MB, more than {LIMIT // 10**6}: name fewer "
        "runs"
    )


def _name_apart(runs: list[dict[str, Any]]) -> None:
    """Numbers runs whose folders have one name, so that a link means one of them."""
    often = Counter(run["name"] for run in runs)
    seen: Counter[str] = Counter()
    for run in runs:
        name = run["name"]
        seen[name] += 1
        if often[name] > 1:
            run["name"] = f"{name} ({seen[name]})"


def _page(data: dict[str, Any], packed: Packed) -> bytes:
    script = bundle()
    library = get_plotlyjs()
    names = ", ".join(run["name"] for run in data["runs"])
    parts = {
        "policy": policy(library, script),
        "title": html.escape(f"hotoven: {names}"),
        "styles": "\n".join(style.read_text() for style in STYLES),
        "data": as_text(data),
        "arrays": "\n".join(
            f'<script type="text/plain" id="{name}">{text}</script>'
            for name, text in packed.texts.items()
        ),
        "library": pack(library.encode()),
        "script": script,
    }
    template = (STATIC / "report.html").read_text()
    # one pass: what a part holds is never taken for a place to fill
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], template).encode()


def policy(*scripts: str) -> str:
    """The page's content-security policy: nothing from anywhere, and these scripts alone.

    Styles may be inline: Plotly writes the looks of what it draws into the elements themselves,
    which no hash can name. A style can load nothing here, as all sources are closed.
    """
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "connect-src 'none'; base-uri 'none'; form-action 'none'"
    )


def as_text(data: Any) -> str:
    """Data as JSON that can stand in a page: no character in it begins a tag or a comment."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def bundle() -> str:
    """The page's modules as one script: a page from disk has no addresses to import from.

    Each becomes a function that is called once and returns what it exports; its own names stay its
    own.
    """
    parts = []
    for source in SCRIPTS:
        text = _IMPORT.sub(
            lambda found: f"const {{{found[1].replace(' as ', ': ')}}} = {found[2]}_js;\n",
            source.read_text(),
        )
        exported = ", ".join(_EXPORT.findall(text))
        name = source.name.removesuffix(".js")
        body = _EXPORT.sub("", text)
        parts.append(f"const {name}_js = (() => {{\n{body}\nreturn {{ {exported} }};\n}})();\n")
    return '\n"use strict";\n' + "\n".join(parts)
