"""The repaint phase's parts from the options, and its last words."""

import argparse
import logging
import shlex
from typing import TYPE_CHECKING, Any

import torch
from timm import utils
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing
from timm.task import TrainingTask
from torch import Tensor

from timm_repaint.baselines.cutout import CutOut
from timm_repaint.engine.data import Loaders
from timm_repaint.errors import UsageError
from timm_repaint.gan_optimizer import GanOptimizer
from timm_repaint.networks.discriminator import Discriminator
from timm_repaint.networks.label_maps import num_condition_channels
from timm_repaint.options.conflicts import resolve_repaint_epochs
from timm_repaint.painters import PAINTERS, AnyRepainter, create_repainter
from timm_repaint.repainter import Repainter
from timm_repaint.task import AfterRepaint, RepaintSettings, RepaintTask
from timm_repaint.task_state import load_repainter

if TYPE_CHECKING:
    from timm_repaint.engine.run import Run

_logger = logging.getLogger('train')
DISCRIMINATOR_MIN_WIDTH = 16


def build_repaint_task(
    task: TrainingTask,
    args: argparse.Namespace,
    data_config: dict[str, Any],
    device: torch.device,
    loaders: Loaders,
) -> RepaintTask:
    """E, G and D with their optimizers around T's task."""
    check_input_size(args, data_config)
    masks: Any = loaders.masks
    num_labels = masks.num_labels
    repainter = load_trained(args, num_labels) if args.repaint_checkpoint else new_repainter(args, num_labels)
    learns = isinstance(repainter, Repainter) and not args.repaint_freeze
    discriminator = None
    if learns:
        layers = 4 if min(_train_sizes(args, data_config)) >= 64 else 3
        width = max(args.repaint_width, DISCRIMINATOR_MIN_WIDTH)
        discriminator = Discriminator(num_condition_channels(num_labels), width, layers).to(device)
    settings = RepaintSettings(
        prob=args.repaint_prob,
        mix=args.repaint_mix,
        split_bn=args.repaint_split_bn,
        gan_loss=args.repaint_gan_loss,
        task_weight=args.repaint_task_weight,
        feat_weight=args.repaint_feat_weight,
        kl_weight=args.repaint_kl_weight,
        segment_kl_weight=args.repaint_segment_kl_weight,
        rec_weight=args.repaint_rec_weight,
    )
    normalization = (torch.tensor(data_config['mean']), torch.tensor(data_config['std']))
    after_repaint = build_after_repaint(args, loaders.mixup_fn, device)
    repaint_task = RepaintTask(task, repainter.to(device), discriminator, settings, normalization, after_repaint)
    if masks.on_device:
        repaint_task.mask_source = masks.to(device)
    if learns:
        repaint_task.optimizers = build_gan_optimizers(repaint_task, args, device)
        repaint_task.resume_optimizers = not args.no_resume_opt
    if utils.is_primary(args):
        counts = [sum(p.numel() for p in m.parameters()) for m in (repainter, discriminator) if m is not None]
        _logger.info('Repaint: parameters of E+G, D: %s.', counts)
    return repaint_task


def new_repainter(args: argparse.Namespace, num_labels: int | None) -> AnyRepainter:
    """The repainter that the options describe, untrained."""
    config: dict[str, Any] = {
        'generator': args.repaint_generator,
        'num_labels': num_labels,
        'detail': args.repaint_detail,
    }
    if args.repaint_generator not in PAINTERS:
        config.update(
            latent=args.repaint_latent,
            latent_dim=args.repaint_latent_dim,
            width=args.repaint_width,
            temperature=args.repaint_temperature,
        )
    return create_repainter(config)


def _train_sizes(args: argparse.Namespace, data_config: dict[str, Any]) -> list[int]:
    return args.train_img_sizes or list(data_config['input_size'][-2:])


def check_input_size(args: argparse.Namespace, data_config: dict[str, Any]) -> None:
    """Refuse what the generator cannot paint, known only when the model has said its input size.

    Raises:
        UsageError: below 32 px, or another number of channels than three.
    """
    channels, sizes = data_config['input_size'][0], _train_sizes(args, data_config)
    if channels != 3:
        raise UsageError(f'--repaint paints RGB images; the model takes {channels} channels')
    if min(sizes) < 32:
        raise UsageError(f'--repaint needs images of at least 32 px, the input is {sizes}; give a larger --img-size')


def load_trained(args: argparse.Namespace, num_labels: int | None) -> AnyRepainter:
    """The generator of another run (`--repaint-checkpoint`).

    Raises:
        UsageError: if its masks are of another kind than this run's.
    """
    repainter = load_repainter(args.repaint_checkpoint)
    if repainter.config['num_labels'] != num_labels:
        raise UsageError(
            f'{args.repaint_checkpoint} was trained on masks with {repainter.config["num_labels"]} classes, --mask '
            f'{args.mask} has {num_labels} (None: segments); use the same --mask'
        )
    return repainter


def build_gan_optimizers(task: RepaintTask, args: argparse.Namespace, device: torch.device) -> dict[str, GanOptimizer]:
    """Adam for E+G and for D, each with a scaler of its own under float16 AMP (timm's scaler updates on every call)."""
    assert task.discriminator is not None
    scaled = args.amp and args.amp_dtype == 'float16' and device.type == 'cuda'

    def create(name: str, module: torch.nn.Module, lr: float) -> GanOptimizer:
        scaler = utils.NativeScaler(device=device.type) if scaled else None
        return GanOptimizer(name, module.parameters(), lr, scaler, args.repaint_max_nonfinite)

    return {
        'generator': create('generator', task.repainter, args.repaint_g_lr),
        'discriminator': create('discriminator', task.discriminator, args.repaint_d_lr),
    }


def build_after_repaint(args: argparse.Namespace, mixup_fn: Mixup | None, device: torch.device) -> AfterRepaint:
    """MixUp, CutMix, random erasing and CutOut on top of the repaint, in timm's order."""
    erasing: Any = None
    if args.reprob > 0 and not args.no_aug:
        erasing = RandomErasing(
            probability=args.reprob,
            mode=args.remode,
            max_count=args.recount,
            num_splits=2 if args.resplit else 0,
            device=device,
        )
    if args.cutout:
        erasing = CutOut(args.cutout, erasing)

    def after_repaint(image_norm: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        if mixup_fn is not None:
            image_norm, target = mixup_fn(image_norm, target)
        return (image_norm if erasing is None else erasing(image_norm)), target

    return after_repaint


def finish_repaint_phase(run: 'Run', completed_epochs: int, fine_tune_command: str) -> None:
    """Say how to go on when all of the phase is done: the fine-tune phase on the original images."""
    done = completed_epochs >= resolve_repaint_epochs(run.args)
    if not done or run.output.folder is None or run.stop_epoch >= run.num_epochs:
        return
    print(
        f'Repaint phase done: epochs 0 to {run.stop_epoch - 1} of {run.num_epochs}. Fine-tune on the originals with\n'
        f'    {fine_tune_command} {shlex.quote(run.output.folder)}',
        flush=True,
    )
