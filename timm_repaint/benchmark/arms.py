"""The two kinds of training that take turns: runs of the engine's own stages, with batches that do not end."""

import argparse
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from timm_repaint.benchmark.cases import Case, needs_checkpoint, train_options
from timm_repaint.engine.epoch import synchronize
from timm_repaint.engine.parts import Run
from timm_repaint.engine.run import build_run, train_epoch
from timm_repaint.options.conflicts import parse_schedule
from timm_repaint.tasks import find_functions


class Batches:
    """A fixed number of batches an epoch, from a loader that starts again when it ends.

    Args:
        loader: the run's training loader.
        steps: batches an epoch.
        in_memory: read the loader once, and give its batches again and again.
    """

    def __init__(self, loader: Any, steps: int, in_memory: bool) -> None:
        self.steps = steps
        self.batches: Iterator[Any] = itertools.cycle(list(loader)) if in_memory else _again_and_again(loader)

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(self.batches, self.steps)


def _again_and_again(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader


class Seconds(NamedTuple):
    """Time of one timing: by the clock, and of the process on all cores, which other programs hardly change."""

    clock: float
    processor: float


class Arm:
    """Plain training or the repaint phase, ready for its next batches.

    Args:
        args: options of train.py.
        steps: batches of one timing: whole patterns of the schedule.
        in_memory: whether batches are held in memory.
    """

    def __init__(self, args: argparse.Namespace, steps: int, in_memory: bool) -> None:
        self.functions = find_functions(args)
        self.run: Run = build_run(args, self.functions, checkpoint='')
        self.run.loaders.train = Batches(self.run.loaders.train, steps, in_memory)
        self.epoch = 0

    @property
    def device(self) -> torch.device:
        return self.run.device

    def train(self) -> Seconds:
        """Train on the next `steps` batches."""
        synchronize(self.device)
        clock, processor = time.perf_counter(), time.process_time()
        train_epoch(self.run, self.epoch, self.functions)
        synchronize(self.device)
        self.epoch += 1
        return Seconds(time.perf_counter() - clock, time.process_time() - processor)

    @property
    def skipped_updates(self) -> int:
        """Updates of E+G and D that were not made, which would spoil the times."""
        return sum(self.run.repaint.skipped.values()) if self.run.repaint is not None else 0


def whole_patterns(args: argparse.Namespace, steps: int) -> int:
    """The next number of batches that holds the schedule's pattern without rest."""
    pattern = sum(parse_schedule(args.repaint_schedule)) * max(1, args.grad_accum_steps)
    return -(-steps // pattern) * pattern


def build_arm(case: Case, steps: int, repaint: bool, folder: Path) -> Arm:
    """Make one kind of training of a case.

    Args:
        case: what is measured.
        steps: batches of one timing, rounded up to whole patterns of the schedule.
        repaint: the repaint phase, or plain training.
        folder: where the generator of the frozen variant is kept.
    """
    checkpoint = ''
    if needs_checkpoint(case):
        checkpoint = str(folder / 'generator.pth.tar')
        if repaint and not Path(checkpoint).exists():
            trained = _arm(case, steps, True, '')
            assert trained.run.repaint is not None
            torch.save({'repaint': trained.run.repaint.state_dict()}, checkpoint)
        if not Path(checkpoint).exists():
            checkpoint = ''
    return _arm(case, steps, repaint, checkpoint)


def _arm(case: Case, steps: int, repaint: bool, checkpoint: str) -> Arm:
    args = train_options(case, steps, repaint, checkpoint)
    return Arm(args, whole_patterns(args, steps), in_memory=not case.data)
