"""One case from options to figures: the two kinds of training take turns, so that a slow minute hits both."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from timm_repaint.benchmark.arms import Arm, Seconds
from timm_repaint.benchmark.cases import Case
from timm_repaint.benchmark.memory import free_memory, peak_memory_mib

REPAINT_EPOCHS, PLAIN_EPOCHS = 150, 50  # Repaint section 4.2


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
    device = arms[True].device.type
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
