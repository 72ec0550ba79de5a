"""Peak memory of one kind of training, in a process of its own: what a process once had, its peak keeps."""

import gc
import multiprocessing
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from timm_repaint.benchmark.arms import Arm
from timm_repaint.benchmark.cases import Case

STATUS = Path('/proc/self/status')
MIB = 2**20


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
    if arm.device.type == 'cpu':
        return _process_peak_bytes() / MIB
    return getattr(torch, arm.device.type).max_memory_allocated(arm.device) / MIB


def _process_peak_bytes() -> int:
    """The largest resident set that this process ever had."""
    if STATUS.exists():  # getrusage would start from the parent's
        lines = dict(line.split(':', 1) for line in STATUS.read_text().splitlines() if ':' in line)
        return 1024 * int(lines['VmHWM'].split()[0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == 'darwin' else 1024 * peak
