"""Operators, bytes and waits of a training step, plain against --repaint: `python -m bench.count_ops --where`.

Runs train.py's own code on the built-in shapes, plain and with `--repaint`, and looks at the steps of the second round
of the schedule: optimizers have their state by then. A step is what happens between two steps of T's optimizer.

On a CPU every operator is seen as it is dispatched. Views and allocations, which launch nothing on a GPU, are apart,
and so are operators inside `optimizer.step()`, where torch takes other paths on a GPU. A custom operator may hide many
launches, so these are apart too. Compiled code counts as if it were not. On a GPU (`--device cuda`) the profiler is
asked instead: launches, copies, waits, time in kernels and by the clock.
"""

import argparse
import collections
import contextlib
import itertools
import json
import os
import shlex
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import optimizer as torch_optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import timm_repaint
import train

# What launches nothing: views that the schema does not say are views, allocations, metadata.
_FREE = """_record_function_enter _record_function_enter_new _record_function_exit _reshape_alias _unsafe_view detach_
empty empty_like empty_strided is_pinned is_same_size lift_fresh new_empty new_empty_strided positive resize_ set_
squeeze_ t_ transpose_ unsafe_chunk unsafe_split unsqueeze_"""
# For these the host needs a value or a size from the device.
_WAITS = """_local_scalar_dense _unique _unique2 bincount equal histc is_nonzero item masked_select nonzero
repeat_interleave unique_consecutive unique_dim"""
FREE, WAITS = frozenset(_FREE.split()), frozenset(_WAITS.split())
NAMESPACES = ('aten', 'c10d', 'c10d_functional', '_c10d_functional', 'torchvision')
PACKAGE = str(Path(timm_repaint.__file__).parent) + os.sep
# Which part of a step a file's operators belong to; the innermost file that is named counts.
PARTS = {
    'networks/label_maps.py': 'conditions',
    'networks/encoder.py': 'E',
    'networks/generator.py': 'G',
    'networks/discriminator.py': 'D',
    'repainter.py': 'composition',
    'batches.py': 'composition',
    'precision.py': 'composition',
    'repaint.py': 'composition',
    'judging.py': 'losses',
    'losses.py': 'losses',
    'frozen.py': 'buffers',
    'gan_optimizer.py': 'optimizers of E, G and D',
    'guard.py': 'guards',
    'gan_module.py': 'composition',
    'engine/meters.py': 'meters',
    'engine/epoch.py': 'meters',
    'engine/loop.py': 'T',
}
SPECTRAL = ('nn/utils/parametrizations.py', 'networks/spectral.py')
KEYS = ('operators', 'views', 'bytes', 'waits', 'custom', 'in_optimizers')


class OperatorCounter(TorchDispatchMode):
    """Counts operators while it is on; `counts` by `KEYS`, and each name, part (its bytes) and waiting place."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.names: Counter[str] = Counter()
        self.parts: Counter[str] = Counter()
        self.part_bytes: Counter[str] = Counter()
        self.places: Counter[str] = Counter()
        self.in_optimizer = 0  # depth
        self._forward: dict[int, str] = {}  # part by the number of the autograd node

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        part = self._part()
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.split('::')[-1]
        if func.namespace == 'prim':
            return out
        if name in FREE or func.is_view:
            self.counts['views'] += 1
            return out
        if self.in_optimizer:
            self.counts['in_optimizers'] += 1
            return out
        if name in WAITS or (name == 'index' and _has_mask(args[1])):
            self.counts['waits'] += 1
            self.places[f'{name} {_place()}'] += 1
        custom = func.namespace not in NAMESPACES
        self.counts['operators'] += 1
        self.counts['custom'] += custom
        size = sum(t.numel() * t.element_size() for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor))
        self.counts['bytes'] += size
        self.part_bytes[part] += size
        self.names[f'{func.namespace}::{name}' if custom else name] += 1
        self.parts[part] += 1
        return out

    def _part(self) -> str:
        """Of the forward pass by the file that calls; of the backward pass, by the forward pass of the same node."""
        node = torch._C._current_autograd_node()
        if node is not None and node._sequence_nr() in self._forward:
            return f'{self._forward[node._sequence_nr()]}, backward'
        part = _part_of_stack()
        if node is None:
            self._forward[torch._C._autograd._get_sequence_nr() - 1] = part
        return part

    def state(self) -> dict[str, Counter[str]]:
        """A copy of all that was counted so far."""
        return {name: getattr(self, name).copy() for name in ('counts', 'names', 'parts', 'part_bytes', 'places')}


def _frames() -> Iterator[Any]:
    frame = sys._getframe(2)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _part_of_stack() -> str:
    spectral = False
    for frame in _frames():
        path = frame.f_code.co_filename
        spectral = spectral or path.endswith(SPECTRAL)
        if path.startswith(PACKAGE) and path.removeprefix(PACKAGE) in PARTS:
            part = PARTS[path.removeprefix(PACKAGE)]
            if spectral:
                return 'spectral norm'
            return part
    return 'other'


def _place() -> str:
    """The innermost line outside torch."""
    for frame in _frames():
        path = frame.f_code.co_filename
        if f'{os.sep}torch{os.sep}' not in path and path != __file__:
            return f'{os.path.relpath(path)}:{frame.f_lineno}'
    return '?'


def _has_mask(indices: Any) -> bool:
    return any(isinstance(index, Tensor) and index.dtype == torch.bool for index in tree_leaves(indices))


class LaunchCounter:
    """The same of a GPU, by its runtime: torch's profiler around the steps that count."""

    def __init__(self) -> None:
        from torch.profiler import ProfilerActivity, profile

        self.profile = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])
        self.seconds = 0.0

    def start(self) -> None:
        torch.cuda.synchronize()
        self.profile.start()
        self.seconds = -time.perf_counter()

    def stop(self) -> None:
        torch.cuda.synchronize()
        self.seconds += time.perf_counter()
        self.profile.stop()

    def result(self, steps: int) -> dict[str, Any]:
        events = self.profile.key_averages()
        count = {
            name: sum(event.count for event in events if event.key.startswith(prefixes)) / steps
            for name, prefixes in {
                'operators': ('cudaLaunchKernel', 'cuLaunchKernel'),
                'graphs': ('cudaGraphLaunch',),
                'copies': ('cudaMemcpy',),
                'waits': ('cudaStreamSynchronize', 'cudaDeviceSynchronize', 'cudaEventSynchronize'),
            }.items()
        }
        count['waits'] -= 1 / steps  # that of `stop`
        on_device = [event for event in events if event.device_type == torch.autograd.DeviceType.CUDA]
        kernels = [event for event in on_device if not event.is_user_annotation]  # such as "Optimizer.step#..."
        kernels.sort(key=lambda event: -event.self_device_time_total)
        table = {event.key[:120]: event.self_device_time_total / steps / 1e3 for event in kernels[:30]}
        kernel_ms = sum(event.self_device_time_total for event in kernels) / steps / 1e3
        return {**count, 'kernel_ms': kernel_ms, 'clock_ms': 1e3 * self.seconds / steps, 'ms_by_kernel': table}


@contextlib.contextmanager
def after_steps(before: Callable[..., None], after: Callable[..., None]) -> Iterator[None]:
    """Inside, calls these around each step of any optimizer."""
    handles = [
        torch_optimizer.register_optimizer_step_pre_hook(before),
        torch_optimizer.register_optimizer_step_post_hook(after),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def run_train(options: list[str]) -> None:
    """train.py with these options in this process; what it prints goes to stderr."""
    argv, sys.argv = sys.argv, ['train.py', *options]
    try:
        with contextlib.redirect_stdout(sys.stderr):
            train.main()
    finally:
        sys.argv = argv


def num_weights(optimizer: torch.optim.Optimizer) -> int:
    return sum(p.numel() for group in optimizer.param_groups for p in group['params'])


def count_on_cpu(options: list[str], end: int, steps: int) -> dict[str, Any]:
    """Means a step over the `steps` ones up to step `end` of T's optimizer, the one with most weights."""
    counter = OperatorCounter()
    states: dict[int, list[dict[str, Counter[str]]]] = collections.defaultdict(list)
    sizes: dict[int, int] = {}

    def before(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        counter.in_optimizer += 1

    def after(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        counter.in_optimizer -= 1
        sizes[id(optimizer)] = num_weights(optimizer)
        states[id(optimizer)].append(counter.state())

    with after_steps(before, after), counter:
        run_train(options)
    marks = states[max(sizes, key=lambda key: sizes[key])][end - steps : end + 1]
    first, last = marks[0], marks[-1]
    found: dict[str, Any] = {key: (last['counts'][key] - first['counts'][key]) / steps for key in KEYS}
    found['each_step'] = [
        {key: b['counts'][key] - a['counts'][key] for key in ('operators', 'waits')}
        for a, b in itertools.pairwise(marks)
    ]
    for name, most in (('parts', None), ('part_bytes', None), ('names', 15), ('places', None)):
        found[name] = {key: n / steps for key, n in (last[name] - first[name]).most_common(most)}
    return found


def count_on_gpu(options: list[str], end: int, steps: int) -> dict[str, Any]:
    """The same by the profiler."""
    counter, done, sizes = LaunchCounter(), Counter[int](), dict[int, int]()

    def after(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        sizes[id(optimizer)] = num_weights(optimizer)
        done[id(optimizer)] += 1
        if id(optimizer) == max(sizes, key=lambda key: sizes[key]):
            if done[id(optimizer)] == 1 + end - steps:
                counter.start()
            elif done[id(optimizer)] == 1 + end:
                counter.stop()

    with after_steps(lambda *_: None, after):
        run_train(options)
    return counter.result(steps)


def count(args: argparse.Namespace) -> dict[str, Any]:
    """Figures of plain training and of repaint, their ratios, and what repaint adds."""
    period = sum(int(part) for part in args.schedule.split(':'))
    on_cpu = args.device == 'cpu'
    end = (2 if on_cpu else 3) * period
    found: dict[str, Any] = {}
    for kind in ('plain', 'repaint'):
        with tempfile.TemporaryDirectory() as folder:
            options = shlex.split(
                f'--dataset shapes --model {args.model} -b {args.batch} --img-size {args.img_size} --epochs 1 '
                f'--warmup-epochs 0 --train-num-samples {(1 + end) * args.batch} --val-num-samples {args.batch} '
                f'--val-split "" --workers 1 --log-interval 100000 --device {args.device} --output {folder} '
                f'--experiment {kind} {args.options}'
            )
            if kind == 'repaint':
                options += shlex.split(
                    f'--repaint --repaint-epochs 1 --repaint-schedule {args.schedule} --repaint-gallery-interval 0 '
                    f'{args.repaint_options}'
                )
            found[kind] = (count_on_cpu if on_cpu else count_on_gpu)(options, end, 1 if args.last_step else period)
    plain, repaint = found['plain'], found['repaint']
    numbers = [key for key, value in plain.items() if isinstance(value, (int, float))]
    found['ratio'] = {key: repaint[key] / plain[key] for key in numbers if plain[key]}
    found['added'] = {key: repaint[key] - plain[key] for key in numbers}
    found['settings'] = {**vars(args), 'torch': torch.__version__}
    return found


def table(found: dict[str, Any], where: bool) -> str:
    """The figures as text; with `where` those of each part of a step too."""
    rows = [('a step, on average', 'plain', 'repaint', 'added', 'ratio')]
    for key in found['added']:
        values = (found['plain'][key], found['repaint'][key], found['added'][key])
        ratio = f'{found["ratio"][key]:.3f}' if key in found['ratio'] else ''
        rows.append((key, *(f'{value:,.1f}' for value in values), ratio))
    if where and 'parts' in found['repaint']:
        rows += [('',) * 5, ('operators of', 'plain', 'repaint', 'added', 'added MB')]
        for part, value in found['repaint']['parts'].items():
            plain = found['plain']['parts'].get(part, 0)
            size = found['repaint']['part_bytes'][part] - found['plain']['part_bytes'].get(part, 0)
            rows.append((part, f'{plain:,.1f}', f'{value:,.1f}', f'{value - plain:,.1f}', f'{size / 1e6:,.1f}'))
    return '\n'.join(f'{row[0]:40}' + ''.join(f'{cell:>16}' for cell in row[1:]) for row in rows)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog='python -m bench.count_ops'
    )
    parser.add_argument('--model', default='resnet50')
    parser.add_argument('--batch', type=int, default=2)
    parser.add_argument('--img-size', type=int, default=64)
    parser.add_argument('--options', default='', help="more of train.py's, for both kinds of training")
    parser.add_argument('--repaint-options', default='--mask outlines', help='more for repaint')
    parser.add_argument('--schedule', default='2:1')
    parser.add_argument('--last-step', action='store_true', help="of each round alone: E and G's")
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--where', action='store_true', help='operators of each part of a step')
    parser.add_argument('--output', metavar='FILE', help='JSON file for all figures')
    return parser


def main() -> None:
    """The command."""
    args = build_parser().parse_args()
    found = count(args)
    if args.output:
        Path(args.output).write_text(json.dumps(found, indent=1) + '\n')
    print(table(found, args.where))


if __name__ == '__main__':
    main()
