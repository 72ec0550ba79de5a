"""RepaintConfig: what `Repaint` is made of, each value once: default, meaning, limits, and what the paper has."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from timm_repaint.errors import UsageError
from timm_repaint.losses import GAN_LOSSES
from timm_repaint.networks.encoder import LATENTS
from timm_repaint.networks.generator import GENERATORS
from timm_repaint.networks.label_maps import DETAILS
from timm_repaint.option import ONE_OR_MORE, Limit, describe, option, problems
from timm_repaint.painters import NO_DETAIL, PAINTERS

if TYPE_CHECKING:
    from timm_repaint.masks.choice import MaskSource

WEIGHT = Limit(lambda value: 0 <= value <= 1e6, '0 or more, at most 1e6')
COUNT = Limit(lambda value: isinstance(value, int) and 1 <= value <= 4096, 'a whole number, 1 or more, at most 4096')
RATE = Limit(lambda value: 0 < value <= 10, 'above 0, at most 10')
# Titles of the groups in the help of the command line.
WHEN, NETWORKS, LOSSES = 'Repaint', 'Repaint: networks', 'Repaint: losses and learning rates'
when, network, loss = (partial(option, group=title) for title in (WHEN, NETWORKS, LOSSES))


@describe
@dataclass(frozen=True)
class RepaintConfig:
    """Everything that `Repaint` is made of; its networks see pixels in [0, 1], normalised with `mean` and `std`.

    Raises:
        UsageError: a ValueError; if a value is out of its limits.
    """

    mean: Sequence[float]
    std: Sequence[float]
    masks: 'str | MaskSource | None' = option(
        'superpixels',
        "where label maps come from if they do not come with the images: 'superpixels' (cut on the device), 'fh' "
        "(Felzenszwalb-Huttenlocher, cut on the CPU in forward: slow), 'deeplabv3', a mask source, or None",
    )
    num_labels: int | None = option(
        None,
        'number of classes of semantic label maps (255 = unknown); None: segments, whose ids mean nothing',
        limit=Limit(lambda value: isinstance(value, int) and 1 <= value <= 255, 'from 1 to 255 (label 255: unknown)'),
    )
    img_size: int | None = option(
        None,
        'smallest side of the images in pixels; D has 3 layers below 64 px, else, and with None, 4',
        limit=Limit(lambda value: value >= 32, '32 px or more'),
    )
    schedule: tuple[int, int] = when(
        (2, 1),
        'A:B, the last B of A + B batches train encoder and generator',
        paper='2:1 (section 3.2)',
        metavar='A:B',
        cli_default='2:1',
    )
    separate_batches: bool = when(
        False, 'batches that train encoder and generator do not train task and discriminator as well', paper='used'
    )
    prob: float = when(
        0.5,
        'share of a batch that is repainted, its first images',
        paper='1',
        limit=Limit(lambda value: 0 < value <= 1, 'above 0 and at most 1; to repaint nothing, do not use it at all'),
    )
    mix: str = when(
        'replace',
        'replace: repaints stand in for their originals; both: they come on top',
        paper='replace',
        choices=('replace', 'both'),
    )
    freeze: bool = when(False, 'do not train the generator; needs a checkpoint', paper='not used')
    checkpoint: str | None = when(
        None,
        "start encoder and generator from a run's checkpoint, a file of a Repaint's state, or 'pretrained'; with "
        'its latent, width, generator and detail',
        paper='from scratch',
        metavar='FILE',
        cli_default='',
    )
    generator: str = network(
        'light',
        'light: our own; spade: full-size; no network: mean: segments in their mean colours, jitter: these shifted, '
        'shift: the image shifted alike, randconv: filtered, shift-randconv: both',
        paper='a light one; SPADE in Table 3',
        choices=(*GENERATORS, *PAINTERS),
    )
    width: int = network(16, 'channels of the light networks at half size', paper='not said; SPADE: 64', limit=COUNT)
    latent: str = network(
        'segment',
        'segment: a random code for each segment; global: one for the image',
        paper='follows SPADE, which has one for the image',
        choices=LATENTS,
    )
    latent_dim: int | None = network(
        None,
        "length of the code; unset: 8 for a segment's, 64 for the image's",
        paper='not said; SPADE: 256',
        limit=COUNT,
    )
    detail: str = network(
        'keep',
        "keep: the image's own texture and shading, in new colours and strength; swap: each segment gets those of "
        'a random place in the batch, for classifiers that go by texture; none: segments are painted from their '
        'codes alone',
        paper='none',
        choices=DETAILS,
    )
    temperature: float = network(
        1.0,
        "factor of the codes' standard deviation; 0: always the encoder's mean",
        paper='1',
        limit=Limit(lambda value: 0 <= value <= 100, '0 or more, at most 100'),
    )
    task_weight: float = loss(
        1.0, "weight of the task's loss for the generator", paper="1; 0 is its row 'w/o task-loss'", limit=WEIGHT
    )
    gan_loss: str = loss(
        'hinge',
        "the GAN's loss; original: binary cross-entropy",
        paper="prints 'original', and builds on SPADE's code, which uses hinge",
        choices=tuple(GAN_LOSSES),
    )
    feat_weight: float = loss(10.0, 'weight of feature matching', paper="follows pix2pixHD's, 10", limit=WEIGHT)
    kl_weight: float = loss(
        0.05, "weight of the KL divergence of the image's code, per image", paper="follows SPADE's, 0.05", limit=WEIGHT
    )
    segment_kl_weight: float = loss(
        1.0, "the same for the segments' codes; low: faithful, high: diverse", paper='no such codes', limit=WEIGHT
    )
    consistency: float = loss(
        0.0,
        "weight of a consistency loss between a repaint and its original (Jensen-Shannon divergence of the task's "
        "answers), such as 4, with mix 'both'",
        paper='no such term',
        limit=WEIGHT,
        roles='classifier_loss',
    )
    g_lr: float = loss(
        1e-3,
        'learning rate of encoder and generator, Adam',
        paper='1e-4',
        limit=Limit(RATE.holds, f'{RATE.wanted}; to keep the generator as it is, freeze it'),
    )
    d_lr: float = loss(
        2e-3,
        'learning rate of the discriminator, Adam',
        paper='4e-4',
        limit=Limit(RATE.holds, f'{RATE.wanted}; to keep the discriminator as it is, freeze the generator'),
    )
    max_nonfinite: int = loss(
        20,
        'stop after N updates in a row of the generator, the discriminator or the task network had no finite loss',
        paper='not said',
        limit=ONE_OR_MORE,
    )

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


def plain_numbers(values: Any) -> tuple[float, ...]:
    """Numbers of any kind of sequence as plain ones, for `RepaintConfig` to look at."""
    plain = values if isinstance(values, Iterable) and getattr(values, 'ndim', None) != 0 else (values,)
    return tuple(value.tolist() if hasattr(value, 'tolist') else value for value in plain)


DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(RepaintConfig)}
SHAPE = ('width', 'latent', 'latent_dim', 'temperature')
LEARNING = (
    'schedule', 'separate_batches', 'task_weight', 'gan_loss', 'feat_weight', 'kl_weight', 'segment_kl_weight', 'g_lr',
    'd_lr',
)  # fmt: skip


def idle_beside(config: Any) -> tuple[str, tuple[str, ...]]:
    """Options that do nothing beside another one: its name, '' for none, and theirs.

    Args:
        config: Has `generator`, `freeze`, `latent` and `checkpoint`.
    """
    if config.generator in PAINTERS:
        return 'generator', (*SHAPE, *LEARNING)
    if config.freeze:
        return 'freeze', LEARNING
    if config.latent == 'global' and not config.checkpoint:
        return 'latent', ('segment_kl_weight',)
    return '', ()


def without_idle(config: RepaintConfig) -> RepaintConfig:
    """The same with what does nothing at its default."""
    return replace(config, **{name: DEFAULTS[name] for name in idle_beside(config)[1]})


def _problems(config: RepaintConfig) -> Iterator[str]:
    for name, problem in problems(RepaintConfig, vars(config)):
        yield f'{name} {problem}'
    for name in ('mean', 'std'):
        values = getattr(config, name)
        if len(values) != 3 or not all(isinstance(value, (int, float)) and 0 <= value <= 1 for value in values):
            yield (
                f'{name} is {values}; it must be three numbers from 0 to 1, for red, green and blue of images in '
                '[0, 1]: divide those of images in [0, 255] by 255'
            )
    if not all(value > 0 for value in config.std):
        yield f'std is {config.std}; its values must be above 0'
    pair = isinstance(config.schedule, (tuple, list)) and len(config.schedule) == 2
    if not pair or not all(isinstance(n, int) and n >= 1 for n in config.schedule):
        yield f'schedule is {config.schedule}; it must be two whole numbers of 1 or more, such as (2, 1)'
    yield from generator_problems(config)


def generator_problems(config: Any) -> Iterator[str]:
    """A sentence for each option that does not go with the others; the name of one comes first.

    Args:
        config: Has `generator`, `freeze`, `checkpoint`, `separate_batches`, `detail`, `consistency` and `mix`.
    """
    if config.generator in PAINTERS and (config.freeze or config.checkpoint):
        yield f'generator {config.generator!r} has no network to load or to freeze; leave out checkpoint and freeze'
    elif config.freeze and not config.checkpoint:
        yield 'freeze needs a checkpoint: a generator that never learned paints noise'
    if (config.generator in PAINTERS or config.freeze) and config.separate_batches:
        which = 'a frozen generator' if config.freeze else f'generator {config.generator!r}'
        yield f'{which} never learns, so it has no separate_batches; leave that out'
    if config.generator in NO_DETAIL and config.detail == 'swap':
        yield f"generator {config.generator!r} paints without detail; use 'shift'"
    if config.consistency and config.mix != 'both':
        yield f"consistency compares repaints with their originals, mix is {config.mix!r}; it needs 'both'"
