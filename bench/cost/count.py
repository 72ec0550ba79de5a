"""Parameters and multiply-adds of E, G, D and T."""

from typing import Any

import torch
from timm.utils import unwrap_model
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from timm_repaint.benchmark.measure import Arm
from timm_repaint.monitor.probe import evaluating
from timm_repaint.networks.label_maps import discriminator_condition
from timm_repaint.repainter import Repainter


def count_networks(arm: Arm) -> dict[str, dict[str, int]]:
    """Size of every network of a repaint phase.

    Returns:
        For 'E', 'G', 'D' and 'T', as far as they are there: 'parameters', and 'multiply_adds' of one image's forward
        pass (convolutions and matrix products).
    """
    repaint, classifier = arm.run.repaint, arm.run.task.get_trainable_module()
    assert repaint is not None and classifier is not None
    size_hw = arm.run.data_config['input_size'][-2:]
    image = torch.zeros(1, 3, *size_hw, device=arm.run.device)
    labels = torch.zeros(1, *size_hw, dtype=torch.int64, device=arm.run.device)
    repainter, discriminator = repaint.repainter, repaint.discriminator
    networks: dict[str, tuple[nn.Module, int]] = {}
    if isinstance(repainter, Repainter):
        parts = {'E': repainter.encoder, 'G': repainter.generator}
        networks |= {name: (part, _multiply_adds(repainter, (image, labels), part)) for name, part in parts.items()}
    if discriminator is not None:
        condition = discriminator_condition(labels, repainter.config['num_labels'])
        networks['D'] = (discriminator, _multiply_adds(discriminator, (image, condition)))
    task = unwrap_model(classifier)
    networks['T'] = (task, _multiply_adds(task, (image.to(arm.run.precision.model_dtype or image.dtype),)))
    return {
        name: {'parameters': sum(p.numel() for p in network.parameters()), 'multiply_adds': count}
        for name, (network, count) in networks.items()
    }


def _multiply_adds(network: nn.Module, inputs: tuple[Any, ...], part: nn.Module | None = None) -> int:
    """Those of a forward pass, or of a part of the network in it."""
    with evaluating(network), FlopCounterMode(display=False) as counter:
        network.forward(*inputs)  # forward() itself, as torch.compile would hide the operations
    operations = counter.get_total_flops()
    if part is not None:
        operations = sum(counter.get_flop_counts()[type(part).__name__].values())
    return operations // 2  # an addition and a multiplication are two operations
