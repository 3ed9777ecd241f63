"""What holds of the runs that are stored."""

import re
import shutil
from itertools import combinations
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from hotoven import cli
from hotoven.evaluation.coinrun_findings import coinrun_findings, without_tables
from hotoven.evaluation.findings import lavagrid_findings, read_findings, to_markdown
from hotoven.storage import read_json, write_json

RESULTS = Path(__file__).resolve().parent.parent / "results"
STORED = sorted(path.parent.name for path in RESULTS.glob("*/episodes.parquet"))
RUNS = sorted(path.parent.name for path in RESULTS.glob("*/run.json"))
WHERE = ["num_train_levels", "replication"]


def alike(episodes: pa.Table) -> list[tuple]:
    """Methods that played all unseen levels as another one did, and with which agents.

    A blocker may block nothing: it is not compared with what it guards.
    """
    unseen = episodes.filter((pc.field("set") == "test") & (pc.field("member") <= 0))
    found = []
    for group in unseen.group_by(WHERE).aggregate([]).to_pylist():
        same = [pc.field(name) == value for name, value in group.items()]
        rows = unseen.filter(same[0] & same[1])
        played = {}
        for method in rows["method"].unique().to_pylist():
            one = rows.filter(pc.field("method") == method).sort_by("level_index")
            played[method] = one.select(["level_id", "outcome", "cause", "length"])
        found += [
            (*group.values(), one, other)
            for one, other in combinations(played, 2)
            if one.split("+")[0] != other.split("+")[0] and played[one] == played[other]
        ]
    return found


@pytest.mark.parametrize("run", STORED)
def test_no_method_was_played_in_the_place_of_another(run: str):
    episodes = pq.read_table(RESULTS / run / "episodes.parquet")
    assert alike(episodes) == []


def test_a_method_played_in_the_place_of_another_would_be_found():
    episodes = pq.read_table(RESULTS / "quick" / "episodes.parquet")
    others = episodes.filter(pc.field("method") != "vote")
    means = others.filter(pc.field("method") == "mean")
    place = means.column_names.index("method")
    as_vote = means.set_column(place, "method", pa.array(["vote"] * len(means)))
    found = alike(pa.concat_tables([others, as_vote]))
    assert [row for row in found if row[2:] == ("mean", "vote")] == [
        (size, 0, "mean", "vote") for size in (10, 100, 1000)
    ]


@pytest.mark.parametrize("run", RUNS)
def test_what_was_found_is_what_the_stored_tables_say(run: str):
    path = RESULTS / run
    tables = {table.stem: pq.read_table(table) for table in path.glob("*.parquet")}
    stored = read_findings(path / "findings.json")
    assert to_markdown(stored) == (path / "findings.md").read_text()
    if read_json(path / "run.json")["config"]["study"] == "lavagrid":
        found, gone = lavagrid_findings(tables["episodes"]), {}
    else:
        found, gone = coinrun_findings(tables), without_tables(tables)
    assert [one.claim for one in found] == [one.claim for one in stored]
    told = [one for one in found if one[:3] not in gone]  # the others rest on what is not stored
    assert len(told) >= 3
    assert to_markdown(told) == to_markdown([one for one in stored if one[:3] not in gone])


def of_other_claims(path: Path) -> None:
    write_json(path / "findings.json", read_json(path / "findings.json")[:3])


def without_a_column(path: Path) -> None:
    table = pq.read_table(path / "promises.parquet").drop_columns("low")
    pq.write_table(table, path / "promises.parquet")


def without_rows(path: Path) -> None:
    pq.write_table(pq.read_table(path / "rates.parquet").slice(0, 0), path / "rates.parquet")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: (path / "findings.json").unlink(), "does not say what was found of 'perf"),
        (of_other_claims, "no table of episodes, and .* what was found of 'incoh"),
        (without_a_column, "is not as hotoven writes it: KeyError: 'low'"),
        (without_rows, "rates.parquet holds no rates"),
        (lambda path: (path / "rates.parquet").unlink(), "no file .*rates.parquet"),
        (lambda path: (path / "figures" / "notes.txt").write_bytes(b"\xff"), "notes.txt is not as"),
    ],
)
def test_figures_of_a_stored_run_refuse_what_would_lose_a_finding(harm, message, tmp_path, capsys):
    path = tmp_path / "run"
    shutil.copytree(RESULTS / "coinrun-quick-seed1", path)
    harm(path)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    assert cli.main(["figures", str(path)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and re.search(message, err)
    after = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    after.pop(path / ".lock", None)
    assert after == before
