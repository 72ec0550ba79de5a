"""RepaintConfig: what `Repaint` is made of, each value with its default, its meaning and its limits."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from typing_extensions import TypedDict

from timm_repaint.errors import UsageError
from timm_repaint.losses import GAN_LOSSES
from timm_repaint.networks import DETAILS, GENERATORS, LATENTS
from timm_repaint.painters import PAINTERS

if TYPE_CHECKING:
    from timm_repaint.masks import MaskSource

MIXES = ('replace', 'both')


class RepaintOptions(TypedDict, total=False):
    """The keyword arguments of `Repaint`: the fields of `RepaintConfig` with a default."""

    masks: 'str | MaskSource | None'
    num_labels: int | None
    generator: str
    width: int
    latent: str
    latent_dim: int | None
    detail: str
    temperature: float
    img_size: int | None
    checkpoint: str | None
    freeze: bool
    prob: float
    mix: str
    views: int
    schedule: tuple[int, int]
    separate_batches: bool
    gan_loss: str
    task_weight: float
    feat_weight: float
    kl_weight: float
    segment_kl_weight: float
    g_lr: float
    d_lr: float
    max_nonfinite: int


@dataclass(frozen=True)
class RepaintConfig:
    """Everything that `Repaint` is made of.

    Attributes:
        mean: Mean of the network's images a channel, for pixels in [0, 1].
        std: Standard deviation of the network's images a channel, for pixels in [0, 1].
        masks: Where label maps come from if they do not come with the images: 'fh' (Felzenszwalb-Huttenlocher, cut on
            the CPU in forward: for trying out), 'deeplabv3', a mask source, or None.
        num_labels: Number of classes of semantic label maps (255 = unknown); None: segments, whose ids mean nothing.
        generator: 'light', or 'spade', the full-size one; without a network: 'mean', 'jitter', 'shift'.
        width: Channels of the light networks at half size.
        latent: A latent a 'segment', or one 'global' latent an image.
        latent_dim: Size of the latent; None: 8 a segment, 64 an image.
        detail: The image's own texture is kept ('keep'), swapped with another place's ('swap'), or left out ('none').
        temperature: Factor of the latents' standard deviation; 0: the encoder's mean.
        img_size: Smallest side of the images in pixels. D has 3 layers below 64 px, else, and with None, 4.
        checkpoint: File with a trained E and G to start from: of `train.py --repaint`, or with a `Repaint`'s state.
        freeze: E and G stay as they are in the checkpoint, and there is no D.
        prob: Share of the images that is repainted, the first ones of the batch; above 0, at most 1.
        mix: Repaints 'replace' their originals, or come on top of them ('both').
        views: Views of each image that a batch holds, one block behind the other; each block's first share is
            repainted.
        schedule: (A, B): of A + B updates, E and G learn in the last B (Repaint section 3.2: 2:1).
        separate_batches: T and D do not learn in E and G's updates, as in the paper.
        gan_loss: 'hinge', 'original' or 'lsgan'.
        task_weight: Weight of the task's loss for E and G; 0 is the paper's "w/o task-loss".
        feat_weight: Weight of feature matching.
        kl_weight: Weight of the global latent's KL divergence, per image.
        segment_kl_weight: Weight of the segments' latents' KL divergence: low is faithful, high is diverse.
        g_lr: Adam's learning rate of E and G.
        d_lr: Adam's learning rate of D.
        max_nonfinite: After so many updates in a row with a loss that is not finite, training stops.

    Raises:
        UsageError: a ValueError; if a value is out of its limits.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    masks: 'str | MaskSource | None' = 'fh'
    num_labels: int | None = None
    generator: str = 'light'
    width: int = 16
    latent: str = 'segment'
    latent_dim: int | None = None
    detail: str = 'keep'
    temperature: float = 1.0
    img_size: int | None = None
    checkpoint: str | None = None
    freeze: bool = False
    prob: float = 0.5
    mix: str = 'replace'
    views: int = 1
    schedule: tuple[int, int] = (2, 1)
    separate_batches: bool = False
    gan_loss: str = 'hinge'
    task_weight: float = 1.0
    feat_weight: float = 10.0
    kl_weight: float = 0.05
    segment_kl_weight: float = 1.0
    g_lr: float = 1e-3
    d_lr: float = 2e-3
    max_nonfinite: int = 20

    def __post_init__(self) -> None:
        for problem in _problems(self):
            raise UsageError(problem)

    @property
    def networks(self) -> dict[str, Any]:
        """What shapes E and G: keyword arguments of `create_repainter`."""
        config = {'generator': self.generator, 'num_labels': self.num_labels, 'detail': self.detail}
        if self.generator in PAINTERS:
            return config
        names = ('latent', 'latent_dim', 'width', 'temperature')
        return {**config, **{name: getattr(self, name) for name in names}}


DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(RepaintConfig)}


@dataclass(frozen=True)
class Limit:
    """The range of a number: a test, and the range in words."""

    holds: Callable[[float], bool]
    wanted: str


_ABOVE_ZERO = Limit(lambda value: 0 < value < math.inf, 'above 0')
_ZERO_OR_MORE = Limit(lambda value: 0 <= value < math.inf, '0 or more')
_ONE_OR_MORE = Limit(lambda value: isinstance(value, int) and value >= 1, 'a whole number, 1 or more')
NUMBERS: dict[str, Limit] = {
    'prob': Limit(lambda value: 0 < value <= 1, 'above 0 and at most 1; to repaint nothing, do not use it at all'),
    'task_weight': _ZERO_OR_MORE,
    'feat_weight': _ZERO_OR_MORE,
    'kl_weight': _ZERO_OR_MORE,
    'segment_kl_weight': _ZERO_OR_MORE,
    'g_lr': Limit(_ABOVE_ZERO.holds, 'above 0; to keep the generator as it is, freeze it'),
    'd_lr': Limit(_ABOVE_ZERO.holds, 'above 0; to keep the discriminator as it is, freeze the generator'),
    'width': _ONE_OR_MORE,
    'temperature': _ZERO_OR_MORE,
    'latent_dim': _ONE_OR_MORE,
    'num_labels': Limit(
        lambda value: isinstance(value, int) and 1 <= value <= 255, 'from 1 to 255 (label 255: unknown)'
    ),
    'img_size': Limit(lambda value: value >= 32, '32 px or more'),
    'views': _ONE_OR_MORE,
    'max_nonfinite': _ONE_OR_MORE,
}
CHOICES: dict[str, tuple[str, ...]] = {
    'generator': (*GENERATORS, *PAINTERS),
    'latent': LATENTS,
    'detail': DETAILS,
    'mix': MIXES,
    'gan_loss': tuple(GAN_LOSSES),
}


def _problems(config: RepaintConfig) -> Iterator[str]:
    for name, choices in CHOICES.items():
        if getattr(config, name) not in choices:
            yield f'{name} is {getattr(config, name)!r}; choose one of {", ".join(choices)}'
    for name, limit in NUMBERS.items():
        value = getattr(config, name)
        if value is None and DEFAULTS[name] is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not limit.holds(value):
            yield f'{name} is {value!r}; it must be {limit.wanted}'
    for name in ('mean', 'std'):
        values = getattr(config, name)
        if len(values) != 3 or not all(isinstance(value, (int, float)) and math.isfinite(value) for value in values):
            yield f'{name} is {values}; it must be three numbers, for red, green and blue in [0, 1]'
    if not all(value > 0 for value in config.std):
        yield f'std is {config.std}; its values must be above 0'
    pair = isinstance(config.schedule, (tuple, list)) and len(config.schedule) == 2
    if not pair or not all(isinstance(n, int) and n >= 1 for n in config.schedule):
        yield f'schedule is {config.schedule}; it must be two whole numbers of 1 or more, such as (2, 1)'
    for name in ('freeze', 'separate_batches'):
        if not isinstance(getattr(config, name), bool):
            yield f'{name} is {getattr(config, name)!r}; it must be True or False'
    if config.views > 1 and config.mix == 'both':
        yield "views is for mix='replace': repaints on top of their originals would part the views; leave one out"
    yield from _generator_problems(config)


def _generator_problems(config: RepaintConfig) -> Iterator[str]:
    if config.generator in PAINTERS and (config.freeze or config.checkpoint):
        yield f'generator {config.generator!r} has no network to load or to freeze; leave out checkpoint and freeze'
    elif config.freeze and not config.checkpoint:
        yield 'freeze needs a checkpoint: a generator that never learned paints noise'
    if config.generator in PAINTERS and config.separate_batches:
        yield f'generator {config.generator!r} never learns, so it has no separate_batches; leave that out'
    if config.generator in ('mean', 'jitter') and config.detail == 'swap':
        yield f"generator {config.generator!r} paints flat segments, without detail; use 'shift'"
    own = getattr(config.masks, 'num_labels', config.num_labels)
    if config.num_labels is not None and own != config.num_labels:
        yield f'num_labels is {config.num_labels}, the masks have {own}; leave num_labels out'
