"""Agents are spread over devices, and learn there what they would learn together."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hotoven import devices


@pytest.mark.parametrize(
    ("count", "num_devices", "sizes"),
    [(27, 2, [13, 14]), (9, 2, [4, 5]), (3, 8, [1, 1, 1]), (5, 1, [5]), (10, 4, [2, 3, 2, 3])],
)
def test_groups_differ_by_one_at_most_and_cover_every_agent_once(count, num_devices, sizes):
    groups = devices.spread(count, range(num_devices))
    assert [rows.stop - rows.start for _, rows in groups] == sizes
    assert [device for device, _ in groups] == list(range(len(sizes)))
    assert [i for _, rows in groups for i in range(rows.start, rows.stop)] == list(range(count))


def test_groups_are_joined_in_order_and_keys_stay_keys():
    keys = jax.random.split(jax.random.key(0), 3)
    whole = devices.join(
        [{"k": keys[:1], "x": jnp.arange(1.0)}, {"k": keys[1:], "x": jnp.arange(1.0, 3.0)}]
    )
    assert isinstance(whole["x"], np.ndarray)
    assert whole["x"].tolist() == [0.0, 1.0, 2.0]
    assert (jax.random.key_data(whole["k"]) == jax.random.key_data(keys)).all()


def test_an_error_on_one_device_is_raised():
    def work(value: int) -> int:
        if value == 1:
            raise ValueError("device 1")
        return value

    with pytest.raises(ValueError, match="device 1"):
        devices.at_once(work, [0, 1, 2])


@pytest.mark.parametrize(
    ("text", "mib"), [("2048K\n", 2.0), ("512K", 0.5), ("4M", 1.0), ("", 1.0), (None, 1.0)]
)
def test_the_size_of_a_cores_cache_is_what_linux_tells_or_one(text, mib, tmp_path, monkeypatch):
    file = tmp_path / "size"
    if text is not None:
        file.write_text(text)
    assert devices.CACHE_SIZE.parts[-2:] == ("index2", "size")  # 0 and 1 are the first level
    monkeypatch.setattr(devices, "CACHE_SIZE", file)
    assert devices.cache_mib() == mib


def told(code: str, **environment: str) -> str:
    """What a Python of its own prints."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


COUNT = "import jax; print(len(jax.devices('cpu')))"


def test_the_command_line_makes_every_core_a_device():
    # importing it must not start JAX, or it would come too late
    code = f"import hotoven.cli; hotoven.cli.main(['--help']); {COUNT}"
    assert told(code).splitlines()[-1] == str(devices.num_cores())


def test_the_number_of_devices_that_the_user_sets_is_kept():
    code = f"from hotoven import devices; devices.use_every_core(); {COUNT}"
    assert told(code, JAX_NUM_CPU_DEVICES="3") == "3"


def test_a_running_jax_keeps_its_devices():
    code = f"import jax; jax.devices(); import hotoven.cli as c; c.main(['--help']); {COUNT}"
    assert told(code).splitlines()[-1] == "1"
