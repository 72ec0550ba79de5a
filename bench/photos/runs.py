"""One run of an arm: its phases by train.py and fine_tune.py, then the tests; what is finished is not done again."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench.photos.arms import ARMS, CLEAN_END_EPOCHS, COMMON, EPOCHS, SETTINGS, Arm
from timm_repaint.files import write_text

REPO = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Place:
    """Where everything is.

    Attributes:
        data: The folder of data sets.
        weights: Of the network on ImageNet.
        output: For runs, masks and subsets.
    """

    data: Path
    weights: Path
    output: Path


@dataclass(frozen=True)
class Job:
    """One run: names of a setting and an arm, and the seed."""

    setting: str
    arm: str
    seed: int


def images_of(place: Place, name: str) -> Path:
    """The training photographs of a setting as a folder with `train/`: links to the first ones of each class."""
    setting = SETTINGS[name]
    source = (place.data / setting.folder).resolve()
    if setting.per_class is None:
        return source
    target = place.output / 'images' / name
    for folder in sorted((source / 'train').iterdir()):
        (target / 'train' / folder.name).mkdir(parents=True, exist_ok=True)
        for image in sorted(folder.iterdir())[: setting.per_class]:
            link = target / 'train' / folder.name / image.name
            if not link.is_symlink():
                link.symlink_to(image)
    return target


def masks_of(place: Place, name: str) -> Path:
    """Masks of a setting's training photographs, made once."""
    target = place.output / 'masks' / name
    make = ['-m', 'timm_repaint.masks', str(images_of(place, name) / 'train'), str(target), '--mask', 'fh']
    call(make, target.with_suffix('.log'))
    return target


def call(command: list[str], log: Path, output: int | None = None) -> str:
    """Run Python with one thread; its output goes to a file, whose end is shown if it fails.

    Args:
        command: Python's arguments.
        log: The file.
        output: `subprocess.PIPE` returns what it prints instead.

    Raises:
        RuntimeError: if it fails.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(REPO)}
    with open(log, 'a') as file:
        done = subprocess.run(
            [sys.executable, *command], cwd=REPO, env=environment, stdout=output or file, stderr=file, text=True
        )
    if done.returncode:
        raise RuntimeError(f'{shlex.join(command)} ended with {done.returncode}; {log}:\n{log.read_text()[-2000:]}')
    return done.stdout or ''


def phases(place: Place, job: Job, folder: Path) -> list[list[str]]:
    """The commands of a run; the last one leaves the checkpoint that counts."""
    arm, images = ARMS[job.arm], images_of(place, job.setting)
    classes = len(list((images / 'train').iterdir()))
    base = [
        'train.py', str(images), '--val-split', '', '--num-classes', str(classes), '--seed', str(job.seed),
        *COMMON.split(), '--pretrained', '--pretrained-path', str(place.weights), *shlex.split(arm.both),
    ]  # fmt: skip
    place_of_run = ('--output', str(folder.parent), '--experiment', folder.name, '--resume', 'auto')
    first = [*base, *place_of_run, *shlex.split(arm.first)]
    if not arm.first:
        return [first]
    if arm.repaints:
        first += ['--mask-dir', str(place.output / 'masks' / job.setting)]
        return [first, ['fine_tune.py', str(folder), '--resume', 'auto']]
    last = [*base, '--output', str(folder), '--experiment', 'fine_tune', '--resume', str(folder / 'last.pth.tar')]
    return [[*first, '--stop-epoch', str(EPOCHS - CLEAN_END_EPOCHS)], last]


def final_checkpoint(arm: Arm, folder: Path) -> Path:
    return folder / ('fine_tune' if arm.first else '.') / 'last.pth.tar'


def run(place: Place, job: Job) -> dict[str, object]:
    """Train, test the last checkpoint, and leave `result.json`; a row of the results.

    Raises:
        RuntimeError: if a command fails.
    """
    folder = place.output / 'runs' / f'{job.setting}-{job.arm}-seed{job.seed}'
    result = folder / 'result.json'
    if not result.is_file():
        start, log = time.time(), folder.with_suffix('.log')
        for command in phases(place, job, folder):
            call(command, log)
        seconds = time.time() - start
        data, splits = place.data / SETTINGS[job.setting].folder, SETTINGS[job.setting].splits
        checkpoint = final_checkpoint(ARMS[job.arm], folder)
        tests = [str((data / split).resolve()) for split in splits]
        command = ['-m', 'bench.photos.evaluate', str(checkpoint), COMMON.split()[1], *tests]
        told = call(command, log, subprocess.PIPE)
        row = {'setting': job.setting, 'arm': job.arm, 'seed': job.seed, **json.loads(told), 'seconds': round(seconds)}
        write_text(result, json.dumps(row))
        for checkpoint in folder.rglob('*.pth.tar'):  # tens of MB each
            checkpoint.unlink()
        shutil.rmtree(folder / 'tensorboard', ignore_errors=True)
    return json.loads(result.read_text())
