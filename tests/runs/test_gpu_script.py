"""bench/gpu.sh, whose parts are tried on a CPU with the smallest sizes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / 'bench' / 'gpu.sh'
SMALLEST = {
    'DEVICE': 'cpu',
    'MODEL': 'test_resnet',
    'MODELS': 'test_resnet',
    'PX': '32',
    'BATCHES': '2 2 2',
    'STEPS': '3',
    'ROUNDS': '1',
    'LIMIT_S': '1200',  # inductor's C++ on a busy core
}


def run(*args):
    path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
    env = {**os.environ, **SMALLEST, 'PATH': path}
    return subprocess.run([SCRIPT, *args], env=env, capture_output=True, text=True)


@pytest.mark.slow
def test_each_part_leaves_json_and_says_how_long_it_took(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = [line.split(':')[0] for line in done.stdout.splitlines()]
    assert parts == ['machine', 'count32', 'count128', 'kernels', 'b32', 'b128', 'b256', 'models', 'compile', 'masks']
    for part in parts:
        (figures,) = (json.loads(path.read_text()) for path in (tmp_path / part).glob('*.json'))
        assert figures


def test_a_part_that_there_is_not_fails_and_is_named(tmp_path):
    done = run(tmp_path, 'machine', 'speed')
    assert done.returncode == 1
    first, second = done.stdout.splitlines()
    assert first.startswith('machine: done') and second.startswith(f'speed: failed, see {tmp_path}/speed.log')
    assert (tmp_path / 'speed.log').read_text() == 'unknown part speed\n'
