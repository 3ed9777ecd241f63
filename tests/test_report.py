"""The report: data are the tables' numbers, frames the environments', and text is only text."""

import base64
import gzip
import hashlib
import html.parser
import json
import math
import re

import jax
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from hotoven import cli, levels
from hotoven.envs.coinrun import physics
from hotoven.evaluation.alarms import alarms
from hotoven.evaluation.knowing import read_recorded, score_of
from hotoven.evaluation.scores import Coefficients
from hotoven.report import page as report_page
from hotoven.report.contents import Detail, contents, finite
from hotoven.report.packing import Packed
from hotoven.report.page import as_text, bundle, make_page, policy, write_report
from hotoven.report.replay import (
    CROSSED,
    FACES_LEFT,
    SIGN_BIT,
    STRIDES,
    replay_coinrun,
    replay_lavagrid,
)
from hotoven.storage import read_json, read_table, write_json, write_table
from hotoven.types import OUTCOMES
from report_runs import COINRUN, GRID, HOSTILE, INSPECTED, MIN_LEAD, SIZES, make_run


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "grid", "lavagrid")


@pytest.fixture(scope="module")
def coin(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "coin", "coinrun")


def copy(run, tmp_path):
    """The same run in a folder where it may be spoiled."""
    for source in run.rglob("*"):
        if source.is_file():
            target = tmp_path / run.name / source.relative_to(run)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    return tmp_path / run.name


def unpack(packed, told):
    """An array as the page's data.js reads it."""
    planes = np.frombuffer(gzip.decompress(base64.b64decode(packed.texts[told["array"]])), np.uint8)
    dtype = np.dtype(f"<{told['kind']}")
    values = np.ascontiguousarray(planes.reshape(dtype.itemsize, -1).T).reshape(-1).view(dtype)
    return np.cumsum(values, dtype=dtype) if told["delta"] else values


@pytest.mark.parametrize(
    ("kind", "delta"),
    [
        *((kind, False) for kind in ("u1", "i1", "u2", "i2", "u4", "i4", "f4")),
        *((kind, True) for kind in ("u1", "i2", "i4")),  # differences of floats are not exact
    ],
)
def test_an_array_comes_out_as_it_went_in(kind, delta):
    values = np.random.default_rng(0).integers(0, 256, 4 * 50).astype(np.uint8)
    values = values.view("<f4" if kind == "f4" else f"<{kind}")
    packed = Packed()
    told = packed.put(values, delta=delta)
    assert unpack(packed, told).tobytes() == values.tobytes()


def test_an_array_of_another_type_is_refused():
    with pytest.raises(ValueError, match=r"must be of u1, .* got float64"):
        Packed().put(np.zeros(3))


def test_every_step_says_what_the_table_says(coin):
    packed = Packed()
    told = contents(coin, packed, Detail())
    steps = read_table(coin / "steps.parquet")
    assert [one["key"] for one in told["recorded"]["policies"]] == [
        f"{size}/{method}" for size in SIZES for method in ("random_step", "mean")
    ]
    for one in told["recorded"]["policies"]:
        rows = steps.filter(
            (pc.field("method") == one["method"])
            & (pc.field("num_train_levels") == one["num_train_levels"])
        )
        for name, column in one["known"].items():
            np.testing.assert_array_equal(unpack(packed, column), rows[name].to_numpy())
        np.testing.assert_array_equal(unpack(packed, one["action"]), rows["action"].to_numpy())
        assert unpack(packed, one["num_steps"]).sum() == rows.num_rows


@pytest.mark.parametrize("name", ["mean", "mean and std", "best pair", "std", "head", "margin"])
def test_a_score_made_of_the_pages_data_counts_as_the_table_of_alarms_does(coin, name):
    packed = Packed()
    told = contents(coin, packed, Detail())
    one = next(one for one in told["recorded"]["policies"] if one["key"] == "10/mean")
    recorded = read_recorded(
        read_table(coin / "steps.parquet"), "test", 10, "mean", 60, tuple(one["known"])
    )
    known = {key: unpack(packed, column) for key, column in one["known"].items()}
    rule = one["scores"][name]
    if isinstance(rule, str):
        flat = known[rule]
    else:  # as counts.js does: in 32 bits, each product and the sum rounded
        a, b = map(np.float32, rule)
        flat = a * known["mu"] + b * known["sigma"]
    assert flat.dtype == np.float32
    score = score_of(name, recorded, Coefficients(-1.0, 0.37))
    np.testing.assert_array_equal(flat, score[recorded.valid])
    rows = read_table(coin / "alarms.parquet").filter(
        (pc.field("num_train_levels") == 10)
        & (pc.field("acting") == "mean")
        & (pc.field("score") == name)
    )
    assert told["recorded"]["min_lead"] == MIN_LEAD
    assert rows.num_rows > 5
    for row in rows.to_pylist():
        rang = alarms(score, recorded.num_steps, recorded.died, row["thresholds"], MIN_LEAD)
        assert rang.announced.sum() == row["num_announced"]
        assert rang.false_alarm.sum() == row["num_false"]


def test_mu_and_sigma_of_the_grid_are_of_the_members_largest_q_values(grid):
    packed = Packed()
    one = contents(grid, packed, Detail())["recorded"]["policies"][0]
    rows = read_table(grid / "steps.parquet").filter(
        (pc.field("method") == one["method"])
        & (pc.field("num_train_levels") == one["num_train_levels"])
    )
    row = rows.slice(7, 1).to_pylist()[0]
    largest = np.array(row["members"]).reshape(3, 4).max(axis=1)
    assert unpack(packed, one["known"]["mu"])[7] == np.float32(largest.mean())
    assert unpack(packed, one["known"]["sigma"])[7] == np.float32(largest.std())
    assert unpack(packed, one["known"]["blocker"])[7] == np.float32(row["blocker"][row["wanted"]])
    shown = unpack(packed, one["said"]["preferences"]).reshape(-1, 12)[7]
    np.testing.assert_allclose(shown / 1000, row["members"], atol=0.0005001)


def test_promises_are_those_of_test_levels(coin):
    rows = read_table(coin / "promises.parquet").to_pylist()
    useful = [row for row in rows if not row["vacuous"] and np.isfinite(row["threshold"])]
    told = contents(coin, Packed(), Detail())["recorded"]["promises"]
    expected = [row for row in useful if row["set"] == "test"]
    assert 0 < len(expected) < len(useful)
    assert told == [{name: row[name] for name in told[0]} for row in expected]


def test_the_best_pair_is_that_of_the_window_of_alarms(coin, tmp_path):
    run = copy(coin, tmp_path)
    chosen = read_json(run / "chosen.json")
    others = [row | {"window": 1, "alpha": -9.0, "beta": 9.0} for row in chosen]
    write_json(run / "chosen.json", [*others, *chosen])
    for one in contents(run, Packed(), Detail())["recorded"]["policies"]:
        assert one["scores"]["best pair"] == [-1.0, 0.37]


def without_rows(run, name):
    table = read_table(run / name).slice(0, 0)
    write_table(run / name, dict(zip(table.column_names, table, strict=True)))


def test_tables_without_rows_are_named(coin, tmp_path):
    run = copy(coin, tmp_path)
    for name in ("episodes.parquet", "steps.parquet", "rates.parquet"):
        without_rows(run, name)
    told = contents(run, Packed(), Detail())
    assert "holds no episode" in told["absent"]["ends"]
    assert "holds no episode" in told["absent"]["recorded"]
    make_page([run])


def test_what_members_said_is_there_for_the_first_levels_only(coin):
    packed = Packed()
    one = contents(coin, packed, Detail())["recorded"]["policies"][1]
    num_steps = unpack(packed, one["num_steps"])[:INSPECTED].sum()
    assert one["said"]["num_steps"] == num_steps
    rows = read_table(coin / "members.parquet").filter(
        (pc.field("method") == one["method"])
        & (pc.field("num_train_levels") == one["num_train_levels"])
    )
    shown = unpack(packed, one["said"]["values"]).reshape(-1, 3)
    np.testing.assert_allclose(shown / 1000, np.stack(rows["values"].to_numpy()), atol=0.0005001)


def recorded_of(run, env, method="mean", size=10):
    rows = read_table(run / "steps.parquet").filter(
        (pc.field("method") == method) & (pc.field("num_train_levels") == size)
    )
    test = levels.load(run / "levels" / "test.safetensors", env)
    _, num_steps = np.unique(rows["level_index"].to_numpy(), return_counts=True)
    ends = rows["outcome"].to_numpy(zero_copy_only=False)[np.cumsum(num_steps) - 1]
    outcome = np.array([OUTCOMES.index(word) for word in ends])
    return test.levels, rows["action"].to_numpy(), num_steps, outcome


def states_of(env, tree, episode, actions):
    state, _ = env.reset(jax.tree.map(lambda leaf: leaf[episode], tree))
    states = [state]
    step = jax.jit(env.step)
    for action in actions:
        states.append(step(states[-1], np.int32(action))[0])
    return states


def test_frames_of_the_grid_are_the_environments_states(grid):
    tree, actions, num_steps, outcome = recorded_of(grid, GRID)
    frames = replay_lavagrid(GRID, tree, actions, num_steps, outcome)
    assert len(frames.position) == (num_steps + 1).sum()
    for episode in (0, 5, 19):
        first = num_steps[:episode].sum()
        states = states_of(GRID, tree, episode, actions[first : first + num_steps[episode]])
        for step, state in enumerate(states):
            at = first + episode + step
            np.testing.assert_array_equal(frames.position[at], state.position)
            bits = np.unpackbits(frames.known[at], count=25, bitorder="little")
            np.testing.assert_array_equal(bits.reshape(5, 5), np.asarray(state.known))


def test_frames_of_coinrun_are_the_environments_states(coin):
    tree, actions, num_steps, outcome = recorded_of(coin, COINRUN)
    frames = replay_coinrun(COINRUN, tree, actions, num_steps, outcome)
    there = tree.layout.monsters.direction > 0
    with_monsters = int(there.any(axis=1).argmax())
    died = int((outcome == OUTCOMES.index("catastrophe")).argmax())
    seen = set()
    for episode in (0, with_monsters, died):
        first = num_steps[:episode].sum()
        states = states_of(COINRUN, tree, episode, actions[first : first + num_steps[episode]])
        count = there[episode].sum()
        start = ((num_steps + 1) * there.sum(axis=1))[:episode].sum()
        for step, state in enumerate(states):
            at = first + episode + step
            assert frames.x[at] == np.floor(np.asarray(state.x) * 256)
            assert frames.y[at] == np.floor(np.asarray(state.y) * 256)
            assert bool(frames.pose[at] & FACES_LEFT) == bool(state.facing_left)
            moves = abs(float(state.vx)) >= 0.01 and bool(state.support)
            strides = moves and int(state.num_steps) % 10 < 5
            assert bool(frames.pose[at] & STRIDES) == strides
            seen.add(strides)
            told = frames.monsters[start + step * count : start + (step + 1) * count]
            places = np.floor(np.asarray(state.monster_x)[there[episode]] * 256)
            np.testing.assert_array_equal(told & ((1 << SIGN_BIT) - 1), places)
            way = np.sign(np.asarray(state.monster_vx)[there[episode]]) + 1
            np.testing.assert_array_equal(told >> SIGN_BIT, way)
        fatal = bool(frames.pose[first + episode + num_steps[episode]] & CROSSED)
        assert fatal == bool(states[-1].ends & (physics.END_LAVA | physics.END_SAW))
    assert seen == {False, True}
    assert there[with_monsters].any() and outcome[died] == OUTCOMES.index("catastrophe")


def test_an_episode_that_ends_otherwise_than_recorded_is_refused(grid):
    tree, actions, num_steps, outcome = recorded_of(grid, GRID)
    outcome[3] = (outcome[3] % 3) + 1
    with pytest.raises(ValueError, match=r"episode 3 is recorded as .* of other rules or levels"):
        replay_lavagrid(GRID, tree, actions, num_steps, outcome)


class Tags(html.parser.HTMLParser):
    """The tags of a page with their attributes, and the text of each script."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.within = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.within = tag == "script"
        if self.within:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.within = self.within and tag != "script"

    def handle_data(self, data):
        if self.within:
            self.scripts[-1] += data


def test_hostile_text_of_a_run_stays_text(tmp_path):
    run = make_run(tmp_path / "<b>run", "lavagrid", HOSTILE)
    text = make_page([run]).decode()
    found = Tags(text)
    assert not [tag for tag, _ in found.tags if tag in ("img", "b")]
    kinds = [attributes.get("type", "script") for tag, attributes in found.tags if tag == "script"]
    assert kinds.count("script") == 1
    assert set(kinds) == {"script", "application/json", "text/plain"}
    data = json.loads(found.scripts[kinds.index("application/json")])
    assert data["runs"][0]["name"] == "<b>run"
    assert HOSTILE in data["runs"][0]["findings"][0]["statement"]
    assert "<title>hotoven: &lt;b&gt;run</title>" in text


def test_only_the_pages_two_scripts_may_run_and_nothing_may_be_loaded(grid):
    found = Tags(make_page([grid]).decode())
    (told,) = [
        attributes["content"]
        for tag, attributes in found.tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    running = [
        text
        for text, (_, attributes) in zip(
            found.scripts, [one for one in found.tags if one[0] == "script"], strict=True
        )
        if "type" not in attributes
    ]
    library = gzip.decompress(base64.b64decode(found.scripts[-2]))  # the page makes it a script
    assert b"plotly.js v" in library[:100]
    running = [library.decode(), *running]
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in running]
    assert len(hashes) == 2
    assert told == policy(*running)
    assert all(f"'sha256-{one}'" in told for one in hashes)
    rules = dict(rule.split(" ", 1) for rule in told.split("; "))
    assert rules["default-src"] == rules["connect-src"] == "'none'"
    assert "unsafe" not in rules["script-src"]
    loading = [
        name for _, attributes in found.tags for name in attributes if name in ("src", "href")
    ]
    assert not loading


def test_no_text_in_the_data_begins_a_tag():
    assert as_text({"a": "</script><!--&"}) == ('{"a":"\\u003c/script\\u003e\\u003c!--\\u0026"}')
    assert finite({"a": [float("nan"), float("-inf"), 1.5]}) == {"a": [None, None, 1.5]}


def test_the_bundle_names_every_module_once_and_imports_only_earlier_ones():
    text = bundle()
    modules = re.findall(r"^const (\w+)_js = ", text, re.MULTILINE)
    assert len(modules) == len(set(modules)) == len(report_page.SCRIPTS)
    for place, (name, body) in enumerate(zip(modules, text.split("_js = ")[1:], strict=True)):
        used = set(re.findall(r"^const \{.*\} = (\w+)_js;", body, re.MULTILINE))
        assert used <= set(modules[:place]), name
    assert not re.search(r"^(import|export) ", text, re.MULTILINE)


def test_the_same_runs_give_the_same_bytes(grid, coin):
    assert make_page([grid, coin]) == make_page([grid, coin])


def test_runs_of_one_name_are_told_apart(grid, tmp_path):
    page = make_page([grid, copy(grid, tmp_path)]).decode()
    assert '"name":"grid (1)"' in page
    assert '"name":"grid (2)"' in page


def test_a_report_that_would_be_too_large_leaves_out_detail_and_says_so(coin, monkeypatch):
    whole = make_page([coin])
    monkeypatch.setattr(report_page, "LIMIT", len(whole) - 1)
    less = make_page([coin]).decode()
    assert "Of the scores only those of mean and std are here" in less
    assert '"entropy":{"array"' not in less
    monkeypatch.setattr(report_page, "LIMIT", 10**6)  # plotly.js alone is larger
    with pytest.raises(ValueError, match="more than 1: name fewer runs"):
        make_page([coin])


@pytest.mark.parametrize(
    ("gone", "key", "reason"),
    [
        ("members.parquet", "members", "no members.parquet"),
        ("levels/test.safetensors", "levels", "nothing can be drawn"),
        ("steps.parquet", "recorded", "no episode was recorded"),
        ("findings.json", "findings", "no findings.json"),
        ("rates.parquet", "rates", "no rates.parquet"),
    ],
)
def test_what_is_not_there_is_named_with_the_reason(coin, tmp_path, gone, key, reason):
    run = copy(coin, tmp_path)
    (run / gone).unlink()
    told = contents(run, Packed(), Detail())
    assert reason in told["absent"][key]
    make_page([run])


def test_it_says_whose_agents_have_played(coin, tmp_path):
    run = copy(coin, tmp_path)
    card = {"hardware": {"devices": ["gpu"]}}
    origin = {"run": "first", "agents_of": {"run": "before it"} | card}
    write_json(run / "run.json", read_json(run / "run.json") | {"agents_of": origin})
    told = contents(run, Packed(), Detail())["about"]
    assert told["Agents of another run"] == [
        ["run", "first"],
        ["agents_of.run", "before it"],
        ["agents_of.hardware.devices", "gpu"],
    ]
    assert "Agents of another run" not in contents(coin, Packed(), Detail())["about"]


def spoil_status(run):
    write_json(run / "run.json", read_json(run / "run.json") | {"status": "running"})


def spoil_study(run):
    about = read_json(run / "run.json")
    about["config"]["study"] = "chess"
    write_json(run / "run.json", about)


def spoil_env(run):
    about = read_json(run / "run.json")
    about["config"]["settings"]["env"]["radius"] = 0
    write_json(run / "run.json", about)


def spoil_steps(run):
    table = read_table(run / "steps.parquet")
    table = table.filter(
        pc.invert(pc.and_(pc.equal(table["step"], 1), pc.equal(table["level_index"], 2)))
    )
    write_table(run / "steps.parquet", dict(zip(table.column_names, table, strict=True)))


def spoil_levels(run):
    levels.save(run / "levels" / "test.safetensors", levels.make_levels(GRID, np.arange(50, 70)))


def spoil_findings(run):
    write_json(run / "findings.json", {"claim": "none"})


def spoil_details(run):
    findings = read_json(run / "findings.json")
    write_json(run / "findings.json", [findings[0] | {"details": 5}, *findings[1:]])


def spoil_windows(run):
    about = read_json(run / "run.json")
    about["config"]["settings"]["windows"] = "abc"
    write_json(run / "run.json", about)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "run.json").unlink(), "no file .*run.json"),
        (lambda run: (run / "episodes.parquet").unlink(), "has no tables yet: hotoven evaluate"),
        (spoil_status, "its tables may be old"),
        (spoil_study, "study must be one of lavagrid, coinrun, got 'chess'"),
        (spoil_env, "run.json: radius must be at least 1"),
        (spoil_steps, "must run from 0 to the end of each episode"),
        (spoil_levels, "was not recorded on the levels of"),
        (spoil_findings, "holds no list of findings"),
        (spoil_details, "holds no list of findings"),
        (spoil_windows, "run.json: windows is not understood: 'abc'"),
        (lambda run: (run / "steps.parquet").write_bytes(b"PAR1"), "not a whole Parquet file"),
    ],
)
def test_a_bad_run_is_named_in_one_line_and_nothing_is_lost(grid, tmp_path, capsys, spoil, message):
    run = copy(grid, tmp_path)
    (run / "report.html").write_text("the old one")
    spoil(run)
    assert cli.main(["report", str(run)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert re.search(message, told)
    assert (run / "report.html").read_text() == "the old one"
    assert not list(run.glob(".*.tmp"))


def put(name, column, change):
    """Changes a column of a run's table, as a list of plain values."""

    def spoil(run):
        table = read_table(run / name)
        values = table[column].to_pylist()
        columns = dict(zip(table.column_names, table, strict=True))
        write_table(run / name, columns | {column: pa.array(change(values))})

    return spoil


def first(value):
    return lambda values: [value, *values[1:]]


def shorter_and_longer(values):
    return [values[0][:-1], [*values[1], 0.0], *values[2:]]


def chosen_is(content):
    return lambda run: (run / "chosen.json").write_text(content)


PAIR = '{"num_train_levels": 10, "acting": "mean", "window": 10, "alpha": %s, "beta": 1}'


@pytest.mark.parametrize(
    ("study", "name", "spoil"),
    [
        ("grid", "steps.parquet", put("steps.parquet", "wanted", first(9))),
        ("grid", "steps.parquet", put("steps.parquet", "action", first(-1))),
        ("grid", "steps.parquet", put("steps.parquet", "num_train_levels", first(None))),
        ("grid", "steps.parquet", put("steps.parquet", "method", first(None))),
        ("grid", "steps.parquet", put("steps.parquet", "wanted", lambda all: ["x"] * len(all))),
        ("grid", "steps.parquet", put("steps.parquet", "members", shorter_and_longer)),
        ("grid", "steps.parquet", put("steps.parquet", "members", first([0.0]))),
        ("grid", "steps.parquet", put("steps.parquet", "members", first(None))),
        ("grid", "steps.parquet", put("steps.parquet", "blocker", shorter_and_longer)),
        ("grid", "steps.parquet", put("steps.parquet", "blocker", first(None))),
        ("grid", "episodes.parquet", put("episodes.parquet", "method", first(None))),
        ("grid", "rates.parquet", put("rates.parquet", "method", first(None))),
        ("grid", "findings.json", lambda run: (run / "findings.json").write_text("[" * 100_000)),
        ("coin", "chosen.json", chosen_is('{"window": 10}')),
        ("coin", "chosen.json", chosen_is("[1]")),
        ("coin", "chosen.json", chosen_is("7")),
        ("coin", "chosen.json", chosen_is(f"[{PAIR % 'null'}]")),
        ("coin", "chosen.json", chosen_is(f"[{PAIR % 'NaN'}]")),
        ("coin", "members.parquet", put("members.parquet", "values", shorter_and_longer)),
        ("coin", "members.parquet", put("members.parquet", "dangers", first(None))),
        ("coin", "members.parquet", put("members.parquet", "step", first(3))),
        (
            "coin",
            "promises.parquet",
            put("promises.parquet", "threshold", lambda values: ["x"] * len(values)),
        ),
        (
            "coin",
            "promises.parquet",
            put("promises.parquet", "threshold", lambda values: [None] * len(values)),
        ),
        (
            "coin",
            "promises.parquet",
            put("promises.parquet", "threshold", lambda values: [math.nan, *values[1:]]),
        ),
    ],
)
def test_a_table_that_is_not_as_it_was_written_is_named_in_one_line(
    request, tmp_path, capsys, study, name, spoil
):
    run = copy(request.getfixturevalue(study), tmp_path)
    spoil(run)
    assert cli.main(["report", str(run)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and told.startswith(f"hotoven: {run / name} is n"), told
    assert not (run / "report.html").exists()


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("grid/run.json", "is a place that the run .* writes"),
        ("grid/help.parquet", "is a place that the run .* writes"),  # though it is not there
        ("grid/figures/report.html", "no folder"),
        ("grid/levels/new.html", "is a place that the run .* writes"),
        ("grid/levels/../run.json", "is a place that the run .* writes"),
        ("notes.txt", "is there and is no HTML page"),
        ("nowhere/report.html", "no folder .*nowhere"),
    ],
)
def test_a_report_takes_the_place_of_a_page_only(grid, tmp_path, capsys, out, message):
    run = copy(grid, tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert cli.main(["report", str(run), "--out", str(tmp_path / out)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and re.search(message, told), told
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


def test_a_report_may_be_written_again_and_beside_others_in_a_run(grid, tmp_path):
    run = copy(grid, tmp_path)
    for out in (run / "report.html", run / "mine.html", tmp_path / "other.html"):
        for _ in range(2):
            assert cli.main(["report", str(run), "--out", str(out)]) == 0


def test_the_command_says_where_the_report_lies_and_how_large_it_is(grid, tmp_path, capsys):
    run = copy(grid, tmp_path)
    assert cli.main(["report", str(run)]) == 0
    told = capsys.readouterr().out
    size = (run / "report.html").stat().st_size
    assert told == f"report    {run / 'report.html'}, {size / 1e6:.1f} MB\n"
    assert size < 15_000_000


def test_of_several_runs_the_report_lies_in_the_working_folder(
    grid, coin, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", str(grid), str(coin)]) == 0
    assert (tmp_path / "report.html").exists()
    assert capsys.readouterr().out.startswith("report    report.html, ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["report"], "report needs the folder of a run"),
        (["report", "nowhere"], "nowhere is not a run's folder"),
        (["report", "--output", "x"], "unknown setting --output: did you mean --out?"),
    ],
)
def test_a_bad_command_is_told_in_one_line(words, message, capsys):
    assert cli.main(words) == 2
    assert message in capsys.readouterr().err


def test_a_report_is_not_written_over_a_folder(grid, tmp_path):
    with pytest.raises(ValueError, match="is a folder; --out names a file"):
        write_report([grid], tmp_path)
