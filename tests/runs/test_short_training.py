"""The whole, on photographs: a short training, and what its repaints are like."""

import copy

import numpy as np
import torch
from PIL import Image

from tests.tiny import MEAN, NUM_CLASSES, STD, loop_args, tiny_repaint, tiny_task
from timm_repaint.batches import split_labels
from timm_repaint.engine.loop import train_one_epoch
from timm_repaint.frozen import frozen
from timm_repaint.losses import feature_matching_loss
from timm_repaint.masks.felzenszwalb import FelzenszwalbMasks
from timm_repaint.networks.discriminator import split_logits
from timm_repaint.networks.label_maps import discriminator_condition

CPU = torch.device('cpu')


def photographs(shared_data, count=8):
    """Batch [B, 4, 32, 32] of CIFAR-10 photographs, one a class, with their Felzenszwalb-Huttenlocher maps."""
    folders = sorted((shared_data / 'cifar10' / 'train').iterdir())[:count]
    images_u8 = [np.asarray(Image.open(sorted(folder.iterdir())[0]).convert('RGB')) for folder in folders]
    labels = torch.from_numpy(np.stack([FelzenszwalbMasks()(image) for image in images_u8]).astype(np.int64))
    pixels = torch.from_numpy(np.stack(images_u8)).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return torch.cat([(pixels - mean) / std, labels[:, None].float()], dim=1)


def test_a_short_training_brings_repaints_closer_that_differ_and_keep_the_masks_edges(shared_data):
    batch, target = photographs(shared_data), torch.arange(8) % NUM_CLASSES
    image_norm, labels = split_labels(batch, None)
    torch.manual_seed(0)
    # 100 updates of E+G: after 30 some seeds have hardly begun.
    task, repaint = tiny_task(), tiny_repaint(prob=1.0, width=16, schedule=(1, 2), separate_batches=True)
    optimizer = torch.optim.SGD(task.parameters(), lr=0.05)
    image_pm1, start = repaint.to_pm1(image_norm), copy.deepcopy(repaint.repainter)
    for epoch in range(5):
        train_one_epoch(epoch, task, [(batch, target)] * 30, optimizer, loop_args(), task, CPU, repaint=repaint)

    def distances(repainter):
        """Feature matching loss under the D of the end (while D learns, its features move too), and pixel distance."""
        with torch.no_grad(), frozen(repaint.discriminator, repainter):
            repaint_pm1 = repainter(image_pm1, labels).image_pm1
            condition = discriminator_condition(labels, None)
            real, fake = (split_logits(repaint.discriminator(each, condition))[1] for each in (image_pm1, repaint_pm1))
            return feature_matching_loss(real, fake).item(), (repaint_pm1 - image_pm1).abs().mean().item()

    (feat_start, pixels_start), (feat_end, pixels_end) = distances(start), distances(repaint.repainter)
    assert feat_end < 0.75 * feat_start
    assert pixels_end < 0.75 * pixels_start
    with torch.no_grad():
        one, other = (repaint.repainter(image_pm1, labels).image_pm1 for _ in range(2))
    assert (one - other).abs().mean() > 0.02
    across, within = [], []
    for step, edge in ((one.diff(dim=3), labels.diff(dim=2) != 0), (one.diff(dim=2), labels.diff(dim=1) != 0)):
        size = step.abs().mean(dim=1)  # [B, H, W - 1] or [B, H - 1, W]
        across.append(size[edge])
        within.append(size[~edge])
    assert torch.cat(across).mean() > 1.5 * torch.cat(within).mean()
