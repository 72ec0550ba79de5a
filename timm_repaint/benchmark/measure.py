"""One case from options to figures: the two kinds of training take turns, so that a slow minute hits both."""

import gc
import itertools
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from timm_repaint.benchmark.cases import Case, train_options
from timm_repaint.detection.installed import find_functions
from timm_repaint.engine.epoch import synchronize
from timm_repaint.engine.parts import Run
from timm_repaint.engine.run import build_run, train_epoch
from timm_repaint.options.conflicts import parse_schedule

REPAINT_EPOCHS, PLAIN_EPOCHS = 150, 50  # Repaint section 4.2
STATUS = Path('/proc/self/status')
MIB = 2**20
Seconds = tuple[float, float]  # by the clock, and of the process


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

    def train(self) -> tuple[float, float]:
        """Train on the batches of one timing.

        Returns:
            Seconds by the clock, and of the process on all cores, which other programs hardly change.
        """
        synchronize(self.run.device)
        clock, processor = time.perf_counter(), time.process_time()
        train_epoch(self.run, self.epoch, self.functions)
        synchronize(self.run.device)
        self.epoch += 1
        return time.perf_counter() - clock, time.process_time() - processor

    @property
    def skipped_updates(self) -> int:
        """Updates of E+G and D that were not made, which would spoil the times."""
        return sum(self.run.repaint.skipped.values()) if self.run.repaint is not None else 0


def num_stages(rounds: int) -> int:
    """Items that `measure` yields, the result included."""
    return rounds + 4  # warm-up, two peaks of memory, the result


def measure(
    case: Case, rounds: int, look_into: Callable[[Arm], dict[str, Any]] | None = None
) -> Iterator[dict[str, Any] | None]:
    """Measure a case by that many pairs of timings.

    Args:
        look_into: What else is to be known of the repaint phase, by name.

    Yields:
        None after each stage, then the figures: plain values, ready for JSON.
    """
    arms = {repaint: Arm(case, repaint) for repaint in (True, False)}
    arms[True].train()  # warm-up
    arms[False].train()
    yield None
    seconds: list[tuple[Seconds, Seconds]] = []
    for _ in range(rounds):
        seconds.append((arms[False].train(), arms[True].train()))
        yield None
    figures = times(seconds, len(arms[True].run.loaders.train))
    more = look_into(arms[True]) if look_into is not None else {}
    figures['skipped_updates'] = arms[True].skipped_updates
    device = arms[True].run.device.type
    if device != 'cpu':  # there the process only waits
        del figures['processor_ratio'], figures['processor_s_a_step']
    del arms
    free_memory(device)  # a process of its own needs as much again
    memory = {}
    for name, repaint in (('plain', False), ('repaint', True)):
        memory[name] = peak_memory_mib(case, repaint)
        yield None
    yield {
        **asdict(case),
        'options': list(case.options),
        'device': device,
        **figures,
        'peak_memory_mib': {**memory, 'ratio': memory['repaint'] / memory['plain']},
        **more,
    }


def times(seconds: Sequence[tuple[Seconds, Seconds]], steps: int) -> dict[str, Any]:
    """Ratios and seconds a step from timings of `steps` batches: of plain training and the repaint phase, neighbours.

    Returns:
        'seconds_a_step' of both, 'ratios' of the pairs, their median 'ratio', and 'whole_run_ratio': 150 epochs of
        repaint and 50 plain ones, against 200 plain ones. All by the clock; 'processor_s_a_step' and 'processor_ratio'
        are the first and the third by the processor's time.
    """
    pairs = np.array(seconds)  # [rounds, plain and repaint, clock and processor]
    ratios = pairs[:, 1] / pairs[:, 0]
    ratio, processor_ratio = np.median(ratios, axis=0).tolist()
    medians = np.median(pairs, axis=0).T / steps
    clock, processor = ({'plain': plain, 'repaint': repaint} for plain, repaint in medians.tolist())
    return {
        'seconds_a_step': clock,
        'ratios': ratios[:, 0].tolist(),
        'ratio': ratio,
        'whole_run_ratio': (REPAINT_EPOCHS * ratio + PLAIN_EPOCHS) / (REPAINT_EPOCHS + PLAIN_EPOCHS),
        'processor_s_a_step': processor,
        'processor_ratio': processor_ratio,
    }


# Peak memory, in a process of its own: what a process once had, its peak keeps ----------------------------------------


def peak_memory_mib(case: Case, repaint: bool) -> float:
    """Most memory that training takes: of the process on a CPU, of the allocator on another device."""
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(1, mp_context=context) as process:
        threads = torch.get_num_threads()
        return process.submit(_train_and_look, case, repaint, threads).result()


def free_memory(device: str) -> None:
    """Give back what this process holds on a device (its type) and no longer needs."""
    gc.collect()  # a run's parts refer to each other
    if device != 'cpu':
        getattr(torch, device).empty_cache()


def _train_and_look(case: Case, repaint: bool, threads: int) -> float:
    torch.set_num_threads(threads)
    arm = Arm(case, repaint)
    arm.train()
    if arm.run.device.type == 'cpu':
        return _process_peak_bytes() / MIB
    return getattr(torch, arm.run.device.type).max_memory_allocated(arm.run.device) / MIB


def _process_peak_bytes() -> int:
    """The largest resident set that this process ever had."""
    if STATUS.exists():  # getrusage would start from the parent's
        lines = dict(line.split(':', 1) for line in STATUS.read_text().splitlines() if ':' in line)
        return 1024 * int(lines['VmHWM'].split()[0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == 'darwin' else 1024 * peak
