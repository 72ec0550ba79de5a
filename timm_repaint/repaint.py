"""Repaint: all of the method as one module in front of a network. START HERE.

`image -> S -> labels;  image -> E -> (mu, logvar) -> z;  (labels, z) -> G -> repaint;  repaint -> T (task loss), D`

    repaint = Repaint(mean, std)                         # S, E, G, D and their optimizers
    for images, target in loader:
        loss = criterion(model(repaint(images)), target)
        loss.backward()                                  # leaves T's gradient at the repaints
        repaint.step()                                   # D learns; E and G too, at every third call
        optimizer.step(); optimizer.zero_grad()
    repaint.stop()                                       # the last quarter: images pass unchanged

E and G need nothing of T but the gradient that its backward pass leaves at the repaints, so T is any network.
Source: Repaint (BMVC 2021), sections 3.1 and 3.2.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from timm_repaint import batches
from timm_repaint.config import DEFAULTS, RepaintConfig, idle_beside, plain_numbers
from timm_repaint.errors import UsageError
from timm_repaint.frozen import copy_buffers, frozen, keep_finite, learning
from timm_repaint.gan_module import GanModule
from timm_repaint.judging import Painted, StepMetrics, d_loss, generator_losses, judge, task_slope, weighted_sum
from timm_repaint.log import logger
from timm_repaint.losses import js_divergence
from timm_repaint.masks.source import Labeller
from timm_repaint.networks.discriminator import create_discriminator
from timm_repaint.networks.label_maps import num_condition_channels
from timm_repaint.option import takes
from timm_repaint.painters import create_repainter
from timm_repaint.precision import autocast_state, call_cast_once, is_finite, working_dtype
from timm_repaint.repainter import Repainted, Repainter
from timm_repaint.saved import load_networks


class Repaint(GanModule):
    """Repaints a share of a batch, and learns to: S, E, G and D in front of any network T.

    Outside its own `forward` and `step` its parameters have `requires_grad=False` and no `.grad`: wrappers, optimizers,
    clipping and weight averages of the network behind it leave them alone. `nn.Sequential(repaint, model)` is the
    network with the generator ahead of it. Several processes take the same number of steps.

    Args:
        mean: Mean of T's images a channel, for pixels in [0, 1].
        std: Standard deviation of T's images a channel, for pixels in [0, 1].
        options: The other fields of `RepaintConfig`.

    Attributes:
        repainter: E and G, or a painter without a network.
        discriminator: D; None where nothing learns.

    Raises:
        ValueError: if an option is out of its limits.
        UsageError: a ValueError; if the checkpoint cannot be used.
    """

    @takes(RepaintConfig)
    def __init__(self, mean: Sequence[float], std: Sequence[float], **options: Any) -> None:
        config = RepaintConfig(plain_numbers(mean), plain_numbers(std), **options)
        name, names = idle_beside(config)
        if unused := [one for one in names if getattr(config, one) != DEFAULTS[one]]:
            logger.warning('With %s=%r these options do nothing: %s', name, getattr(config, name), ', '.join(unused))
        labeller = Labeller(config.masks, config.num_labels)
        networks = {**config.networks, 'num_labels': labeller.num_labels}
        repainter = load_networks(config.checkpoint, networks) if config.checkpoint else create_repainter(networks)
        discriminator = None
        if isinstance(repainter, Repainter) and not config.freeze:
            width = repainter.config['width']
            discriminator = create_discriminator(num_condition_channels(labeller.num_labels), width, config.img_size)
        for network in (repainter, discriminator):
            if network is not None:
                network.float()  # whatever torch's default type is
        super().__init__(config, repainter, discriminator)
        self._labeller = labeller
        self._begun = self._asked = self._told_no_grad = self._told_consistency = False
        self._owes_consistency = False  # whether `consistency` was not called for the latest batch
        self._painted: Painted | None = None
        self._bad_task: Tensor | None = None  # whether T's gradient was not finite in the update so far
        self._seen, self._repainted = 0, 0  # images of the latest batch returned; repaints among them, its first ones
        self._device = torch.device('cpu')

    @classmethod
    def from_config(cls, config: RepaintConfig) -> 'Repaint':
        """The same from a config object."""
        return cls(**vars(config))

    # One batch --------------------------------------------------------------------------------------------------------

    @torch.compiler.disable
    def forward(self, images: Tensor, target: Any = None, *, labels: Tensor | None = None) -> Any:
        """Repaint a share of a batch, its first images; pass it on unchanged in evaluation and after `stop()`.

        Args:
            images: [B, 3, H, W], normalised with mean and std; or [B, 4, H, W] with the label maps as fourth channel.
            target: The images' targets: a tensor, a tuple or dict of tensors with the batch first, or a list of an
                entry an image. Needed with `mix='both'` and with separate batches, which change the batch.
            labels: Label maps, [B, H, W] whole numbers: segment ids of any value, or class ids (255 = unknown). Without
                them the mask source cuts them here.

        Returns:
            [N, 3, H, W] of the images' dtype, device and memory format, a fresh tensor where it repaints; with a
            target, that tensor and the targets of its N images. N is B; with `mix='both'` K repaints and then the B
            originals; in E and G's own batches (`separate_batches`) the K repaints alone.

        Raises:
            UsageError: a ValueError; if images, label maps or target do not fit.
            RuntimeError: if the forward before has had no `step()`.
        """
        for name, value in {'images': images, 'labels': labels}.items():
            if not isinstance(value, Tensor) and (value is not None or name == 'images'):
                raise UsageError(
                    f'the {name} are a {type(value).__name__}; give one tensor, such as torch.stack({name})'
                )
        if not self.training or self.stopped:
            self._note_split(images, 0)
            images = images[:, :3] if images.ndim == 4 and images.shape[1] == 4 else images
            return images if target is None else (images, target)
        self._check_turn(images, target)
        channel = images[:, 3] if labels is None and images.ndim == 4 and images.shape[1] > 3 else None
        given = labels if channel is None else channel
        images, labels = batches.split_labels(images, labels)
        if not self._begun:
            batches.check_range(self.to_pm1(images))
            if given is not None:
                batches.check_labels(given, self._labeller.num_labels, in_channel=channel is not None)
            self.send_from_first()
            self._begun = True
        count = batches.num_repaints(len(images), self.config.prob)
        picked = self._labeller(self.to_pm1(images[:count])) if labels is None else labels[:count]  # [K, H, W]
        image_pm1 = self.to_pm1(images[:count], working_dtype(self.mean))  # [K, 3, H, W]
        may_learn = self._may_learn()
        paints = may_learn and self._paints_next
        statistics = copy_buffers(self.repainter) if paints else None
        repaint_pm1, posterior, shapes = self._paint(image_pm1, picked, paints)
        shown_norm = self.to_norm(batches.finite_or_original(repaint_pm1.detach(), image_pm1), images.dtype)
        shown_norm.requires_grad_(paints and self.config.task_weight > 0)
        with torch.autocast(images.device.type, enabled=False):  # which takes images of one type
            batch, target = self._assemble(images, shown_norm, target)
        if may_learn:
            seen, autocast = len(batch), autocast_state(images.device.type)
            self._painted = Painted(image_pm1, shapes, repaint_pm1, posterior, shown_norm, seen, statistics, autocast)
        return batch if target is None else (batch, target)

    @torch.compiler.disable
    def step(self, scale: float | Tensor = 1.0, update: bool = True) -> StepMetrics:
        """Let D learn from the latest batch, and E and G where it is their turn; after the task's backward pass.

        At an update the gradients of its batches are averaged, over processes too, and E, G and D move; E and G are
        judged by D as it was before. The losses are computed in the autocast state that the forward saw.

        Args:
            scale: What the mean loss over the images was multiplied by: a gradient scaler's scale, 1 / accumulation;
                for a sum over the batch, its size.
            update: Whether the batch ends an update; False: keep the gradients (accumulation).

        Returns:
            The losses; nothing after `stop()`, and where nothing learns.

        Raises:
            UsageError: a ValueError; if the scale is not above 0.
            RuntimeError: without a training forward; if no gradient has reached the repaints.
            NonFiniteLossError: after too many skipped updates in a row.
        """
        if self.stopped or self.discriminator is None:
            return StepMetrics()
        if not isinstance(scale, Tensor) and not scale > 0:
            raise UsageError(f'scale is {scale}; it must be what the loss was multiplied by, above 0')
        painted, self._painted = self._painted, None
        if painted is None:
            raise RuntimeError(
                'step() without a batch: got no forward in training mode with gradients; wanted one each step. Call '
                'train(), and repaint(images) outside torch.no_grad()'
            )
        generator, discriminator = self.optimizers['generator'], self.optimizers['discriminator']
        paints, judges = self._paints_next, self._learns_here
        float16 = painted.autocast['enabled'] and painted.autocast['dtype'] == torch.float16
        with torch.enable_grad(), learning(self):
            with torch.autocast(**painted.autocast):
                judged = judge(self.discriminator, painted, self._labeller.num_labels, judges)
                losses = {'d_loss': d_loss(judged, self.config.gan_loss)} if judges else {}
                parts = generator_losses(judged, painted.posterior, self.config.gan_loss) if paints else {}
            if paints:
                loss = self._surrogate_task_loss(painted, scale) + weighted_sum(parts, self.config)
                generator.add(loss, float16=float16, retain_graph=judges)
                assert painted.statistics is not None
                keep_finite(self.repainter, painted.statistics)
            if judges:
                discriminator.add(losses['d_loss'], float16=float16)
        if update:
            self._asked = False
            self.updates += 1
            discriminator.update()
            if paints:
                bad_task, self._bad_task = self._bad_task, None
                if (bad_task := generator.update(bad_task)) is not None:
                    self.task_guard.count(bad_task)
        return StepMetrics(**{name: value.detach() for name, value in {**losses, **parts}.items()})

    def consistency(self, output: Any) -> Tensor | float:
        """What to add to T's loss so that it answers alike to repaints and to their originals, with `mix='both'`.

        Not with MixUp or CutMix: they mix a repaint and its original with different images.
        It is a mean over the K repaints, T's loss one over N images. E and G, which have N / K times the gradient of
        that loss, learn from N / K times this term.

        Args:
            output: T's logits for the latest batch, [N, classes].

        Returns:
            Their Jensen-Shannon divergence times the option `consistency`, a scalar; 0 for a batch without both.

        Raises:
            UsageError: if the output is of another kind.
        """
        self._owes_consistency = False
        weight, seen, repaints = self.config.consistency, self._seen, self._repainted
        if not weight or not repaints or not self._learns_here:
            return 0.0
        if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != seen:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise UsageError(f'consistency compares logits [{seen}, classes], the output is {shape}; give the logits')
        originals = output[repaints : 2 * repaints]
        return weight * js_divergence(output[:repaints], originals)

    def drop(self) -> None:
        """Forget the latest batch, for a loop that skips it instead of calling `step()`."""
        if self._painted is not None and self._painted.statistics is not None:
            keep_finite(self.repainter, self._painted.statistics)
        self._painted = None
        self._owes_consistency = False

    def stop(self) -> None:
        """From here on images pass unchanged and `step()` does nothing; kept in the state."""
        self.drop()
        self.stopped = True

    @property
    def task_learns(self) -> bool:
        """Whether T learns from the coming (or latest, before its step) batch; False in E and G's separate batches.

        In those the loop leaves T as it is: weights, gradients, running statistics.
        """
        self._asked = True
        return self._learns_here

    @property
    def split(self) -> Tensor:
        """Which images of the latest batch returned are repaints, [N] bool."""
        return torch.arange(self._seen, device=self._device) < self._repainted

    @property
    def rows(self) -> tuple[slice, slice]:
        """The same as indices: rows of repaints, and the others."""
        return slice(0, self._repainted), slice(self._repainted, self._seen)

    # Its parts --------------------------------------------------------------------------------------------------------

    def _may_learn(self) -> bool:
        learns = self.discriminator is not None
        if torch.is_grad_enabled():
            return learns
        if not self._told_no_grad:
            logger.warning(
                'repaint(images) in training mode under torch.no_grad(): images are repainted%s. To validate, call '
                'repaint.eval() first.',
                ', nobody learns' if learns else '',
            )
        self._told_no_grad = True
        return False

    def _check_turn(self, images: Tensor, target: Any) -> None:
        if images.device != self.mean.device:
            raise UsageError(
                f'the images are on {images.device}, Repaint on {self.mean.device}; '
                f'call repaint.to({str(images.device)!r})'
            )
        if self._painted is not None:
            raise RuntimeError(
                'a second training forward without a step() for the first; call repaint.step() after each backward '
                'pass, or repaint.drop() where the loop skips a batch'
            )
        if target is None and (self.config.mix == 'both' or self.config.separate_batches):
            which = "mix='both'" if self.config.mix == 'both' else 'separate_batches'
            raise UsageError(f'{which} changes the batch, got no target; call images, target = repaint(images, target)')
        if target is not None:
            batches.check_target(target, len(images))
        if self._owes_consistency and not self._told_consistency:
            logger.warning(
                'consistency is %g and does nothing: add repaint.consistency(output) to the loss.',
                self.config.consistency,
            )
            self._told_consistency = True
        self._owes_consistency = self.config.consistency > 0 and self._learns_here and torch.is_grad_enabled()
        if not self._learns_here and not self._asked:
            raise RuntimeError(
                'with separate_batches the network must not learn from this batch; ask repaint.task_learns ahead of '
                'each, and where it is False keep weights, gradients and running statistics as they are'
            )

    def _paint(self, image_pm1: Tensor, labels: Tensor, learn: bool) -> Repainted:
        """E and G on [K, 3, H, W] and [K, H, W]; without `learn` nothing of theirs moves, no running statistics."""
        networks, given = self.repainter, (image_pm1, labels)
        with torch.autocast(**autocast_state(image_pm1.device.type)):
            if learn:
                with learning(networks):
                    return call_cast_once(networks, *given)
            with torch.no_grad(), frozen(networks):
                return call_cast_once(networks, *given)

    def _assemble(self, images: Tensor, shown_norm: Tensor, target: Any) -> tuple[Tensor, Any]:
        """The batch for T, and its targets."""
        count = len(shown_norm)
        if not self._learns_here:
            batch, target = torch.cat([shown_norm]), batches.pick(target, count)
        elif self.config.mix == 'both':
            batch, target = torch.cat([shown_norm, images]), batches.join(batches.pick(target, count), target)
        else:
            batch = torch.cat([shown_norm, images[count:]])
        self._note_split(batch, count)
        return batches.lay_out_like(batch, images), target

    def _note_split(self, batch: Tensor, repaints: int) -> None:
        self._seen, self._repainted, self._device = len(batch), repaints, batch.device

    def _surrogate_task_loss(self, painted: Painted, scale: float | Tensor) -> Tensor:
        """A scalar with the gradient of T's loss, as a mean over the K repaints, at the repaints; times its weight."""
        if not self.config.task_weight:
            return painted.repaint_pm1.new_zeros(())
        slope = task_slope(painted, scale, self.config.task_weight * self.norm_per_pm1)
        bad = ~is_finite(torch.linalg.vector_norm(slope, float('inf')))
        self._bad_task = bad if self._bad_task is None else self._bad_task | bad
        return (painted.repaint_pm1 * slope.nan_to_num(0.0, 0.0, 0.0)).sum()

    def set_extra_state(self, state: Any) -> None:
        """Take `get_extra_state` of another one, and forget the batch that has begun here."""
        super().set_extra_state(state)
        self._painted = self._bad_task = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_painted': None}  # copies (weight averages) begin without a batch
