"""Killed at any moment and resumed: the bytes of a run that nothing disturbed."""

import io
import random
import shutil
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from hotoven.storage import read_json
from tinystudy import (
    TIMEOUT,
    assert_same,
    finish,
    reproduce,
    results,
    shared_folder,
    uninterrupted,
)

# What has been written when each study is killed, one after the other.
MOMENTS = {
    "lavagrid": (
        "checkpoints/members-*.safetensors",
        "checkpoints/dropout-*.safetensors",
        "agents/*.safetensors",  # one of two is there
        "parts/r0/episodes.parquet",
    ),
    "coinrun": (
        "checkpoints/members.safetensors",
        "agents/*.safetensors",
        "parts/levels4/random_step/episodes.parquet",  # those of other ways of acting are not there
        "parts/levels8/mean/episodes.parquet",  # nor is any helper asked
        "parts/levels4/help-planner.parquet",  # nor are the other helpers
    ),
}


def kill_when(base: Path, path: Path, study: str, pattern: str, *words: str) -> None:
    """Starts the run and kills it with SIGKILL once a file is there, before its end."""
    process = reproduce(base, path, study, *words)
    deadline = time.monotonic() + TIMEOUT
    try:
        while not any(path.glob(pattern)):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("study", ["lavagrid", pytest.param("coinrun", marks=pytest.mark.long)])
def test_killed_again_and_again_it_ends_with_the_same_bytes(study: str, tmp_path_factory):
    base = shared_folder(tmp_path_factory)
    expected = results(uninterrupted(base, study)[0])
    path = base / f"killed-{study}"
    first, *others = MOMENTS[study]
    kill_when(base, path, study, first)
    assert not (path / "agents").exists()
    for moment in others:
        kill_when(base, path, study, moment, "--resume")
        assert read_json(path / "run.json")["status"] == "running"
    finish(reproduce(base, path, study, "--resume"))
    assert read_json(path / "run.json")["status"] == "finished"
    assert_same(results(path), expected)


@pytest.mark.long
@pytest.mark.parametrize("study", MOMENTS)
def test_killed_at_any_time_it_ends_with_the_same_bytes(study: str, tmp_path_factory):
    base = shared_folder(tmp_path_factory)
    expected = results(uninterrupted(base, study)[0])
    path = base / f"killed-at-random-{study}"
    process = reproduce(base, path, study)
    time.sleep(random.uniform(0.0, 10.0))  # from before the folder exists to after the end
    process.kill()
    process.communicate()
    finish(reproduce(base, path, study, "--resume"))
    assert_same(results(path), expected)


@pytest.mark.long
def test_a_run_that_gets_another_replication_later_ends_with_the_same_bytes(tmp_path_factory):
    base = shared_folder(tmp_path_factory)
    at_once, later = base / "replicated-at-once", base / "replicated-later"
    first = reproduce(base, at_once, "lavagrid", "--num-replications", "2")
    stored, _ = uninterrupted(base)
    shutil.copytree(stored, later)
    for name in ("agents", "parts", "checkpoints"):  # which a stored run lacks
        shutil.rmtree(later / name, ignore_errors=True)
    finish(first)
    finish(reproduce(base, later, "lavagrid", "--num-replications", "2", "--resume"))
    expected = {
        name: content
        for name, content in results(at_once).items()
        if not name.endswith("-r0.safetensors")  # those agents are not made again
    }
    found, steps = results(later), "parts/r0/steps.parquet"
    tables = [pq.read_table(io.BytesIO(files.pop(steps))) for files in (found, expected)]
    assert tables[0] == tables[1]  # read from the whole run's table and written again
    assert_same(found, expected)
