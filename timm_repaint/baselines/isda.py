"""Implicit semantic data augmentation: the cross-entropy of features that vary as their class does.

Each class's features are taken to spread like a normal distribution; in the limit of infinitely many draws around an
image's features, the expected cross-entropy has an upper bound in closed form, which is the loss here.
Source: Wang et al., "Implicit Semantic Data Augmentation for Deep Networks", NeurIPS 2019, with diagonal covariances.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timm.task import ClassificationTask, TrainingTask
from torch import Tensor, nn

from timm_repaint.errors import UsageError
from timm_repaint.gather import gather_rows

ISDA_KEY = 'isda'


class FeatureVariance(nn.Module):
    """Running mean and variance [K, A] of the features of K classes, as if all so far were one batch."""

    count: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, num_classes: int, num_features: int) -> None:
        super().__init__()
        self.register_buffer('count', torch.zeros(num_classes))
        self.register_buffer('mean', torch.zeros(num_classes, num_features))
        self.register_buffer('variance', torch.zeros(num_classes, num_features))

    @torch.no_grad()
    def update(self, features: Tensor, target: Tensor) -> None:
        """Add the features, [B, A] float32, of images of the classes `target`, [B]."""
        count = torch.zeros_like(self.count).index_add_(0, target, features.new_ones(len(target)))  # [K]
        divisor = count.clamp(min=1)[:, None]
        mean = torch.zeros_like(self.mean).index_add_(0, target, features) / divisor
        squares = (features - mean[target]).square()
        variance = torch.zeros_like(self.mean).index_add_(0, target, squares) / divisor
        share = (count / (count + self.count).clamp(min=1))[:, None]  # of the new features in all
        between = share * (1 - share) * (mean - self.mean).square()
        self.variance.copy_((1 - share) * self.variance + share * variance + between)
        self.mean.lerp_(mean, share)
        self.count.add_(count)


def augmented_logits(logits: Tensor, weight: Tensor, variance: Tensor, target: Tensor, strength: float) -> Tensor:
    """logits_ij + strength / 2 * sum over a of (w_ja - w_ya)^2 * variance_ya, y the class of image i.

    Args:
        logits: [B, K].
        weight: Of the classifier, [K, A].
        variance: Of each class's features, [K, A].
        target: Classes, [B].
        strength: 0 leaves the logits as they are.

    Returns:
        [B, K].
    """
    own_variance, own_weight = variance[target], weight[target]  # [B, A] each
    # The square is multiplied out: [B, K, A] would be gigabytes.
    spread = (
        own_variance @ weight.square().T
        - 2 * (own_variance * own_weight) @ weight.T
        + (own_variance * own_weight.square()).sum(dim=1, keepdim=True)
    )  # [B, K]
    return logits + strength / 2 * spread


class IsdaTask(ClassificationTask):
    """Classification with implicit semantic data augmentation.

    Args:
        model: A timm model with a linear classifier.
        strength: Of the augmentation in the last epoch; `set_isda_epoch` makes it grow from 0.
        kwargs: Of timm's `ClassificationTask`; the loss must be the cross-entropy of hard labels.

    Raises:
        UsageError: if the model has another classifier.
    """

    def __init__(self, model: nn.Module, strength: float, **kwargs: Any) -> None:
        super().__init__(model, **kwargs)
        classifier: Any = getattr(model, 'get_classifier', lambda: None)()
        if not isinstance(classifier, nn.Linear):
            raise UsageError(
                f'--isda needs a model whose classifier is one linear layer, that of --model is '
                f'{type(classifier).__name__}; choose another model'
            )
        self.classifier = [classifier]  # in a list: it is the model's part, not the task's
        self.final_strength, self.strength = strength, 0.0
        self.statistics = FeatureVariance(classifier.out_features, classifier.in_features).to(self.device)

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        """'loss' and 'output', the model's logits [B, K], for images and their classes, [B]."""
        (classifier,) = self.classifier
        with last_input(classifier) as seen:
            output = self.trainable_module(input)
        features = seen[-1].detach().float()  # [B, A]
        if classifier.weight.requires_grad:  # not while the task only judges repaints
            self.statistics.update(gather_rows(features), gather_rows(target))
        with torch.autocast(output.device.type, enabled=False):  # a sum over all features overflows float16
            weight, variance = classifier.weight.float(), self.statistics.variance
            logits = augmented_logits(output.float(), weight, variance, target, self.strength)
            return {'loss': self.criterion(logits, target), 'output': output}

    def get_task_state(self, module: nn.Module | None = None, ema: bool = False) -> dict[str, Any]:
        return {} if ema else {ISDA_KEY: self.statistics.state_dict()}

    def load_task_state(
        self, state: dict[str, Any] | None, strict: bool = True, module: nn.Module | None = None, ema: bool = False
    ) -> None:
        """Take the statistics of a checkpoint; one of a run without ISDA has none, and they start afresh."""
        if state and ISDA_KEY in state:
            self.statistics.load_state_dict(state[ISDA_KEY])


@contextmanager
def last_input(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Inside, a list that gets the inputs [B, C] of the layer's calls."""
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        handle.remove()


def set_isda_epoch(task: TrainingTask, epoch: int, num_epochs: int) -> None:
    """Let the strength of ISDA, where a task has it, grow evenly: none in epoch 0, almost all in the last."""
    for part in task.modules():
        if isinstance(part, IsdaTask):
            part.strength = part.final_strength * epoch / num_epochs
