"""The repaint phase's parts from the options."""

from argparse import Namespace
from typing import Any

import torch
from timm.data.random_erasing import RandomErasing

from timm_repaint.baselines.cutout import CutOut
from timm_repaint.config import DEFAULTS, RepaintConfig, without_idle
from timm_repaint.engine.loaders import Loaders
from timm_repaint.engine.parts import Erasing
from timm_repaint.errors import UsageError
from timm_repaint.log import logger
from timm_repaint.options.conflicts import parse_schedule
from timm_repaint.options.repaint_options import repaint_fields
from timm_repaint.repaint import Repaint


def build_repaint(args: Namespace, data_config: dict[str, Any], loaders: Loaders, device: torch.device) -> Repaint:
    """S, E, G and D as the options describe them, on their device."""
    check_input_size(args, data_config)
    repaint = Repaint.from_config(repaint_config(args, data_config, loaders.masks)).to(device)
    networks = {'E+G': repaint.repainter, 'D': repaint.discriminator}
    sizes = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items() if network}
    words = [f'{name} {size:,} parameters' for name, size in sizes.items() if size]
    logger.info('Repaint: %s.', ', '.join(words) or f'{args.repaint_generator}, without a network')
    return repaint


def repaint_config(args: Namespace, data_config: dict[str, Any], masks: Any) -> RepaintConfig:
    """The `--repaint-…` options as a config; label maps come with the images, or from a network on the device."""
    values = {name: value for name, value in vars(repaint_fields(args)).items() if name in DEFAULTS}
    values |= {
        'masks': masks if masks.on_device else None,
        'num_labels': masks.num_labels,
        'img_size': min(_train_sizes(args, data_config)),
        'checkpoint': args.repaint_checkpoint or None,
        'schedule': parse_schedule(args.repaint_schedule),
    }
    config = RepaintConfig(tuple(data_config['mean']), tuple(data_config['std']), **values)
    return without_idle(config)  # `warn_of_idle` has told of them


def _train_sizes(args: Namespace, data_config: dict[str, Any]) -> list[int]:
    return args.train_img_sizes or list(data_config['input_size'][-2:])


def check_input_size(args: Namespace, data_config: dict[str, Any]) -> None:
    """Refuse what the generator cannot paint, known only when the model has said its input size.

    Raises:
        UsageError: below 32 px, or another number of channels than three.
    """
    channels, sizes = data_config['input_size'][0], _train_sizes(args, data_config)
    if channels != 3:
        raise UsageError(f'--repaint paints RGB images; the model takes {channels} channels')
    if min(sizes) < 32:
        raise UsageError(f'--repaint needs images of at least 32 px, the input is {sizes}; give a larger --img-size')


def build_erasing(args: Namespace, device: torch.device) -> Erasing | None:
    """Random erasing and CutOut, which with `--repaint` wait for the repaint instead of acting in the loader."""
    erasing: Any = None
    if args.reprob > 0 and not args.no_aug:
        splits, most = 2 if args.resplit else 0, args.recount
        erasing = RandomErasing(args.reprob, mode=args.remode, max_count=most, num_splits=splits, device=device)
    return CutOut(args.cutout, erasing) if args.cutout else erasing
