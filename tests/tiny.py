"""A tiny Repaint and classifier of real parts, batches with label maps for them, and what changed in a network."""

import argparse
from typing import Any

import torch
from timm.models import create_model
from timm.task import ClassificationTask, TrainingTask
from torch import Tensor, nn

from timm_repaint import Repaint

NUM_CLASSES = 4
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def tiny_classifier() -> nn.Module:
    """A timm model with batch norms, 4 classes, for pictures of 32 px."""
    return create_model('test_resnet', num_classes=NUM_CLASSES, zero_init_last=False)  # all weights get gradients


def tiny_repaint(**options: Any) -> Repaint:
    """S from the batch, E, G and D of real kinds and small widths, for images of 32 px, in training mode."""
    defaults: dict[str, Any] = {'masks': None, 'width': 4, 'img_size': 32}
    return Repaint(MEAN, STD, **{**defaults, **options}).train()


def tiny_task() -> TrainingTask:
    """T: timm's classification task around a tiny classifier, in training mode."""
    return ClassificationTask(tiny_classifier(), verbose=False).train()


def paints_next(repaint: Repaint) -> Repaint:
    """The same, at an update in which E and G learn."""
    repaint.updates = repaint.config.schedule[0]
    return repaint


def learn(repaint: Repaint, model: nn.Module, batch: Tensor, target: Tensor, **step: Any) -> Any:
    """One batch through the three lines of a loop of one's own; the step's metrics."""
    images, wanted = repaint(batch, target)
    nn.functional.cross_entropy(model(images), wanted).backward()
    return repaint.step(**step)


def tiny_batch(batch_size: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """[B, 4, 32, 32] of four flat quadrants with noise and their label maps, and targets."""
    draw = torch.Generator().manual_seed(seed)
    corners = torch.randn(batch_size, 3, 2, 2, generator=draw).repeat_interleave(16, 2).repeat_interleave(16, 3)
    image_norm = corners + 0.1 * torch.randn(batch_size, 3, 32, 32, generator=draw)
    ids = torch.tensor([[1.0, 2.0], [3.0, 200.0]]).repeat_interleave(16, 0).repeat_interleave(16, 1)
    labels = ids.expand(batch_size, 1, 32, 32)
    target = torch.randint(NUM_CLASSES, (batch_size,), generator=draw)
    return torch.cat([image_norm, labels], dim=1), target


def loop_args(**options: Any) -> argparse.Namespace:
    """The options that the loops read, at their defaults on one process."""
    defaults = {
        'distributed': False,
        'clip_grad': None,
        'clip_mode': 'norm',
        'grad_accum_steps': 1,
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
        'variable_batch_loss_scale': 'none',
        'naflex_loader': False,
    }
    return argparse.Namespace(**{**defaults, **options})


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters and buffers."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def changed(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    """Names of the parameters and buffers that differ from the snapshot in any bit (nan equals nan)."""
    now = module.state_dict()
    return {name for name in now if not torch.equal(now[name].nan_to_num(12345.0), before[name].nan_to_num(12345.0))}


def parts(repaint: Repaint) -> dict[str, nn.Module]:
    """E, G and D."""
    return {'E': repaint.repainter.encoder, 'G': repaint.repainter.generator, 'D': repaint.discriminator}


def adam_steps(repaint: Repaint) -> tuple[int, int]:
    """Updates that were made of D, and of E and G."""
    return tuple(int(repaint.optimizers[name].tensors[0]) for name in ('discriminator', 'generator'))


def overflow_once(repaint: Repaint) -> None:
    """G's features are nan in the next forward pass, as when float16 overflows."""
    handles = []

    def spoil(module, inputs, output):
        handles[0].remove()
        return output * float('nan')

    handles.append(repaint.repainter.generator.seed_condition.register_forward_hook(spoil))
