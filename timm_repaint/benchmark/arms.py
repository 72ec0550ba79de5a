"""The two kinds of training that take turns: runs of the engine's own stages, with batches that do not end."""

import itertools
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from timm_repaint.benchmark.cases import Case, train_options
from timm_repaint.detection.installed import find_functions
from timm_repaint.engine.epoch import synchronize
from timm_repaint.engine.parts import Run
from timm_repaint.engine.run import build_run, train_epoch
from timm_repaint.options.conflicts import parse_schedule


class Batches:
    """`steps` batches an epoch, from a loader that starts again when it ends, or whose batches are held in memory."""

    def __init__(self, loader: Any, steps: int, in_memory: bool) -> None:
        self.steps = steps
        again = itertools.cycle(list(loader)) if in_memory else itertools.chain.from_iterable(itertools.repeat(loader))
        self.batches: Iterator[Any] = again

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(self.batches, self.steps)


class Seconds(NamedTuple):
    """Time of one timing: by the clock, and of the process on all cores, which other programs hardly change."""

    clock: float
    processor: float


class Arm:
    """A case's plain training or repaint phase, ready for its next batches."""

    def __init__(self, case: Case, repaint: bool) -> None:
        args = train_options(case, repaint)
        self.functions = find_functions(args)
        self.run: Run = build_run(args, self.functions, checkpoint='')
        pattern = sum(parse_schedule(args.repaint_schedule)) * max(1, args.grad_accum_steps)
        steps = -(-case.steps // pattern) * pattern  # whole patterns of the schedule
        self.run.loaders.train = Batches(self.run.loaders.train, steps, in_memory=not case.data)
        self.epoch = 0

    @property
    def device(self) -> torch.device:
        return self.run.device

    def train(self) -> Seconds:
        """Train on the batches of one timing."""
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
