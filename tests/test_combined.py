"""What several studies found together: small enough to work out by hand."""

import json
import re
import shutil
from pathlib import Path

import pytest

from hotoven import cli
from hotoven.evaluation.combined import basis, combine, summary, to_markdown, without_seeds
from hotoven.evaluation.findings import Finding
from hotoven.storage import read_json, write_json

RESULTS = Path(__file__).resolve().parent.parent / "results"


def finding(estimate, verdict="supported", claim="lava is hot", measure="lava, percentage points"):
    spread = (None, None) if estimate is None else (estimate - 1, estimate + 1)
    return Finding(claim, "Lava is hot.", measure, estimate, *spread, verdict, "By rule.")


def test_the_mean_is_over_studies_whatever_each_says_of_itself():
    # 1, 3, 8: mean 4, variance 13; Student's quantile for 2 degrees of freedom is 4.3027
    (one,) = combine([[finding(number)] for number in (1.0, 3.0, 8.0)])
    half = 4.3027 * (13 / 3) ** 0.5
    assert one.mean is not None
    assert one.mean == pytest.approx((4.0, 4 - half, 4 + half, 3), abs=1e-3)
    assert one.numbers == [1.0, 3.0, 8.0]


def test_a_study_without_a_number_is_left_out_and_the_mean_says_so():
    some, none, alone = (
        combine([[finding(number, "undecided")] for number in numbers])
        for numbers in ((3.0, None, 1.0), (None, None), (None, 2.0))
    )
    assert "| +2.0 pp [-10.7, +14.7], of 2 studies | +1.0, +3.0 | 3 undecided |" in summary(
        some, ""
    )
    assert "| none | none | 2 undecided |" in summary(none, "")
    assert "| none | +2.0, +2.0 | 2 undecided |" in summary(alone, "")


def test_verdicts_are_counted_and_every_study_is_shown():
    studies = [
        [finding(10.0), finding(30.0, "undecided", "saws are sharp", "deaths, %")],
        [finding(12.0, "not supported"), finding(34.0, "undecided", "saws are sharp", "deaths, %")],
    ]
    lines = to_markdown(combine(studies), ["a", "b"], "Over two.").splitlines()
    assert lines[2:4] == [
        "| Lava is hot. | +11.0 pp [-1.7, +23.7] | +10.0, +12.0 | 1 supported, 1 not supported |",
        "| Lava is hot. | 32.0% [6.6, 57.4] | 30.0, 34.0 | 2 undecided |",
    ]
    assert lines[5] == "Over two."
    assert lines[7:] == [
        "| claim | measure | a | b |",
        "|---|---|---|---|",
        "| lava is hot | lava, percentage points | +10.0 pp [+9.0, +11.0], supported "
        "| +12.0 pp [+11.0, +13.0], not supported |",
        "| saws are sharp | deaths, % | 30.0% [29.0, 31.0], undecided "
        "| 34.0% [33.0, 35.0], undecided |",
    ]


def test_an_estimate_of_0_is_a_number():
    (one,) = combine([[finding(number)] for number in (0.0, 2.0)])
    assert one.mean is not None
    assert (one.mean.estimate, one.mean.num_replications) == (1.0, 2)


def test_an_interval_ends_where_nothing_is_possible():
    difference, share = (
        combine([[finding(number, measure=measure)] for number in (10.0, 90.0)])[0].mean
        for measure in ("lava, percentage points", "lava, %")
    )
    assert (difference.low, difference.high) == (-100, 100)
    assert (share.low, share.high) == (0, 100)


@pytest.mark.parametrize(
    "studies",
    [
        [[finding(1.0)], []],
        [[finding(1.0)], [finding(2.0)], [finding(1.0, claim="another")]],
        [[finding(1.0)], [finding(1.0, claim="another")]],
        [[finding(1.0)], [finding(1.0, measure="lava, %")]],
    ],
)
def test_studies_that_judge_something_else_are_refused(studies):
    with pytest.raises(ValueError, match="same claims by the same measures"):
        combine(studies)


def test_studies_that_judge_nothing_are_refused():
    with pytest.raises(ValueError, match="at least one claim"):
        combine([[], []])


def test_one_study_is_refused():
    with pytest.raises(ValueError, match="at least 2 studies are needed, got 1"):
        combine([[finding(1.0)]])


def test_what_intervals_are_over_hangs_on_the_seeds():
    def said(*seeds):
        return basis([{"seed": seed, "level_seed": level_seed} for seed, level_seed in seeds])

    assert said((0, 0), (1, 1)) == (
        "Intervals are over 2 studies, each with agents and levels of its own."
    )
    assert said((0, 5), (1, 5), (2, 5)) == (
        "Intervals are over 3 studies, each with agents of its own, all on the same levels: they "
        "tell nothing of other levels."
    )
    with pytest.raises(ValueError, match=re.escape("must all be different, got [0, 0]")):
        said((0, 0), (0, 1))
    with pytest.raises(ValueError, match=re.escape("or all be the same, got [0, 1, 0]")):
        said((0, 0), (1, 1), (2, 0))


def test_nothing_but_the_seeds_is_left_out_of_a_comparison():
    assert without_seeds({"seed": 1, "level_seed": 2, "hold": 3}) == {"hold": 3}


# The command


def run(tmp_path, name, **settings):
    """A run's record and its findings, as they are stored; some of its settings changed."""
    path = tmp_path / name
    path.mkdir()
    stored = RESULTS / "coinrun-quick"
    shutil.copy(stored / "findings.json", path)
    about = read_json(stored / "run.json")
    about["config"]["settings"] |= settings
    write_json(path / "run.json", about)
    return path


def test_runs_are_combined_on_the_command_line(tmp_path, capsys):
    paths = [run(tmp_path, f"run{seed}", seed=seed, level_seed=seed) for seed in range(3)]
    assert cli.main(["combine", *map(str, paths)]) == 0
    told = capsys.readouterr().out
    assert "| Agents perfect on few training levels are dangerous on unseen ones. | +" in told
    assert "| 3 supported |" in told
    assert "Intervals are over 3 studies, each with agents and levels of its own." in told
    assert f"| claim | measure | {' | '.join(map(str, paths))} |" in told


def unfinish(path):
    write_json(path / "run.json", read_json(path / "run.json") | {"status": "running"})


def spoil(change):
    def spoiled(path):
        rows = read_json(path / "findings.json")
        change(rows[0])
        (path / "findings.json").write_text(json.dumps(rows))

    return spoiled


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([{}, {}, {"hold": 3}], "run2 and .*run0 must differ by their seeds alone"),
        ([{"level_seed": 1}, {}, {}], "level seeds must all be different or all be the same"),
    ],
)
def test_every_run_is_held_against_the_first(tmp_path, capsys, settings, said):
    paths = [
        run(tmp_path, f"run{seed}", **({"seed": seed, "level_seed": seed} | own))
        for seed, own in enumerate(settings)
    ]
    assert cli.main(["combine", *map(str, paths)]) == 2
    assert re.search(said, capsys.readouterr().err)


def test_the_first_run_too_must_be_finished(tmp_path, capsys):
    paths = [run(tmp_path, f"run{seed}", seed=seed, level_seed=seed) for seed in range(2)]
    unfinish(paths[0])
    assert cli.main(["combine", *map(str, paths)]) == 2
    assert re.search("run0 is being evaluated", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("study", "said"),
    [
        ("lavagrid", "unknown settings"),
        (["lavagrid"], r"study must be one of lavagrid, coinrun, got \['lavagrid'\]"),
    ],
)
def test_another_study_is_refused(tmp_path, capsys, study, said):
    paths = [run(tmp_path, f"run{seed}", seed=seed, level_seed=seed) for seed in range(2)]
    about = read_json(paths[1] / "run.json")
    about["config"]["study"] = study
    write_json(paths[1] / "run.json", about)
    assert cli.main(["combine", *map(str, paths)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert re.search(said, told)


def forget(path):
    """As a run that is older than a setting."""
    about = read_json(path / "run.json")
    del about["config"]["settings"]["min_lead"]
    write_json(path / "run.json", about)


@pytest.mark.parametrize(
    ("settings", "harm", "said"),
    [
        ({"hold": 3}, None, "differ by their seeds alone: hold was 10, is 3"),
        ({"seed": 0}, None, r"seeds of studies must all be different, got \[0, 0\]"),
        ({}, unfinish, "is being evaluated or was stopped"),
        (
            {},
            lambda path: (path / "findings.json").unlink(),
            "no file .*findings.json",
        ),
        ({}, lambda path: write_json(path / "findings.json", 5), "holds no list of findings"),
        ({}, spoil(lambda row: row.pop("claim")), "holds no list of findings"),
        ({}, spoil(lambda row: row.update(estimate="1")), "holds no list of findings"),
        ({}, spoil(lambda row: row.update(estimate=float("nan"))), "holds no list of findings"),
        ({}, spoil(lambda row: row.update(estimate=10**400)), "holds no list of findings"),
        ({}, spoil(lambda row: row.update(low=None)), "holds no list of findings"),
        ({}, spoil(lambda row: row.update(high=float("inf"))), "holds no list of findings"),
        ({}, spoil(lambda row: row.update(rule=None)), "holds no list of findings"),
        ({}, spoil(lambda row: row.update(note=None)), "holds no list of findings"),
        ({}, spoil(lambda row: row.update(verdict="true")), "holds no list of findings"),
        ({}, spoil(lambda row: row.update(details=[1])), "holds no list of findings"),
        ({}, spoil(lambda row: row["details"][0].update(num_train_levels="ten")), "holds no list"),
        ({}, spoil(lambda row: row.update(num_replications=1.5)), "holds no list of findings"),
        ({}, spoil(lambda row: row.update(statement=5)), "holds no list of findings"),
        ({}, spoil(lambda row: row.update(claim="x")), "same claims by the same measures"),
    ],
)
def test_what_cannot_be_combined_is_named_in_one_line(tmp_path, capsys, settings, harm, said):
    first = run(tmp_path, "first", seed=0, level_seed=0)
    second = run(tmp_path, "second", **({"seed": 1, "level_seed": 1} | settings))
    if harm:
        harm(second)
    assert cli.main(["combine", str(first), str(second)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert re.search(said, told)


def test_a_setting_that_a_record_lacks_counts_as_its_default(tmp_path, capsys):
    first = run(tmp_path, "first", seed=0, level_seed=0)
    second = run(tmp_path, "second", seed=1, level_seed=1)
    forget(second)
    assert cli.main(["combine", str(first), str(second)]) == 0


@pytest.mark.parametrize("words", [[], ["results/nothing"]])
def test_fewer_than_two_runs_are_refused(capsys, words):
    assert cli.main(["combine", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1
