"""The documentation is true: pages are fresh, links lead somewhere, code prints what it says."""

import contextlib
import importlib.util
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hotoven import cli
from hotoven.envs.lavagrid import LavaGrid

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def load_make_pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_pages", ROOT / "docs" / "make_pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_pages = load_make_pages()


def blocks(path: Path) -> list[tuple[str, str]]:
    """(language, content) of every fenced block of a page."""
    return BLOCK.findall(path.read_text())


def broken_links(path: Path) -> list[str]:
    """The relative links of a page that lead nowhere."""
    prose = BLOCK.sub("", path.read_text())
    targets = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", prose)]
    local = [target for target in targets if target and not re.match(r"[a-z]+:", target)]
    return [target for target in local if not (path.parent / target).exists()]


def settings_without_help(kind: type, prefix: str = "") -> Iterator[str]:
    """The settings of a dataclass, nested ones included, with no comment beside them."""
    told = make_pages.helps(kind)
    for field in fields(kind):
        if is_dataclass(field.default):
            yield from settings_without_help(type(field.default), f"{prefix}{field.name}.")
        elif not told.get(field.name):
            yield f"{prefix}{field.name}"


def run_page(path: Path) -> list[tuple[str, str]]:
    """(what a page says its code prints, what it prints), for each text block after code."""
    scope: dict[str, Any] = {"__name__": path.stem}
    pairs, printed = [], ""
    for language, content in blocks(path):
        if language == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(content, path.name, "exec"), scope)
            printed = out.getvalue()
        elif language == "text":
            pairs.append((content, printed))
    return pairs


@pytest.mark.parametrize("path", make_pages.pages(), ids=lambda path: path.name)
def test_a_page_holds_what_the_code_and_the_results_say(path: Path):
    assert path.exists()
    assert path.read_text() == make_pages.pages()[path], "run python docs/make_pages.py"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_relative_link_leads_somewhere(path: Path):
    assert not broken_links(path)


def test_every_page_is_listed_in_the_index():
    index = (ROOT / "docs" / "index.md").read_text()
    for path in (ROOT / "docs").rglob("*.md"):
        target = path.relative_to(ROOT / "docs").as_posix()
        assert target == "index.md" or f"]({target})" in index, f"{target} is not in the index"


def test_a_broken_link_is_found(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("[a](page.md#here) [b](gone.md) [c](https://example.org) ![d](no.png)\n")
    assert broken_links(page) == ["gone.md", "no.png"]


@pytest.mark.parametrize("kind", cli.COMMANDS.values(), ids=list(cli.COMMANDS))
def test_every_setting_of_the_command_line_has_a_help_line(kind: type):
    assert not list(settings_without_help(kind))


def test_a_setting_without_help_is_found():
    @dataclass(frozen=True)
    class Inner:
        told: int = 1  # what it is
        untold: int = 2

    @dataclass(frozen=True)
    class Outer(Inner):
        inner: Inner = Inner()
        more: int = 3

    assert list(settings_without_help(Outer)) == ["untold", "inner.untold", "more"]


def test_the_page_of_lavagrid_names_every_setting():
    page = make_pages.env_page(LavaGrid)
    for field in fields(LavaGrid):
        assert f"| `{field.name}` |" in page


def test_the_readme_shows_the_first_steps_and_what_they_print():
    code = (ROOT / "examples" / "first_steps.py").read_text()
    shown = blocks(ROOT / "README.md")
    place = shown.index(("python", code))
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "first_steps.py"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown[place + 1] == ("text", done.stdout)


def test_the_protocol_page_prints_what_it_says():
    pairs = run_page(ROOT / "docs" / "protocol.md")
    assert len(pairs) == 2
    for said, printed in pairs:
        assert printed == said


def test_only_what_is_between_the_markers_is_replaced():
    page = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n"
    assert make_pages.fill(page, "x", "new") == "a\n<!-- x -->\nnew\n<!-- /x -->\nb\n"
    with pytest.raises(ValueError, match="one pair of markers"):
        make_pages.fill(page, "y", "new")


def test_findings_are_filled_in_from_the_stored_run(tmp_path: Path):
    folder = tmp_path / "results" / "quick"
    (folder / "figures").mkdir(parents=True)
    assert "No findings" in make_pages.findings_block(tmp_path)
    assert "No figures" in make_pages.figures_block(tmp_path)
    (folder / "findings.json").write_text(
        '[{"claim": "c", "statement": "Lava is hot.", "measure": "lava, %", "estimate": 12.34,'
        ' "low": 10.0, "high": 15.0, "verdict": "supported", "rule": "r", "details": [],'
        ' "note": ""}]'
    )
    (folder / "figures" / "ensemble.png").write_bytes(b"")
    assert "| Lava is hot. | 12.3% [10.0, 15.0] | supported |" in make_pages.findings_block(
        tmp_path
    )
    assert "](../results/quick/figures/ensemble.png)" in make_pages.figures_block(tmp_path)


def test_the_readme_tells_the_headlines_with_the_command_that_made_them(tmp_path: Path):
    folder = tmp_path / "results" / "quick"
    folder.mkdir(parents=True)
    assert "No findings" in make_pages.headlines_block(tmp_path)
    command, claims = make_pages.HEADLINES["quick"]
    found = [
        {"claim": claim, "statement": f"It is {claim}.", "measure": "lava, %", "estimate": 12.34}
        | {"low": 10.0, "high": 15.0, "verdict": "supported", "rule": "r", "details": []}
        | {"note": ""}
        for claim in [*claims, "another"]
    ]
    (folder / "findings.json").write_text(json.dumps(found))
    hardware = {"processor": "EPYC", "cores": 2, "devices": ["cpu"]}
    (folder / "run.json").write_text(json.dumps({"hardware": hardware}))
    block = make_pages.headlines_block(tmp_path)
    assert f"hotoven reproduce {command}`, made on 2 cores of EPYC" in block
    assert block.count("12.3% [10.0, 15.0] | supported |") == len(claims)
    assert "It is another." not in block


def test_studies_that_differ_by_their_seeds_are_told_together(tmp_path: Path):
    claims = make_pages.HEADLINES[make_pages.TOGETHER[0]][1]
    for seed, name in enumerate(make_pages.TOGETHER):
        folder = tmp_path / "results" / name
        folder.mkdir(parents=True)
        found = [
            {"claim": claim, "statement": f"It is {claim}.", "measure": "lava, %"}
            | {"estimate": 10.0 + seed, "low": 9.0, "high": 15.0, "verdict": "supported"}
            | {"rule": "r", "details": []}
            for claim in [*claims, "another"]
        ]
        (folder / "findings.json").write_text(json.dumps(found))
        settings = {"seed": seed, "level_seed": seed}
        processor = "EPYC" if seed < 3 else "Xeon"
        hardware = {"processor": processor, "cores": 2, "devices": ["cpu"]}
        record = {"status": "finished", "config": {"settings": settings}, "hardware": hardware}
        (folder / "run.json").write_text(json.dumps(record))
        told, readme = make_pages.together_block(tmp_path), make_pages.headlines_block(tmp_path)
        if seed == 0:
            assert "Fewer than two" in told
        if seed == 1:
            assert "5 were planned, 2 are stored. `hotoven combine results/coinrun-quick " in told
            assert "| It is sigma helps. | 10.5% [4.1, 16.9] | 10.0, 11.0 | 2 supported |" in told
            cells = "10.0% [9.0, 15.0], supported | 11.0% [9.0, 15.0], supported"
            assert f"| another | lava, % | {cells} |" in told
        if seed < 4:  # the first is told as any other until all are there
            assert "10.0% [9.0, 15.0] | supported |" in readme
    assert "| It is sigma helps. | 12.0% [10.0, 14.0] | 10.0, 14.0 | 5 supported |" in readme
    assert "It is another." not in readme
    assert "5 were planned, all are stored." in told
    machines = "made on 2 cores of EPYC, others on 2 cores of Xeon"
    assert f"with `--seed` and `--level-seed` 0 to 4, {machines}; together" in readme


def test_the_page_shows_what_the_command_prints(capsys: pytest.CaptureFixture):
    there = [ROOT / "results" / name for name in make_pages.TOGETHER]
    paths = [str(path) for path in there if path.exists()]
    assert cli.main(["combine", *paths]) == 0  # it refuses what differs by more than seeds
    told = capsys.readouterr().out.splitlines()
    shown = (ROOT / "docs" / "results.md").read_text().splitlines()
    named = [line for line in told if line.startswith("| claim | measure")]
    assert len(named) == 1  # the runs' names, which are links on the page
    assert [line for line in told if line not in shown] == named


def test_the_readme_says_what_an_agent_solves_of_its_own_training_levels_and_of_time_outs():
    def row(set: str, size: int, method: str, solved: float, died: float) -> dict[str, Any]:
        timed_out = 1 - solved - died
        found: dict[str, Any] = {"set": set, "num_train_levels": size, "method": method}
        found |= {"num_levels": min(size, 500) if set == "train" else 1000}
        for name, rate in (("solved", solved), ("catastrophe", died), ("timeout", timed_out)):
            found |= {f"{name}_rate": rate, f"{name}_low": rate / 2, f"{name}_high": rate}
        return found

    rates = [
        row("train", 10, "single", 1.0, 0.0),
        row("train", 1000, "single", 0.766, 0.0),
        row("test", 10, "single", 0.1, 0.5),
        row("test", 10, "mean", 0.1, 0.4),
        row("test", 10, "single+blocker", 0.15, 0.2),
        row("test", 1000, "single", 0.6, 0.0001),
        row("test", 1000, "mean", 0.8, 0.0),
    ]
    said = make_pages.beside_findings(rates)
    assert "training levels: 100.0% [50.0, 100.0] of 10, 76.6% [38.3, 76.6] of the first" in said
    assert "of the first 500 of 1,000. With 1,000 it is not perfect even" in said
    assert "levels lost from 50.0% [25.0, 50.0] to 20.0% [10.0, 20.0]" in said
    assert "solved from 10.0% [5.0, 10.0] to 15.0% [7.5, 15.0] and time-outs from 40.0%" in said
    assert "With 1,000 it is not perfect even on what it was trained on" in said
    assert "on fewer unseen levels than a single agent at 1 of 2 numbers" in said
    assert "the mean solves 80.0% [40.0, 80.0]" in said
    assert "a single agent 60.0% [30.0, 60.0] and 0.01% [0.005, 0.01]." in said


@pytest.mark.parametrize("verdict", ["supported", "not supported", "undecided"])
def test_the_picture_of_a_state_that_was_picked_says_whether_the_mean_helps(
    tmp_path: Path, verdict: str
):
    folder = tmp_path / "results" / "quick"
    (folder / "figures").mkdir(parents=True)
    (folder / "figures" / "ensemble.png").write_bytes(b"")
    (folder / "findings.json").write_text(
        '[{"claim": "mean is safer", "statement": "The mean is safer.", "measure": "lava, '
        'percentage points", "estimate": 2.1, "low": 1.0, "high": 3.0, "verdict": '
        f'"{verdict}", "rule": "r", "details": [], "note": ""}}]'
    )
    block = make_pages.figures_block(tmp_path)
    assert f'"The mean is safer." is **{verdict}** over all unseen levels: +2.1 pp [+1.0' in block


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        (["cpu: cpu", "cpu: cpu"], ", made on 2 cores of EPYC"),
        (["cpu", "cpu"], ", made on 2 cores of EPYC"),
        (["gpu H100", "gpu H100"], ", made on 2 cores of EPYC with 2 x gpu H100"),
    ],
)
def test_cores_are_not_named_twice(tmp_path: Path, devices: list[str], said: str):
    hardware = {"processor": "EPYC", "cores": 2, "devices": devices}
    (tmp_path / "run.json").write_text(json.dumps({"hardware": hardware}))
    assert make_pages._made_on(tmp_path) == said
    assert make_pages._made_on(tmp_path / "nowhere", tmp_path) == said
    assert make_pages._made_on(tmp_path / "nowhere") == ""


def test_a_run_that_went_on_elsewhere_names_every_machine_once(tmp_path: Path):
    card = {"processor": "Xeon", "cores": 16, "devices": ["gpu H100"]}
    plain = {"processor": "EPYC", "cores": 2, "devices": ["cpu"]}
    record = {"hardware": card, "continued_with": [{"hardware": plain}, {"hardware": plain}]}
    (tmp_path / "run.json").write_text(json.dumps(record))
    said = ", made on 16 cores of Xeon with 1 x gpu H100, then on 2 cores of EPYC"
    assert make_pages._made_on(tmp_path) == said
    record = {"hardware": plain, "agents_of": {"run": "another", "hardware": card}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert make_pages._made_on(tmp_path) == said
