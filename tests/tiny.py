"""A tiny repaint task of real parts, batches with label maps for it, and what changed in a network."""

import argparse
from typing import Any

import torch
from timm.models import create_model
from timm.task import ClassificationTask, TrainingTask
from torch import Tensor, nn

from timm_repaint.engine.epoch import Micro
from timm_repaint.gan_optimizer import GanOptimizer
from timm_repaint.networks import Discriminator, num_condition_channels
from timm_repaint.repainter import Repainter
from timm_repaint.task import AfterRepaint, RepaintSettings, RepaintTask

NUM_CLASSES = 4
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def tiny_classifier() -> nn.Module:
    """A timm model with batch norms, 4 classes, for pictures of 32 px."""
    return create_model('test_resnet', num_classes=NUM_CLASSES, zero_init_last=False)  # all weights get gradients


def tiny_task(
    inner: TrainingTask | None = None, after_repaint: AfterRepaint | None = None, width: int = 4, **settings: Any
) -> RepaintTask:
    """All networks of real kinds and small widths, with the GAN's optimizers, in training mode."""
    repainter = Repainter(width=width)
    discriminator = Discriminator(num_condition_channels(None), 4, num_layers=3)
    task = RepaintTask(
        inner or ClassificationTask(tiny_classifier(), verbose=False),
        repainter,
        discriminator,
        RepaintSettings(**settings),
        (torch.tensor(MEAN), torch.tensor(STD)),
        after_repaint or (lambda image_norm, target: (image_norm, target)),
    )
    task.optimizers = {
        'generator': GanOptimizer('generator', repainter.parameters(), 1e-3),
        'discriminator': GanOptimizer('discriminator', discriminator.parameters(), 2e-3),
    }
    return task.train()


def generator_losses(task: RepaintTask, batch: Tensor, target: Tensor) -> dict[str, Tensor]:
    """E+G's losses on a batch from which T does not learn."""
    painted = task.paint(batch, learning=True)
    return task.generator_losses(painted, task.task_loss(painted, target))


def tiny_batch(batch_size: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """[B, 4, 32, 32] of four flat quadrants with noise and their label maps, and targets."""
    draw = torch.Generator().manual_seed(seed)
    corners = torch.randn(batch_size, 3, 2, 2, generator=draw).repeat_interleave(16, 2).repeat_interleave(16, 3)
    image_norm = corners + 0.1 * torch.randn(batch_size, 3, 32, 32, generator=draw)
    ids = torch.tensor([[1.0, 2.0], [3.0, 200.0]]).repeat_interleave(16, 0).repeat_interleave(16, 1)
    labels = ids.expand(batch_size, 1, 32, 32)
    target = torch.randint(NUM_CLASSES, (batch_size,), generator=draw)
    return torch.cat([image_norm, labels], dim=1), target


def one_update(accum_steps: int = 1, need_update: bool = True) -> Micro:
    """A batch's place where only the accumulation matters."""
    return Micro(None, 0, 0, accum_steps, need_update, need_update)


def loop_args(**options: Any) -> argparse.Namespace:
    """The options that the loops read, at their defaults on one process."""
    defaults = {
        'distributed': False,
        'clip_grad': None,
        'clip_mode': 'norm',
        'grad_accum_steps': 1,
        'repaint_schedule': '2:1',
        'repaint_separate_batches': True,
        'no_prefetcher': False,
        'channels_last': False,
        'world_size': 1,
        'rank': 0,
        'local_rank': 0,
        'log_interval': 50,
        'save_images': False,
        'recovery_interval': 0,
        'synchronize_step': False,
        'mixup_off_epoch': 0,
        'cutout': 0,
    }
    return argparse.Namespace(**{**defaults, **options})


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters and buffers."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def changed(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    """Names of the parameters and buffers that differ from the snapshot in any bit (nan equals nan)."""
    now = module.state_dict()
    return {name for name in now if not torch.equal(now[name].nan_to_num(12345.0), before[name].nan_to_num(12345.0))}


def parts(task):
    return {'T': task.task, 'E': task.repainter.encoder, 'G': task.repainter.generator, 'D': task.discriminator}


def sgd(task):
    return torch.optim.SGD(task.task.parameters(), lr=0.05)


def overflow_once(task):
    """G's features are nan in the next forward pass, as when float16 overflows."""
    handles = []

    def spoil(module, inputs, output):
        handles[0].remove()
        return output * float('nan')

    handles.append(task.repainter.generator.seed_condition.register_forward_hook(spoil))
