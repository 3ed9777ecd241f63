"""What holds of the runs that are stored."""

from itertools import combinations
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from hotoven.evaluation.coinrun_findings import coinrun_findings
from hotoven.evaluation.findings import lavagrid_findings, read_findings, to_markdown
from hotoven.storage import read_json

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
    before = read_findings(path / "findings.json")
    if read_json(path / "run.json")["config"]["study"] == "lavagrid":
        found = lavagrid_findings(tables["episodes"])
    else:
        found = coinrun_findings(tables, before)
    written = (path / "findings.md").read_text()
    assert to_markdown(found) == to_markdown(before) == written
