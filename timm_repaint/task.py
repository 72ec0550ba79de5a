"""RepaintTask: one batch through E, G, T and D. START HERE.

`image -> S -> labels;  image -> E -> (mu, logvar) -> z;  (labels, z) -> G -> repaint;  repaint -> T and D`

S has already run: the loader's batches carry the label map behind the image (`data/masked.py`). E and G are the
`Repainter`, T is any timm task (classification, distillation), D judges patches. Who learns in which update, the
optimizers' steps and the 2:1 pattern are in `engine/repaint_loop.py`; state and wrappers in `task_state.py`.
Source: Repaint (BMVC 2021), sections 3.1 and 3.2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from timm.task import TrainingTask
from timm.utils import unwrap_model
from torch import Tensor, nn

from timm_repaint.data.masked import split_labels
from timm_repaint.frozen import frozen, untracked
from timm_repaint.losses import (
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
    kl_divergence,
    segment_kl_divergence,
)
from timm_repaint.networks import Posterior
from timm_repaint.networks.discriminator import Features, split_logits
from timm_repaint.networks.label_maps import discriminator_condition
from timm_repaint.painters import AnyRepainter
from timm_repaint.task_state import WrappingTask

AfterRepaint = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Painted(NamedTuple):
    """A batch with repaints of its first K images."""

    image_norm: Tensor  # [B, 3, H, W]
    image_pm1: Tensor  # [K, 3, H, W]
    labels: Tensor  # [K, H, W]
    repaint_pm1: Tensor  # [K, 3, H, W]
    posterior: Any  # None: nothing was encoded


@dataclass(frozen=True)
class RepaintSettings:
    """How batches are made and losses weighed; the help of each `--repaint-…` option says what it does."""

    prob: float = 0.5
    mix: str = 'replace'
    split_bn: bool = False
    gan_loss: str = 'hinge'
    task_weight: float = 1.0
    feat_weight: float = 10.0
    kl_weight: float = 0.05
    segment_kl_weight: float = 1.0
    rec_weight: float = 0.0


class RepaintTask(WrappingTask):
    """A timm task whose training images are repainted by a co-trained generator.

    Args:
        task: T with its loss: a timm training task.
        repainter: E and G.
        discriminator: D; None when the repainter is frozen or has nothing to learn.
        settings: Shares of the batch and weights of the losses.
        normalization: Mean and std of T's images, three values each, for pixels in [0, 1].
        after_repaint: (image_norm, target) -> the same after MixUp, CutMix and random erasing.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        task: TrainingTask,
        repainter: AnyRepainter,
        discriminator: nn.Module | None,
        settings: RepaintSettings,
        normalization: tuple[Tensor, Tensor],
        after_repaint: AfterRepaint,
    ) -> None:
        super().__init__(task, repainter, discriminator)
        self.mask_source: Any = None  # S, where it runs on the device instead of in the loader
        self.settings = settings
        self.after_repaint = after_repaint
        mean, std = (values.float().view(1, 3, 1, 1).to(self.device) for values in normalization)
        self.register_buffer('mean', mean, persistent=False)
        self.register_buffer('std', std, persistent=False)

    def forward(self, batch: Tensor, target: Tensor, painted: Painted | None = None) -> dict[str, Any]:
        """The D+T update's losses: T's on a batch of which a share is repainted, D's on originals and repaints.

        Args:
            batch: [B, 4, H, W]: image_norm, label map; [B, 3, H, W] if S is on the device.
            target: Labels, [B].
            painted: What `paint` made of the batch, where E and G learn from it too.

        Returns:
            'loss' of T, 'images' that T saw, 'discriminator_loss' (without D absent), 'hits_repaint', 'hits_original':
            (hits, images); 'shown', the repaints that T saw, which get T's gradient where E and G want it.
        """
        learning = painted is not None
        image_norm, image_pm1, labels, repaint_pm1, _ = painted or self.paint(batch, learning=False)
        shown_pm1 = finite_or_original(repaint_pm1.detach(), image_pm1)  # [K, 3, H, W]
        shown_pm1.requires_grad_(learning and self.settings.task_weight > 0)
        losses = self._task_losses(image_norm, self.to_norm(shown_pm1, image_norm.dtype), target)
        if self.discriminator is not None:
            real, fake = self._judge_together(image_pm1, repaint_pm1.detach(), labels)
            real_logits, fake_logits = split_logits(real)[0], split_logits(fake)[0]
            losses['discriminator_loss'] = discriminator_loss(real_logits, fake_logits, self.settings.gan_loss)
        return {**losses, 'shown': shown_pm1}

    def paint(self, batch: Tensor, learning: bool) -> Painted:
        """Repaint a batch's share; with `learning` E and G are to get gradients, otherwise nothing of theirs moves."""
        image_norm, image_pm1, labels = self._read(batch)  # [B, 3, H, W], [K, 3, H, W], [K, H, W]
        if learning:
            return Painted(image_norm, image_pm1, labels, *self.repainter(image_pm1, labels))
        with torch.no_grad(), frozen(self.repainter):
            return Painted(image_norm, image_pm1, labels, *unwrap_model(self.repainter)(image_pm1, labels))

    def task_loss(self, painted: Painted, target: Tensor) -> Tensor:
        """T's loss on the repaints alone, for E and G; freeze T around it and its backward pass."""
        if not self.settings.task_weight:
            return painted.repaint_pm1.new_zeros(())
        repaint_norm = self.to_norm(painted.repaint_pm1, painted.image_norm.dtype)
        return self.task(*self.after_repaint(repaint_norm, target[: len(painted.labels)]))['loss']

    def generator_losses(self, painted: Painted, task_loss: Tensor) -> dict[str, Tensor]:
        """The E+G update's losses on the repainted share of a batch; freeze D around it and its backward pass.

        Returns:
            'loss', the weighted sum of its parts 'gan', 'feat', 'kl', 'segment_kl', 'rec' and 'task'.
        """
        _, image_pm1, labels, repaint_pm1, posterior = painted
        judge, condition = unwrap_model(self.discriminator), self._condition(labels)
        with torch.no_grad():
            _, real_features = split_logits(judge(image_pm1, condition))
        fake_logits, fake_features = split_logits(judge(repaint_pm1, condition))
        zero = repaint_pm1.new_zeros(())
        settings = self.settings
        parts = {
            'gan': generator_loss(fake_logits, settings.gan_loss),
            'feat': feature_matching_loss(real_features, fake_features),
            'kl': kl_divergence(posterior.global_mu, posterior.global_logvar),
            'segment_kl': zero if posterior.segment_mu is None else segment_kl(posterior),
            'rec': (repaint_pm1 - image_pm1).abs().mean() if settings.rec_weight else zero,
            'task': task_loss,
        }
        weights = {'gan': 1.0, **{part: getattr(settings, f'{part}_weight') for part in parts if part != 'gan'}}
        return {'loss': sum((weights[part] * parts[part] for part in parts), zero), **parts}

    def _read(self, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The batch's images, and the first K of them for the generator, with their label maps."""
        count = self.num_repaints(len(batch))
        if self.mask_source is None:
            image_norm, labels = split_labels(batch)
            return image_norm, self.to_pm1(image_norm[:count]), labels[:count]
        image_pm1 = self.to_pm1(batch[:count])
        return batch, image_pm1, self.mask_source.labels(image_pm1)

    def num_repaints(self, batch_size: int) -> int:
        """Images of a batch that are repainted: its first ones (the loader has shuffled it), an even number if it can.

        MixUp pairs images, so what T sees must be even too.
        """
        count = round(self.settings.prob * batch_size)
        if batch_size % 2 == 0:
            count -= count % 2
        count = max(count, min(2, batch_size))
        if self.settings.split_bn and self.settings.mix == 'replace':
            count = min(count, max(1, batch_size - 2))  # the running statistics need originals
        return min(count, batch_size)

    def to_pm1(self, image_norm: Tensor) -> Tensor:
        """T's normalised image -> float32 in [-1, 1]."""
        return (image_norm.float() * self.std + self.mean) * 2 - 1

    def to_norm(self, image_pm1: Tensor, dtype: torch.dtype) -> Tensor:
        """Image in [-1, 1] -> T's normalised image in T's number format."""
        return (((image_pm1.float() + 1) / 2 - self.mean) / self.std).to(dtype)

    def _task_losses(self, image_norm: Tensor, repaint_norm: Tensor, target: Tensor) -> dict[str, Any]:
        """T's loss on repaints and originals, and its hits on each."""
        count = len(repaint_norm)
        first_original = 0 if self.settings.mix == 'both' else count
        originals, original_target = image_norm[first_original:], target[first_original:]
        repaint_target = target[:count]
        if self.settings.split_bn:
            # Originals alone move the running statistics; each part is normalised with its own.
            originals, mixed_target = self.after_repaint(originals, original_target)
            result = self.task(originals, mixed_target)
            repaint_norm, mixed_target = self.after_repaint(repaint_norm, repaint_target)
            with untracked(self.task):
                repainted = self.task(repaint_norm, mixed_target)
            images = torch.cat([repaint_norm, originals])
            outputs = (repainted['output'], result['output'])
            loss = (repainted['loss'] * count + result['loss'] * len(originals)) / (count + len(originals))
        else:
            images, mixed_target = self.after_repaint(
                torch.cat([repaint_norm, originals]), torch.cat([repaint_target, original_target])
            )
            result = self.task(images, mixed_target)
            outputs = (result['output'][:count], result['output'][count:])
            loss = result['loss']
        return {
            'loss': loss,
            'images': images.detach(),
            'hits_repaint': count_hits(outputs[0], repaint_target),
            'hits_original': count_hits(outputs[1], original_target),
        }

    def _condition(self, labels: Tensor) -> Tensor:
        return discriminator_condition(labels, unwrap_model(self.repainter).config['num_labels'])

    def _judge_together(
        self, image_pm1: Tensor, repaint_pm1: Tensor, labels: Tensor
    ) -> tuple[list[Features], list[Features]]:
        """D on originals and repaints in one batch, under the same condition: (real, fake) outputs."""
        assert self.discriminator is not None
        condition = self._condition(labels)
        outputs = self.discriminator(torch.cat([image_pm1, repaint_pm1]), torch.cat([condition, condition]))
        real = [[layer.chunk(2)[0] for layer in scale] for scale in outputs]
        fake = [[layer.chunk(2)[1] for layer in scale] for scale in outputs]
        return real, fake


def passed_on(loss: Tensor, shown_pm1: Tensor, repaint_pm1: Tensor, images: int, scale: float = 1.0) -> Tensor:
    """T's loss for E and G, after its backward pass has left its gradient at the repaints: no second pass through T.

    Args:
        loss: Of T, mean over `images` images.
        shown_pm1: What T saw of the repaints, [K, 3, H, W], with its gradient; without one, 0 is returned.
        repaint_pm1: The repaints themselves, [K, 3, H, W].
        images: Originals and repaints that T saw: the gradient is made that of a mean over the K repaints.
        scale: By which the loss was multiplied ahead of the backward pass.

    Returns:
        Scalar with the value of the loss.
    """
    if shown_pm1.grad is None:
        return repaint_pm1.new_zeros(())
    slope = shown_pm1.grad * (images / (len(shown_pm1) * scale))
    change = (repaint_pm1 * slope).sum()
    return loss.detach() + change - change.detach()


def segment_kl(posterior: Posterior) -> Tensor:
    """KL of the segments' latents, a mean over those of all processes once DDP has averaged it over processes.

    The processes' images fall into different numbers of segments.
    """
    mu, logvar, present = posterior[2:]
    assert mu is not None and logvar is not None and present is not None
    loss = segment_kl_divergence(mu, logvar, present)
    if not torch.distributed.is_initialized():
        return loss
    count = present.sum().float()
    total = count.clone()
    torch.distributed.all_reduce(total)
    return loss * (count * torch.distributed.get_world_size() / total.clamp(min=1))


def finite_or_original(repaint_pm1: Tensor, image_pm1: Tensor) -> Tensor:
    """The repaints, but the original for one that is not finite: T, which has no guard, would be lost for good.

    D still sees such a repaint, so its update is skipped and counted.
    """
    finite = repaint_pm1.isfinite().flatten(1).all(dim=1).view(-1, 1, 1, 1)
    return torch.where(finite, repaint_pm1, image_pm1)


@torch.no_grad()
def count_hits(output: Tensor, target: Tensor) -> tuple[Tensor, int]:
    """Hits of the classifier on images of which it was asked for `target`, and their number.

    Under MixUp an image holds two classes; the hit is on its own.
    """
    if output.ndim != 2:  # distillation heads and detectors have other outputs
        return output.new_zeros(()), 0
    return (output.argmax(dim=1) == target).float().sum(), len(target)
