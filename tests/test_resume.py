"""Killed at any moment and resumed: the bytes of a run that nothing disturbed."""

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hotoven.storage import read_json
from tinystudy import SETTINGS, TIMEOUT, assert_same, finish, results, start, uninterrupted

pytestmark = pytest.mark.slow


def kill_when(base: Path, path: Path, moment: Callable[[], bool], *words: str) -> None:
    """Starts the run and kills it with SIGKILL at that moment, which must come before its end."""
    process = start(base, "reproduce", "lavagrid", "--out", str(path), *SETTINGS, *words)
    deadline = time.monotonic() + TIMEOUT
    try:
        while not moment():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        process.kill()
        process.communicate()


def test_killed_again_and_again_it_ends_with_the_same_bytes(tmp_path_factory):
    base = tmp_path_factory.getbasetemp()
    expected = results(uninterrupted(base)[0])
    path = base / "killed"

    def exists(pattern: str) -> Callable[[], bool]:
        return lambda: any(path.glob(pattern))

    kill_when(base, path, exists("checkpoints/members-*.safetensors"))
    assert not (path / "agents").exists()
    for moment in (
        exists("checkpoints/dropout-*.safetensors"),
        exists("agents/*.safetensors"),  # one of two is there
        exists("parts/r0/episodes.parquet"),
    ):
        kill_when(base, path, moment, "--resume")
        assert read_json(path / "run.json")["status"] == "running"
    finish(start(base, "reproduce", "lavagrid", "--out", str(path), *SETTINGS, "--resume"))
    assert read_json(path / "run.json")["status"] == "finished"
    assert_same(results(path), expected)


def test_killed_at_any_time_it_ends_with_the_same_bytes(tmp_path_factory):
    base = tmp_path_factory.getbasetemp()
    expected = results(uninterrupted(base)[0])
    path = base / "killed-at-random"
    process = start(base, "reproduce", "lavagrid", "--out", str(path), *SETTINGS)
    time.sleep(random.uniform(0.0, 10.0))  # from before the folder exists to after the end
    process.kill()
    process.communicate()
    finish(start(base, "reproduce", "lavagrid", "--out", str(path), *SETTINGS, "--resume"))
    assert_same(results(path), expected)
