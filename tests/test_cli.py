"""The command line: what it refuses, what it prints, and a whole tiny study."""

import json
import re
import shutil
import signal
import urllib.request
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hotoven import cli, levels
from hotoven.envs.coinrun.env import CoinRun
from hotoven.envs.lavagrid import LavaGrid
from hotoven.runs import ENTRIES, Run
from hotoven.storage import read_json, write_json
from hotoven.studies import lavagrid, parts
from tinystudy import (
    SETTINGS,
    TIMEOUT,
    assert_same,
    finish,
    results,
    shared_folder,
    start,
    uninterrupted,
)

RECORDED = Path(__file__).parent / "data" / "coinrun"


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return shared_folder(tmp_path_factory)


# What is refused

LAVAGRID = "reproduce lavagrid"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "explode",
            "one of reproduce, train, .*, levels, play, watch, verify, bench, got 'explode'",
        ),
        ("reproduce", "lavagrid"),
        ("reproduce pacman", "lavagrid"),
        (f"{LAVAGRID} --preset slow", "quick, full, got 'slow'"),
        (f"{LAVAGRID} --preset quick --preset=full", "--preset must be given once, got it 2 times"),
        (f"{LAVAGRID} --seed -1", "seed must be from 0 to 4294967295, got -1"),
        (f"{LAVAGRID} --dqn.learning-rate inf", "learning_rate must be above 0 and finite"),
        (f"{LAVAGRID} --colour red", "unknown setting --colour: .*allowed are --preset, --out"),
        (f"{LAVAGRID} --dqn.gama 1", r"did you mean --dqn\.gamma\?.*--dqn\.batch-size"),
        (f"{LAVAGRID} --dqn.gamma 2", "gamma must be from 0 to 1, got 2"),
        (f"{LAVAGRID} --dqn.gamma much", "--dqn.gamma.*float.*'much'"),
        (f"{LAVAGRID} --dqn.optimizer sgd", "'adam', 'rmsprop'"),
        (f"{LAVAGRID} --dqn.hidden 0", "hidden must be from 1 to 2147483647 each"),
        (f"{LAVAGRID} --dqn.hidden 99999999999999999999", "hidden must be from 1 to 2147483647"),
        (
            f"{LAVAGRID} --sizes 4 99999999999999999999",
            "sizes must be .* from 2 to 2147483647, got",
        ),
        (
            "levels show --env.height 40 --env.width 40 --env.min-distance 500 --env.max-steps 500",
            "no solvable map with a path of at least min_distance=500 steps",
        ),
        (f"{LAVAGRID} --danger.filters 8 0", "filters must be from 1 to 2147483647 each"),
        (f"{LAVAGRID} --danger.learning-rate nan", "learning_rate must be above 0 and finite"),
        (f"{LAVAGRID} --env.lava-density 0.99", "must leave 2 of the 25 cells"),
        (f"{LAVAGRID} --sizes 8 4", r"sizes must be different, growing .* got \[8, 4\]"),
        (f"{LAVAGRID} --num-members 0", "num_members must be at least 1, got 0"),
        (f"{LAVAGRID} --block-threshold nan", "block_threshold must be from 0 to 1, got nan"),
        (f"{LAVAGRID} --out /dev/null", "/dev/null is a file; a run needs a folder"),
        (f"{LAVAGRID} --out /dev/null/run", "/dev/null/run"),
        (f"{LAVAGRID} --agents /no/such/run", "unknown setting --agents"),
        ("reproduce coinrun --agents /no/such/run", "/no/such/run is not a run's folder"),
        ("evaluate", "the run's folder"),
        ("evaluate /no/such/run", "/no/such/run is not a run's folder"),
        ("evaluate /no/such/run --resume --force", "only one can be asked for|not a run's folder"),
        ("figures /no/such/run", "/no/such/run is not a run's folder"),
        ("figures /no/such/run --force", "unknown setting --force: this command has no settings"),
        ("figures /dev/null", "/dev/null is not a run's folder"),
        ("levels burn", "'show', 'count', 'hash'"),
        ("levels show --role exam", "'train', 'validation', 'test'"),
        ("levels show --num-levels -1", "must not be negative, got -1"),
        ("levels hash --level-seed -1", "level seed must be from 0 to 65535, got -1"),
        ("play pacman", "'lavagrid', 'coinrun'"),
        (
            "play coinrun --level-seed -1",
            "level seed must be from 0 to 9223372036854775807, got -1",
        ),
        ("play coinrun --level-seed 7 --mode brutal", "brutal.*'easy', 'hard'"),
        (
            "play lavagrid --mode hard",
            "unknown setting --mode: .*allowed are --level-seed, .*--height",
        ),
        ("play lavagrid --port 65536", "port must be from 0 to 65535, got 65536"),
        ("play lavagrid --port -1", "port must be from 0 to 65535, got -1"),
        ("play lavagrid --scale 2", "scale must be from 4 to 819 pixels per cell, got 2"),
        ("play lavagrid --lava-density 0.99", "must leave 2 of the 25 cells"),
        ("bench everything", "'env', 'coinrun', 'levels', 'learn', 'ppo', 'evaluate'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(capsys, line, said):
    assert cli.main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("hotoven: ")
    assert err.count("\n") == 1
    assert re.search(said, err), err


def test_a_run_older_than_a_setting_can_be_resumed(tmp_path, capsys, monkeypatch):
    settings = parts.settings(lavagrid.PRESETS["quick"])
    del settings["tune"], settings["danger"]["pool"]
    Run.open(tmp_path / "old", {"study": "lavagrid", "settings": settings}).close()
    resumed = []
    monkeypatch.setattr(lavagrid, "run", lambda study, run: resumed.append(study) or [])
    words = ["reproduce", "lavagrid", "--out", str(tmp_path / "old"), "--resume"]
    assert cli.main([*words, "--tune"]) == 2
    assert capsys.readouterr().err.endswith("settings: settings.tune was False, is True\n")
    assert cli.main(words) == 0
    assert resumed == [lavagrid.PRESETS["quick"]]


def test_figures_are_not_drawn_from_tables_that_may_be_old(tmp_path, capsys):
    config = {"study": "lavagrid", "settings": parts.settings(lavagrid.LavaGridStudy())}
    with Run.open(tmp_path / "run", config) as run:
        assert cli.main(["figures", str(run.path)]) == 2
        assert "has no tables yet" in capsys.readouterr().err
        run.finish()
        run.reopen()  # as an evaluation does, here a killed one
    for name in ("episodes", "rates"):  # either is enough to be told of
        (tmp_path / "run" / f"{name}.parquet").touch()
        assert cli.main(["figures", str(tmp_path / "run")]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert f"hotoven evaluate {tmp_path / 'run'} --resume makes them new" in err
        (tmp_path / "run" / f"{name}.parquet").unlink()


# Help


def test_version_is_that_of_the_package(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"hotoven {metadata.version('hotoven')}\n"


def test_help_names_every_command(capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    for name in cli.COMMANDS:
        assert f"hotoven {name} " in out


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_lists_every_setting_with_a_help_line(capsys, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "100")
    assert cli.main([name, "--help"]) == 0
    out = capsys.readouterr().out
    flags = cli._flags(cli.COMMANDS[name])
    for flag in flags:
        at = [match.end() for match in re.finditer(rf"{re.escape(flag)}[ ,\n]", out)]
        assert at, flag
        # its words stand beside it or on the next line, and end with the default
        after = " ".join(out[at[-1] :].replace("│", " ").replace("|", " ").split())
        words = after.partition("(default:")[0]
        assert "(default:" in after, flag
        assert re.search("[a-z]{3}", words), flag
        assert "--" not in re.sub(r"--\S*no-\S+", "", words), flag


# Levels


def test_levels_show_draws_them(capsys):
    assert cli.main(["levels", "show", "lavagrid", "--num-levels", "2"]) == 0
    out = capsys.readouterr().out
    assert len(re.findall(r"^level \d+: shortest \d+$", out, re.MULTILINE)) == 2
    maps = [block.splitlines()[1:] for block in out.strip().split("\n\n")]
    for drawn in maps:
        assert [len(row) for row in drawn] == [5] * 5
        assert sorted("".join(drawn)).count("L") == 5


def test_levels_count_counts_every_set(capsys):
    assert cli.main(["levels", "count", "--num-levels", "7"]) == 0
    assert capsys.readouterr().out == "".join(
        f"{role}: 7 levels, 0 duplicates dropped\n" for role in levels.ROLES
    )


def test_levels_hash_is_the_hash_of_the_set(capsys):
    line = "levels hash --role train --num-levels 4 --level-seed 1 --env.height 4"
    assert cli.main(line.split()) == 0
    train = levels.split(LavaGrid(height=4), 4, 0, 0, seed=1).train
    assert capsys.readouterr().out == f"{levels.set_hash(train)}\n"


# Comparing with recordings


def recordings(folder: Path) -> Path:
    """A folder with the short runs of easy levels."""
    folder.mkdir()
    shutil.copy(RECORDED / "levels_easy.npz", folder)
    shutil.copy(RECORDED / "short_easy.npz", folder)
    return folder


def test_verify_ends_with_0_only_where_every_bit_is_the_same(tmp_path, capsys):
    folder = recordings(tmp_path / "recorded")
    assert cli.main(["verify", "coinrun", str(folder)]) == 0
    assert capsys.readouterr().out == (
        "easy levels: 400/400 identical\neasy short runs: 4800/4800 identical, 28105 steps\n"
        "not there, not compared: traj_easy.npz, levels_hard.npz, traj_hard.npz, short_hard.npz\n"
    )
    with np.load(folder / "short_easy.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    arrays["vy"][17] = np.nextafter(arrays["vy"][17], np.float32(9))
    np.savez(folder / "short_easy.npz", **arrays)
    assert cli.main(["verify", "coinrun", str(folder)]) == 1
    out = capsys.readouterr().out
    assert "easy short runs: 4799/4800 identical" in out
    assert "first difference: run " in out and "drift: 0 cells at most; 0 runs end" in out
    del arrays["mon_vx"]
    np.savez(folder / "short_easy.npz", **arrays)
    assert cli.main(["verify", "coinrun", str(folder)]) == 2
    assert "short_easy.npz is no recording of short: it lacks mon_vx" in capsys.readouterr().err
    assert cli.main(["verify", "coinrun", str(folder / "gone")]) == 2
    assert "no folder" in capsys.readouterr().err


# Play


@pytest.mark.usefixtures("interruptible")
def test_play_serves_a_page_at_the_address_it_prints_until_ctrl_c(base):
    process = start(base, "play", "lavagrid", "--level-seed", "3", "--no-browser")
    try:
        line = process.stdout.readline()
        address = re.fullmatch(r"play at (http://127\.0\.0\.1:\d+/[\w-]{32}/) .*Ctrl-C.*\n", line)
        assert address, line
        with urllib.request.urlopen(address[1], timeout=TIMEOUT) as answer:
            assert b"<title>hotoven: play</title>" in answer.read()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "")
    assert err.splitlines() == ["getting ready ...", "hotoven: stopped"]


@pytest.mark.parametrize(
    ("line", "env", "level_seed"),
    [
        ("coinrun --level-seed 7 --mode hard", CoinRun(mode="hard", paint_velocity=False), 7),
        ("coinrun --mode easy", CoinRun(mode="easy", paint_velocity=False), 0),
        ("lavagrid --height 7", LavaGrid(height=7), 0),
        ("", LavaGrid(), 0),
    ],
)
def test_play_takes_the_settings_of_the_environment_it_names(line, env, level_seed):
    command = cli._parse(["play", *line.split()])
    assert (command.env, command.level_seed) == (env, level_seed)


# A whole tiny study

PROMISED = (
    "run.json",
    "levels/train.safetensors",
    "levels/validation.safetensors",
    "levels/test.safetensors",
    "agents/levels4-r0.safetensors",
    "agents/levels8-r0.safetensors",
    "episodes.parquet",
    "steps.parquet",
    "rates.parquet",
    "agent_rates.parquet",
    "differences.parquet",
    "calibration.json",
    "findings.json",
    "findings.md",
    "figures/generalization.svg",
    "figures/generalization.png",
    "figures/calibration.svg",
    "figures/calibration.png",
    "figures/unseen.gif",
    "figures/unseen.mp4",
)


@pytest.mark.slow
def test_reproduce_writes_every_promised_file_and_says_where(base):
    path, out = uninterrupted(base)
    assert {entry.name for entry in path.iterdir()} <= ENTRIES | {".lock"}
    for name in PROMISED:
        assert (path / name).stat().st_size > 0, name
    assert (path / "findings.md").read_text().strip() in out
    for word in ("findings.md", "*.parquet", "figures"):
        assert str(path / word) in out
    about = read_json(path / "run.json")
    assert about["status"] == "finished"
    assert about["config"]["settings"]["sizes"] == [4, 8]
    assert about["config"]["settings"]["seed"] == 3
    assert about["levels"]["test"]["count"] == 20
    assert re.fullmatch("[0-9a-f]{32}", about["levels"]["test"]["hash"])
    assert not list((path / "checkpoints").iterdir())
    for row in read_json(path / "calibration.json"):
        assert 0 < row["num_fit_levels"] < row["num_train_levels"]


@pytest.mark.long
def test_train_then_evaluate_gives_the_bytes_of_reproduce_with_the_same_seed(base):
    expected = results(uninterrupted(base)[0])
    path = base / "in-two"
    finish(start(base, "train", "lavagrid", "--out", str(path), *SETTINGS))
    assert not (path / "episodes.parquet").exists()
    finish(start(base, "evaluate", str(path)))
    assert_same(results(path), expected)


@pytest.mark.slow
def test_agents_of_another_size_or_other_settings_are_not_evaluated(base, capsys):
    path = base / "swapped"
    shutil.copytree(uninterrupted(base)[0], path)
    few, many = (path / "agents" / f"levels{size}-r0.safetensors" for size in (4, 8))
    own = few.read_bytes()
    few.write_bytes(many.read_bytes())
    assert cli.main(["evaluate", str(path), "--force"]) == 2
    err = capsys.readouterr().err
    assert "levels4-r0.safetensors holds other agents: num_train_levels was 8, is 4" in err
    few.write_bytes(own)
    about = read_json(path / "run.json")
    about["config"]["settings"]["dqn"]["gamma"] = 0.3
    (path / "run.json").write_text(json.dumps(about))
    assert cli.main(["evaluate", str(path), "--force"]) == 2
    assert "holds other agents: settings.dqn.gamma was 0.8, is 0.3" in capsys.readouterr().err
    assert (path / "episodes.parquet").exists()


@pytest.mark.slow
def test_evaluate_force_loses_nothing_where_agents_are_damaged(base, capsys):
    path = base / "damaged"
    shutil.copytree(uninterrupted(base)[0], path)
    agents = path / "agents" / "levels8-r0.safetensors"
    agents.write_bytes(agents.read_bytes()[:100])
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    assert cli.main(["evaluate", str(path), "--force"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and f"remove {agents}, and hotoven train with --resume" in err
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    agents.unlink()
    assert cli.main(["evaluate", str(path), "--force"]) == 2
    assert "has no agents of 8 levels, replication 1" in capsys.readouterr().err


@pytest.mark.slow
def test_figures_of_what_is_no_runs_record_or_table_is_one_line(base, capsys):
    path = base / "mixed"
    shutil.copytree(uninterrupted(base)[0], path)
    shutil.copy(path / "rates.parquet", path / "steps.parquet")
    assert cli.main(["figures", str(path)]) == 2
    assert "steps.parquet lacks the columns" in capsys.readouterr().err
    about = read_json(path / "run.json")
    about["config"]["settings"]["colour"] = "red"
    (path / "run.json").write_text(json.dumps(about))
    assert cli.main(["figures", str(path)]) == 2
    assert "run.json: unknown settings colour" in capsys.readouterr().err


@pytest.mark.long
def test_a_blocker_that_diverges_stops_the_run_and_names_its_learning_rate(base):
    path = base / "diverged"
    words = [*SETTINGS, "--danger.learning-rate", "1e38"]
    process = start(base, "train", "lavagrid", "--out", str(path), *words)
    err = process.communicate(timeout=TIMEOUT)[1]
    assert process.returncode == 2
    last = err.splitlines()[-1]
    assert last.startswith("hotoven: a blocker's params became NaN or infinite")
    assert "danger.learning_rate 1e+38" in last
    assert "after training on [4, 8] levels" in last
    assert not (path / "agents").exists()


@pytest.mark.slow
def test_a_finished_run_is_not_overwritten(base, capsys):
    path, _ = uninterrupted(base)
    before = results(path)
    for words in (
        ["reproduce", "lavagrid", "--out", str(path), *SETTINGS],
        ["evaluate", str(path)],
    ):
        assert cli.main(words) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert "--force" in err
    assert cli.main(
        ["reproduce", "lavagrid", "--out", str(path), *SETTINGS, "--resume", "--seed", "4"]
    )
    assert "settings.seed was 3, is 4" in capsys.readouterr().err
    assert_same(results(path), before)


def stored(base: Path, path: Path, *kept: str) -> Path:
    """A copy of the finished run as results/ holds one: without what can be made again."""
    shutil.copytree(uninterrupted(base)[0], path)
    for name in {"agents", "parts", "checkpoints"} - set(kept):
        shutil.rmtree(path / name, ignore_errors=True)
    return path


@pytest.mark.slow
def test_a_stored_run_is_not_made_again(base, tmp_path, capsys, monkeypatch):
    path = stored(base, tmp_path / "run")
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}

    def runs_again(*rest: Any) -> None:
        raise AssertionError

    for name in ("run", "train", "evaluate", "merge"):
        monkeypatch.setattr(lavagrid, name, runs_again)
    assert cli.main(["reproduce", "lavagrid", *SETTINGS, "--out", str(path), "--resume"]) == 0
    assert "perfect yet dangerous" in capsys.readouterr().out
    assert cli.main(["evaluate", str(path)]) == 2
    assert "has been evaluated: --force plays again" in capsys.readouterr().err
    assert cli.main(["evaluate", str(path), "--resume"]) == 0
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


@pytest.mark.slow
def test_recorded_steps_end_as_the_episodes_of_the_same_agents(base):
    path, _ = uninterrupted(base)
    who = ["num_train_levels", "replication", "method", "member", "level_index"]
    episodes, steps = (
        pq.read_table(path / f"{name}.parquet").to_pylist() for name in ("episodes", "steps")
    )
    ends = {
        tuple(row[name] for name in who): (row["outcome"], row["length"])
        for row in episodes
        if row["set"] == "test"
    }
    found = {}
    for row in steps:  # in order: the last step of an episode stays
        found[tuple(row[name] for name in who)] = (row["outcome"], row["step"] + 1)
    assert len(found) == 2 * 3 * 5  # sizes, methods that are recorded, levels
    assert found == {agent: ends[agent] for agent in found}
    alone = [agent for agent in ends if agent[2] == "single" and agent[4] < 5]
    first, second = ([ends[agent] for agent in alone if agent[3] == member] for member in (0, 1))
    assert first != second  # so that another member's steps would be noticed


@pytest.mark.slow
def test_a_run_without_its_tables_is_not_taken_for_a_stored_one(base, tmp_path, monkeypatch):
    path = stored(base, tmp_path / "run", "agents")
    (path / "episodes.parquet").unlink()
    made = []
    monkeypatch.setattr(lavagrid, "run", lambda study, run: made.append(run.path) or [])
    assert cli.main(["reproduce", "lavagrid", *SETTINGS, "--out", str(path), "--resume"]) == 0
    assert made == [path]


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"half", None])
def test_test_levels_that_are_gone_or_damaged_are_made_again(base, tmp_path, capsys, content):
    path = stored(base, tmp_path / "run")
    levels = path / "levels" / "test.safetensors"
    before = levels.read_bytes()
    levels.unlink()
    if content is not None:
        levels.write_bytes(content)
    assert cli.main(["figures", str(path)]) == 0
    assert "was missing or damaged and has been made again" in capsys.readouterr().err
    assert levels.read_bytes() == before
    record = read_json(path / "run.json")
    record["levels"]["test"]["hash"] = "of other levels"
    write_json(path / "run.json", record)
    levels.write_bytes(b"half")
    assert cli.main(["figures", str(path)]) == 2
    assert "not a whole safetensors file" in capsys.readouterr().err
    assert levels.read_bytes() == b"half"


@pytest.mark.slow
def test_a_lost_calibration_is_made_again_by_training_as_it_is_said(base, tmp_path, capsys):
    path = stored(base, tmp_path / "run", "agents", "parts")
    (path / "parts" / "r0" / "calibration.json").unlink()
    words = ["lavagrid", *SETTINGS, "--out", str(path), "--resume"]
    assert cli.main(["reproduce", *words]) == 2
    assert "and hotoven train with --resume makes it" in capsys.readouterr().err
    assert lavagrid.untrained(cli._study_of(path)[1], path) == [0]


def test_a_setting_that_leaves_too_few_levels_begins_no_run(tmp_path, capsys):
    path = tmp_path / "run"
    words = ["reproduce", "lavagrid", *SETTINGS, "--out", str(path), "--env.lava-density", "0.7"]
    assert cli.main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not path.exists()


@pytest.mark.slow
def test_training_a_finished_run_again_leaves_it_finished(base, tmp_path, capsys):
    path = tmp_path / "run"
    shutil.copytree(uninterrupted(base)[0], path)
    words = ["train", "lavagrid", *SETTINGS, "--out", str(path), "--resume"]
    assert cli.main(words) == 0
    assert f"hotoven evaluate {path} --force plays it again" in capsys.readouterr().out
    assert cli.main(["figures", str(path)]) == 0


@pytest.mark.slow
def test_a_run_that_grew_is_trained_then_played_where_it_was_not(
    base, tmp_path, capsys, monkeypatch
):
    path = stored(base, tmp_path / "run")
    to_train = []
    monkeypatch.setattr(
        lavagrid, "train", lambda study, run: to_train.extend(lavagrid.untrained(study, run.path))
    )
    words = ["train", "lavagrid", *SETTINGS, "--out", str(path), "--resume"]
    assert cli.main([*words, "--num-replications", "2"]) == 0
    assert to_train == [1]
    assert f"next      hotoven evaluate {path} --resume\n" in capsys.readouterr().out
    assert read_json(path / "run.json")["status"] == "running"


def test_what_has_been_played_is_found_in_the_parts_of_either_study(tmp_path):
    assert cli._played(tmp_path) == []
    tables = [
        tmp_path / "parts" / name / "episodes.parquet" for name in ("r0", "r1", "levels4/mean")
    ]
    for table in tables:
        table.parent.mkdir(parents=True)
        table.touch()
    assert sorted(cli._played(tmp_path)) == sorted(tables)


@pytest.mark.slow
def test_force_with_impossible_levels_loses_nothing(base, tmp_path, capsys):
    path = stored(base, tmp_path / "run")
    before = results(path)
    few = [
        "--num-test-levels",
        "2000",
        "--env.height",
        "2",
        "--env.width",
        "2",
        "--env.min-distance",
        "1",
    ]
    words = ["reproduce", "lavagrid", *SETTINGS, "--out", str(path), "--force", *few]
    assert cli.main(words) == 2
    assert "2000 are needed" in capsys.readouterr().err
    assert_same(results(path), before)


def test_force_without_agents_to_take_over_loses_nothing(tmp_path, capsys):
    for name in ("source", "run"):
        with Run.open(tmp_path / name, {"study": "coinrun", "settings": {}}) as run:
            write_json(run.path / "findings.json", [name])
            run.finish()
    words = ["reproduce", "coinrun", "--out", str(tmp_path / "run"), "--force"]
    assert cli.main([*words, "--agents", str(tmp_path / "source")]) == 2
    assert "source has no agents of 10 levels; its agents are: none" in capsys.readouterr().err
    assert read_json(tmp_path / "run" / "findings.json") == ["run"]
    assert read_json(tmp_path / "run" / "run.json")["status"] == "finished"


@pytest.mark.parametrize(
    "line",
    [
        "reproduce lavagrid --out coinrun",
        "reproduce --out coinrun lavagrid",
        "train lavagrid --resume --out coinrun --env.height 7",
    ],
)
def test_a_folder_may_have_a_studys_name(line):
    command = cli._parse(line.split())
    assert isinstance(command, cli.LavaGridReproduce)
    assert (command.study, command.out) == ("lavagrid", Path("coinrun"))


def test_the_parts_of_a_run_come_back_from_its_tables(base, tmp_path):
    source, path = uninterrupted(base)[0], tmp_path / "run"
    path.mkdir()
    _, study, _ = cli._study_of(source)
    two = replace(study, num_replications=2)
    first = pq.read_table(source / "episodes.parquet")
    column = first.column_names.index("replication")
    ones = pa.array(np.ones(len(first), np.int32))
    second = first.set_column(column, "replication", ones.cast(first["replication"].type))
    told = read_json(source / "calibration.json")
    pq.write_table(pa.concat_tables([first, second]), path / "episodes.parquet")
    later = [row | {"replication": 1, "expected_error": 0.5} for row in told]
    write_json(path / "calibration.json", [*told, *later])
    shutil.copy(source / "steps.parquet", path)
    with pytest.raises(ValueError, match=r"episodes\.parquet must hold .* of 3 .* those of 0, 1"):
        lavagrid.unmerge(replace(study, num_replications=3), path)
    for wrong in (None, {}, [], told, [*told, 3]):
        write_json(tmp_path / "calibration.json", wrong)
        with pytest.raises(ValueError, match=r"calibration\.json is not as hotoven writes it"):
            lavagrid._calibrations(two, tmp_path / "calibration.json")
    lavagrid.unmerge(two, path)
    made = [path / "parts" / f"r{replication}" for replication in (0, 1)]
    assert pq.read_table(made[0] / "episodes.parquet") == first
    assert pq.read_table(made[1] / "episodes.parquet") == second
    assert pq.read_table(made[0] / "steps.parquet") == pq.read_table(source / "steps.parquet")
    bare = [{name: row[name] for name in row if name != "replication"} for row in [*told, *later]]
    assert read_json(made[0] / "calibration.json") == bare[:2]
    assert read_json(made[1] / "calibration.json") == bare[2:]


@pytest.mark.slow
def test_figures_redraws_the_same_from_the_tables(base):
    path, _ = uninterrupted(base)
    before = results(path)
    for name in before:
        if name.endswith((".svg", "findings.md", "findings.json")):
            (path / name).unlink()
    finish(start(base, "figures", str(path)))
    assert_same(results(path), before)
