"""Parameters and multiply-adds of E, G, D and T."""

from typing import Any

import torch
from timm.utils import unwrap_model
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from timm_repaint.benchmark.arms import Arm
from timm_repaint.networks import discriminator_condition
from timm_repaint.repainter import Repainter


def count_networks(arm: Arm) -> dict[str, dict[str, int]]:
    """Size of every network of a repaint phase.

    Returns:
        For 'E', 'G', 'D' and 'T', as far as they are there: 'parameters', and 'multiply_adds' of one image's forward
        pass (convolutions and matrix products).
    """
    repaint = arm.run.repaint
    assert repaint is not None
    size_hw = arm.run.data_config['input_size'][-2:]
    image = torch.zeros(1, 3, *size_hw, device=arm.device)
    labels = torch.zeros(1, *size_hw, dtype=torch.int64, device=arm.device)
    networks: dict[str, tuple[nn.Module | None, tuple[Any, ...]]] = {}
    repainter, discriminator = repaint.repainter, repaint.discriminator
    if isinstance(repainter, Repainter):
        networks['E'], networks['G'] = _painter_calls(repainter, image, labels)
    if discriminator is not None:
        condition = discriminator_condition(labels, repainter.config['num_labels'])
        networks['D'] = (discriminator, (image, condition))
    classifier = arm.run.task.get_trainable_module()
    assert classifier is not None
    networks['T'] = (unwrap_model(classifier), (image.to(arm.run.precision.model_dtype or image.dtype),))
    return {
        name: {
            'parameters': sum(p.numel() for p in network.parameters()),
            'multiply_adds': _multiply_adds(network, inputs),
        }
        for name, (network, inputs) in networks.items()
        if network is not None
    }


def _painter_calls(repainter: Repainter, image: torch.Tensor, labels: torch.Tensor) -> list[tuple[nn.Module, tuple]]:
    """E and G with the inputs that they get of images [B, 3, H, W] with labels [B, H, W]."""
    calls: list[tuple[nn.Module, tuple]] = []

    def note(module: nn.Module, inputs: tuple) -> None:
        calls.append((module, inputs))

    handles = [part.register_forward_pre_hook(note) for part in (repainter.encoder, repainter.generator)]
    training = repainter.training
    with torch.no_grad():
        repainter.eval()(image, labels)
    repainter.train(training)
    for handle in handles:
        handle.remove()
    return calls


@torch.no_grad()
def _multiply_adds(network: nn.Module, inputs: tuple[Any, ...]) -> int:
    training = network.training
    network.eval()
    with FlopCounterMode(display=False) as counter:
        network.forward(*inputs)  # forward() itself, as torch.compile would hide the operations
    network.train(training)
    return counter.get_total_flops() // 2  # an addition and a multiplication are two operations
