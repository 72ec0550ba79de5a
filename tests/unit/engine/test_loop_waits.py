"""The host waits for nothing in a training step."""

import traceback
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.tiny import (
    overflow_once,
    tiny_batch,
    tiny_repaint,
    tiny_task,
)
from tests.unit.engine.test_loop import CPU, PACKAGE, run_epochs
from timm_repaint.engine.task_guard import TaskGuard

pytestmark = pytest.mark.usefixtures('seeded')


class ReadsOfTheHost(TorchDispatchMode):
    """Notes from which files of the package tensors' values are read, for which the host has to wait for a GPU."""

    OPERATIONS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)

    def __init__(self):
        super().__init__()
        self.files = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in self.OPERATIONS:
            self.note()
        return func(*args, **(kwargs or {}))

    def note(self):
        paths = [Path(frame.filename) for frame in traceback.extract_stack()]
        self.files.add([path.name for path in paths if path.is_relative_to(PACKAGE)][-1])

    def take(self):
        files, self.files = self.files, set()
        return files


class CopiesToTheHost(TorchFunctionMode):
    """Notes the same of calls that bring whole tensors to the host."""

    CALLS = (torch.Tensor.tolist, torch.Tensor.cpu, torch.Tensor.item, torch.Tensor.__bool__)

    def __init__(self, reads):
        super().__init__()
        self.reads = reads

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in self.CALLS:
            self.reads.note()
        return func(*args, **(kwargs or {}))


KINDS = {
    'batches for all': {},
    'batches apart': {'separate_batches': True},
    'originals too': {'mix': 'both'},
    'accumulation': {'grad_accum_steps': 2},
    'float16': {'float16': True},
    'overflow': {'overflow': True},
}


@pytest.mark.parametrize('options', KINDS.values(), ids=KINDS)
def test_the_host_reads_nothing_but_the_range_of_the_first_batch(options):
    options, batches, given = dict(options), 9, {}
    accumulation = options.pop('grad_accum_steps', 1)
    if options.pop('float16', False):
        given['amp_autocast'] = partial(torch.autocast, 'cpu', dtype=torch.float16)
    overflows, task = options.pop('overflow', False), tiny_task()
    repaint, reads, seen = tiny_repaint(**options), ReadsOfTheHost(), []
    TaskGuard(task, 20, CPU)

    def look(number):
        seen.append(reads.take())
        if overflows and number in (3, 5):  # of D and T's update, and of everybody's
            overflow_once(repaint)

    with reads, CopiesToTheHost(reads):
        run_epochs(
            task, repaint, batches, size=2, look=look, given=given, log_interval=1000, grad_accum_steps=accumulation
        )
    # Values of a log line are read at the first and at the last update of an epoch.
    logs = {1, 9} if accumulation == 1 else {2, 9}
    assert seen[1] - ({'epoch.py'} if 1 in logs else set()) == {'batches.py'}
    assert [seen[number] for number in range(2, 10) if number not in logs] == [set()] * (9 - len(logs | {1}))
    assert seen[9] == {'epoch.py'}
    assert repaint.skipped['discriminator'] == (2 if overflows else 0)


def test_reads_of_the_host_are_seen():
    """The test above can fail."""
    repaint, reads = tiny_repaint(), ReadsOfTheHost()
    for look in (lambda: repaint.skipped, repaint.state_dict, lambda: tiny_repaint()(*tiny_batch())):
        with reads, CopiesToTheHost(reads):
            look()
    assert reads.take() == {'guard.py', 'batches.py'}
