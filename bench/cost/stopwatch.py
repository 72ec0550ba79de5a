"""Whose time it is: S, E+G, D, T, optimizer, data or the rest, in the forward and the backward pass.

A forward pass belongs to the network that is called. A backward pass belongs to the network whose output has got its
gradient last: the engine works from the last operation to the first, so it enters a network by its outputs and leaves
it by its inputs.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakTensorKeyDictionary

from timm_repaint.benchmark.measure import Arm, Batches
from timm_repaint.engine.epoch import synchronize

MASKS, PAINTER, JUDGE, TASK = 'S', 'E+G', 'D', 'T'
OPTIMIZER, DATA, REST = 'optimizer', 'data', 'rest'
PARTS = (MASKS, PAINTER, JUDGE, TASK, OPTIMIZER, DATA, REST)


class Stopwatch:
    """Adds up seconds by part; one part at a time. The device is waited for at every change of part."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.part = REST
        self.owners = WeakTensorKeyDictionary()  # outputs of networks, some of which are another's inputs
        self.start = time.perf_counter()

    def switch(self, part: str) -> str:
        """From now on the time is `part`'s; returns whose it was."""
        synchronize(self.device)
        now, before = time.perf_counter(), self.part
        self.seconds[before] += now - self.start
        self.part, self.start = part, now
        return before

    @property
    def shares(self) -> dict[str, float]:
        """Share of the time of each part, 0..1."""
        total = sum(self.seconds.values())
        return {part: self.seconds[part] / total for part in PARTS}


def time_parts(arm: Arm) -> dict[str, float]:
    """Train on the next batches of a timing; the share of the time of each part, 0..1."""
    repaint, watch = arm.run.repaint, Stopwatch(arm.run.device)
    networks: dict[str, nn.Module | None] = {TASK: arm.run.task}
    optimizers = [arm.run.optimizer]
    if repaint is not None:
        networks |= {PAINTER: repaint.repainter, JUDGE: repaint.discriminator}
        optimizers += [optimizer.adam for optimizer in repaint.optimizers.values()]
    loaders = arm.run.loaders
    masks: Any = loaders.masks
    train = loaders.train
    with ExitStack() as stack:
        handles = [_watch_network(watch, part, network) for part, network in networks.items() if network is not None]
        handles += [_watch_optimizer(watch, optimizer) for optimizer in optimizers]
        for handle in chain.from_iterable(handles):
            stack.callback(handle.remove)
        if masks is not None and masks.on_device:
            masks.labels = _watched_masks(watch, masks.labels)
            stack.callback(delattr, masks, 'labels')  # its class's is there again
        loaders.train = _WatchedBatches(watch, train)
        stack.callback(setattr, loaders, 'train', train)
        arm.train()
    watch.switch(REST)
    return watch.shares


class _WatchedBatches:
    def __init__(self, watch: Stopwatch, batches: Batches) -> None:
        self.watch, self.batches = watch, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.batches)
        for _ in range(len(self)):
            self.watch.switch(DATA)  # the backward pass before it may have left it at a network
            batch = next(batches)
            self.watch.switch(REST)
            yield batch


def _watch_network(watch: Stopwatch, part: str, network: nn.Module) -> list[RemovableHandle]:
    """Time spent in a network's forward pass, and in its backward pass."""
    outer: list[str] = []

    def enter(module: nn.Module, inputs: Any) -> None:
        _on_gradient(watch, REST, inputs)
        outer.append(watch.switch(part))

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        _on_gradient(watch, part, output)
        watch.switch(outer.pop())

    return [network.register_forward_pre_hook(enter), network.register_forward_hook(leave)]


def _on_gradient(watch: Stopwatch, part: str, values: Any) -> None:
    """When one of the tensors has got its gradient, time is `part`'s, unless it is another network's output."""

    def switch(gradient: Tensor) -> None:
        watch.switch(part)

    for value in tree_leaves(values):
        if isinstance(value, Tensor) and value.grad_fn is not None and value not in watch.owners:
            value.register_hook(switch)
            watch.owners[value] = part


def _watch_optimizer(watch: Stopwatch, optimizer: torch.optim.Optimizer) -> list[RemovableHandle]:
    """Time spent in steps of an optimizer; what follows belongs to no network."""

    def enter(*_: Any) -> None:
        watch.switch(OPTIMIZER)

    def leave(*_: Any) -> None:
        watch.switch(REST)

    return [optimizer.register_step_pre_hook(enter), optimizer.register_step_post_hook(leave)]


def _watched_masks(watch: Stopwatch, labels: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Time spent in cutting masks [B, H, W] of images [B, 3, H, W] on the device."""

    def watched(image_pm1: Tensor) -> Tensor:
        before = watch.switch(MASKS)
        try:
            return labels(image_pm1)
        finally:
            watch.switch(before)

    return watched
