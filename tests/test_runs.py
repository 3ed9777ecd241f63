"""A run's folder has one writer and is never silently overwritten."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hotoven import runs
from hotoven.devices import cache_mib
from hotoven.runs import PACKAGES, Run, RunError, counted
from hotoven.storage import read_json

CONFIG = {"study": "lavagrid", "settings": {"seed": 0, "env": {"radius": 1}, "sizes": [2, 4]}}

HOLD = """
import sys
from pathlib import Path
from hotoven.runs import Run, RunError
try:
    run = Run.open(Path(sys.argv[1]), {"held": True}, force=True)
except RunError as error:
    sys.exit(str(error))
print("held", flush=True)
sys.stdin.read()
"""


def other_process(path: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def unfinished(tmp_path) -> Path:
    path = tmp_path / "run"
    Run.open(path, CONFIG).close()
    return path


@pytest.fixture
def finished(tmp_path) -> Path:
    path = tmp_path / "run"
    with Run.open(path, CONFIG) as run:
        run.finish()
    return path


def files(path: Path) -> list[str]:
    return sorted(str(entry.relative_to(path)) for entry in path.rglob("*"))


def test_a_new_run_says_what_it_is(tmp_path):
    with Run.open(tmp_path / "a" / "run", CONFIG) as run:
        assert not run.finished
        run.note(levels={"test": {"count": 3}})
        about = read_json(run.path / "run.json")
    assert about["status"] == "running"
    assert about["config"] == CONFIG
    assert set(about["versions"]) == {"python", *PACKAGES}
    assert about["hardware"]["cores"] >= 1
    assert about["hardware"]["cache_mib"] == cache_mib()
    assert "cpu cpu" not in about["hardware"]["devices"]
    assert about["levels"] == {"test": {"count": 3}}


def test_devices_of_a_kind_are_named_once():
    assert counted(["gpu H100", "gpu H100", "cpu"]) == "2 x gpu H100, 1 x cpu"
    assert counted([]) == ""


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path):
    path = tmp_path / "run"
    run = Run.open(path, CONFIG)
    (path / "agents").mkdir()
    second = other_process(path)
    _, complaint = second.communicate(timeout=120)
    assert second.returncode == 1
    assert complaint == f"{path} is being written by another process\n"
    assert (path / "agents").exists()  # though it came with force
    run.close()

    second = other_process(path)
    assert second.stdout is not None
    assert second.stdout.readline() == "held\n"
    for force in (False, True):
        with pytest.raises(RunError, match="is being written by another process"):
            Run.open(path, CONFIG, resume=not force, force=force)
    second.kill()  # a killed process holds nothing
    second.communicate()
    Run.open(path, {"held": True}, resume=True).close()


def test_a_finished_run_is_refused_without_force(finished):
    before = (finished / "run.json").read_bytes()
    with pytest.raises(RunError, match=r"holds a finished run: --force overwrites it, --out"):
        Run.open(finished, CONFIG)
    assert (finished / "run.json").read_bytes() == before


def test_an_unfinished_run_is_refused_without_resume(unfinished):
    with pytest.raises(RunError, match="holds an unfinished run: --resume goes on, --force starts"):
        Run.open(unfinished, CONFIG)


def test_resume_keeps_what_is_there(unfinished):
    (unfinished / "agents").mkdir()
    before = (unfinished / "run.json").read_bytes()
    with Run.open(unfinished, CONFIG, resume=True) as run:
        assert not run.finished
    assert (unfinished / "agents").exists()
    assert (unfinished / "run.json").read_bytes() == before


def test_resume_and_force_are_refused_together(unfinished):
    before = files(unfinished)
    with pytest.raises(RunError, match="--resume goes on and --force starts again"):
        Run.open(unfinished, CONFIG, resume=True, force=True)
    assert files(unfinished) == before


@pytest.mark.parametrize(
    "record",
    ["{}", "[]", "null", '{"status": "baked", "config": {}}', '{"status": "running"}', "{"],
)
def test_a_damaged_record_is_refused_in_one_line(unfinished, record):
    (unfinished / "run.json").write_text(record)
    for settings in ({"resume": True}, {}):
        with pytest.raises(RunError, match=r"run\.json.*--force removes what .* and starts again"):
            Run.open(unfinished, CONFIG, **settings)
    assert (unfinished / "run.json").read_text() == record


def test_force_starts_again_over_a_damaged_record(unfinished):
    (unfinished / "agents").mkdir()
    (unfinished / "run.json").write_text("{")
    Run.open(unfinished, CONFIG, force=True).close()
    assert files(unfinished) == [".lock", "run.json"]
    assert read_json(unfinished / "run.json")["config"] == CONFIG


def test_a_damaged_record_beside_foreign_files_is_not_removed(unfinished):
    (unfinished / "run.json").write_text("{}")  # perhaps of another program
    (unfinished / "thesis.tex").write_text("years of work")
    before = files(unfinished)
    with pytest.raises(RunError, match=r"damaged, and thesis\.tex beside it is nothing that a run"):
        Run.open(unfinished, CONFIG, force=True)
    assert files(unfinished) == before


def test_a_refused_folder_is_left_as_it_was(tmp_path, finished):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").touch()
    (finished / ".lock").unlink()  # as in a copy
    for path in (tmp_path / "thesis", finished):
        before = files(path)
        with pytest.raises(RunError):
            Run.open(path, CONFIG)
        assert files(path) == before
    with pytest.raises(RunError, match="only one"):
        Run.open(tmp_path / "new", CONFIG, resume=True, force=True)
    assert not (tmp_path / "new").exists()


def test_a_lock_that_was_just_removed_is_not_held(unfinished, monkeypatch):
    def locked_too_late(handle: int, how: int) -> None:
        (unfinished / ".lock").unlink()

    monkeypatch.setattr(runs.fcntl, "flock", locked_too_late)
    with pytest.raises(RunError, match="is being written by another process"):
        Run.open(unfinished, CONFIG, resume=True)


def test_a_run_that_goes_on_with_other_versions_says_so(finished, monkeypatch):
    first = read_json(finished / "run.json")["versions"]
    with Run.open(finished, CONFIG, resume=True) as run:
        run.reopen()
        assert not run.finished
        assert "continued_with" not in read_json(finished / "run.json")
    other = first | {"jax": "99.0"}
    monkeypatch.setattr(runs, "versions", lambda: other)
    for _ in range(2):  # the second time nothing is new
        with Run.open(finished, CONFIG, resume=True) as run:
            run.reopen()
            run.finish()
    about = read_json(finished / "run.json")
    assert about["versions"] == first
    assert [entry["versions"] for entry in about["continued_with"]] == [other]
    monkeypatch.setattr(runs, "versions", lambda: first)
    with Run.open(finished, CONFIG, resume=True) as run:
        run.reopen()
    versions = [entry["versions"] for entry in read_json(finished / "run.json")["continued_with"]]
    assert versions == [other, first]


def test_resume_removes_what_a_kill_left_half_written(unfinished):
    (unfinished / "agents").mkdir()
    for orphan in (".run.json.x1.tmp", "agents/.levels4-r0.safetensors.x2.tmp"):
        (unfinished / orphan).write_bytes(b"half")
    Run.open(unfinished, CONFIG, resume=True).close()
    assert [name for name in files(unfinished) if name.endswith(".tmp")] == []


def test_a_finished_run_can_be_resumed(finished):
    with Run.open(finished, CONFIG, resume=True) as run:
        assert run.finished


def replicated(number: int, **others: int) -> dict:
    return {"study": "lavagrid", "settings": {"seed": 0, "num_replications": number} | others}


def test_a_finished_run_may_get_more_replications_and_says_so(tmp_path):
    with Run.open(tmp_path, replicated(1)) as run:
        run.finish()
    before = read_json(tmp_path / "run.json")
    for number in (2, 5):
        with Run.open(tmp_path, replicated(number), resume=True) as run:
            assert read_json(tmp_path / "run.json") == before  # until it is written again
            run.reopen()
            run.finish()
        before = read_json(tmp_path / "run.json")
        assert before["config"] == replicated(number)
    grown = [entry["grown"] for entry in before["continued_with"]]
    assert grown == [
        ["settings.num_replications was 1, is 2"],
        ["settings.num_replications was 2, is 5"],
    ]
    assert all(entry["hardware"] == before["hardware"] for entry in before["continued_with"])
    with Run.open(tmp_path, replicated(5), resume=True) as run:
        assert run.grown == []


@pytest.mark.parametrize("other", [replicated(1), replicated(3, seed=1), replicated(3, tune=1)])
def test_a_finished_run_gets_neither_fewer_replications_nor_other_ones(tmp_path, other):
    with Run.open(tmp_path, replicated(2)) as run:
        run.finish()
    with pytest.raises(RunError, match="was started with other settings"):
        Run.open(tmp_path, other, resume=True)


def test_an_unfinished_run_gets_no_more_replications(tmp_path):
    Run.open(tmp_path, replicated(2)).close()
    with pytest.raises(RunError, match="num_replications was 2, is 3"):
        Run.open(tmp_path, replicated(3), resume=True)


def test_resuming_with_other_settings_names_them(unfinished):
    other = {"study": "lavagrid", "settings": {"seed": 1, "env": {"radius": 2}, "sizes": [2, 4]}}
    with pytest.raises(RunError) as error:
        Run.open(unfinished, other, resume=True)
    assert str(error.value).endswith(
        "other settings: settings.env.radius was 1, is 2, settings.seed was 0, is 1"
    )


def test_a_setting_younger_than_the_run_counts_as_its_default(unfinished):
    defaults = {"settings": {"seed": 7, "env": {"radius": 8, "view": "all"}, "tune": False}}
    now = {
        "study": "lavagrid",
        "settings": {
            "seed": 0,
            "env": {"radius": 1, "view": "all"},
            "sizes": [2, 4],
            "tune": False,
        },
    }
    Run.open(unfinished, now, resume=True, defaults=defaults).close()
    now["settings"]["tune"] = True
    now["settings"]["env"]["view"] = "own"
    with pytest.raises(RunError) as error:
        Run.open(unfinished, now, resume=True, defaults=defaults)
    assert str(error.value).endswith(
        "other settings: settings.env.view was 'all', is 'own', settings.tune was False, is True"
    )


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_holds_no_run_is_not_touched(tmp_path, force):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="is not empty and holds no run"):
        Run.open(tmp_path, CONFIG, force=force)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    assert not (tmp_path / "run.json").exists()


def test_a_file_is_not_a_folder(tmp_path):
    path = tmp_path / "file"
    path.write_text("text")
    with pytest.raises(RunError, match="is a file; a run needs a folder"):
        Run.open(path, CONFIG, force=True)
    assert path.read_text() == "text"


def test_force_empties_a_run_and_follows_no_link_out_of_it(finished, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (finished / "figures").symlink_to(outside)
    (finished / "agents").mkdir()
    (finished / "agents" / "a.safetensors").touch()
    (finished / ".steps.parquet.x1.tmp").touch()
    with Run.open(finished, CONFIG, force=True) as run:
        assert not run.finished
    assert files(finished) == [".lock", "run.json"]
    assert (outside / "kept").exists()


def test_force_removes_nothing_that_a_run_does_not_write(finished):
    own = ("notes.txt", "data/x.csv", ".git/HEAD", "data/.x.tmp")
    for name in own:
        (finished / name).parent.mkdir(exist_ok=True)
        (finished / name).touch()
    (finished / "findings.md").touch()
    Run.open(finished, CONFIG, force=True).close()
    assert files(finished) == sorted([*own, "data", ".git", ".lock", "run.json"])
    with Run.open(finished, CONFIG, resume=True) as run:
        run.finish()
    assert "data/.x.tmp" in files(finished)


def test_force_killed_halfway_can_be_forced_again(finished, monkeypatch):
    (finished / "agents").mkdir()
    listed = Path.iterdir
    monkeypatch.setattr(  # in which order a folder lists its entries is the file system's choice
        Path, "iterdir", lambda path: sorted(listed(path), key=lambda one: one.name != "run.json")
    )

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as until_then, pytest.raises(KeyboardInterrupt):
        until_then.setattr(shutil, "rmtree", killed)
        Run.open(finished, CONFIG, force=True)
    Run.open(finished, CONFIG, force=True).close()
    assert files(finished) == [".lock", "run.json"]


def test_a_run_that_fails_stays_unfinished_and_unlocked(tmp_path):
    with pytest.raises(RuntimeError), Run.open(tmp_path / "run", CONFIG):
        raise RuntimeError
    assert read_json(tmp_path / "run" / "run.json")["status"] == "running"
    Run.open(tmp_path / "run", CONFIG, resume=True).close()
