"""Training runs for tests: in a process of their own, or faster in this one; and readers of what they leave behind."""

import argparse
import csv
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import fine_tune
import train
from timm_repaint import Repaint
from timm_repaint.packed import read_header

REPO = Path(__file__).resolve().parent.parent
TINY = ('--device', 'cpu', '--model', 'test_resnet', '--img-size', '32', '-b', '8', '-j', '0')
SCHEDULE = ('--warmup-epochs', '0', '--lr', '0.05')
SHAPES = ('--dataset', 'shapes', '--train-num-samples', '16', '--val-num-samples', '8')
# Three batches are the updates D+T, D+T, E+G.
REPAINT = ('--repaint', *SHAPES[:2], '--train-num-samples', '24', '--val-num-samples', '8', '--repaint-width', '8')


def run_script(script: str, *args: object, fails: bool = False, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a script (or `-m module`, as one word) of the repository; it has to succeed, or to fail if `fails`."""
    command = [sys.executable, *script.split(), *map(str, args)]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', **env}
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, timeout=500)
    assert (done.returncode != 0) == fails, f'{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}'
    return done


def call_main(main: Callable[[], object], *args: object) -> object:
    """Call a script's `main` in this process with a command line of its own, and put logging back as it was."""
    argv, handlers, level = sys.argv, logging.root.handlers[:], logging.root.level
    sys.argv = [main.__module__, *map(str, args)]
    try:
        return main()
    finally:
        sys.argv, logging.root.handlers[:] = argv, handlers
        logging.root.setLevel(level)


def train_here(output: Path, *args: object, name: str = 'run') -> Path:
    """`train.py` on tiny networks in this process; the options in `args` come last and so decide. The run's folder."""
    call_main(train.main, *TINY, *SCHEDULE, '--output', output, '--experiment', name, *args)
    return output / name


def fine_tune_here(run: Path, *args: object) -> Path:
    """`fine_tune.py RUN` in this process; the folder of the fine-tune phase."""
    call_main(fine_tune.main, run, *args)
    return run / 'fine_tune'


def read_summary(run: Path) -> list[dict[str, float]]:
    """Rows of `summary.csv`."""
    with open(run / 'summary.csv', newline='') as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def column(run: Path, name: str) -> list[float]:
    return [row[name] for row in read_summary(run)]


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint, as tensors and plain values only."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, map_location='cpu', weights_only=True)


def load_repaint(path: Path) -> Repaint:
    """E, G, D and their optimizers as a checkpoint of a repaint run holds them."""
    state = load_checkpoint(path)['repaint']
    header = read_header(state['_extra_state'])
    config = {**header['settings'], **header['networks'], 'masks': None}
    start = {} if header['learns'] or not header['networks'].get('width') else {'checkpoint': str(path), 'freeze': True}
    repaint = Repaint(**{**config, 'schedule': tuple(config['schedule']), **start})
    repaint.load_state_dict(state)
    return repaint


def same_tensors(first: Any, second: Any) -> bool:
    """Whether two trees of tensors and values are equal, bit by bit."""
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and torch.equal(first, second)
    if isinstance(first, dict):
        same_keys = isinstance(second, dict) and first.keys() == second.keys()
        return same_keys and all(same_tensors(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return isinstance(second, type(first)) and len(first) == len(second) and all(map(same_tensors, first, second))
    return first == second


def mtimes(folder: Path) -> dict[str, int]:
    """Time of the last change of every file below a folder."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob('*') if path.is_file()}


def copy_images(source: Path, target: Path, classes: int, per_class: dict[str, int]) -> Path:
    """A small image folder: the first images of the first classes of each split."""
    for split, count in per_class.items():
        for class_dir in sorted((source / split).iterdir())[:classes]:
            (target / split / class_dir.name).mkdir(parents=True)
            for image in sorted(class_dir.iterdir())[:count]:
                shutil.copyfile(image, target / split / class_dir.name / image.name)
    return target


def without_padding(table: str) -> str:
    """A Markdown table whose cells have one space on each side."""
    return re.sub(' +', ' ', table)


def split_labels(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A loader's batch [B, 4, H, W] as images [B, 3, H, W] and labels [B, H, W] int64."""
    return batch[:, :3], batch[:, 3].long()
