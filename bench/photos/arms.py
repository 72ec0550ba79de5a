"""What the bench compares, and on which data: arms are options of train.py on top of those that all arms share."""

from dataclasses import dataclass

EPOCHS = 16
BATCH = 32
DETECTOR_EPOCHS = 20
_OPTIONS = (
    '-j 0 --device cpu --channels-last --opt adamw --weight-decay 0.05 --sched cosine --warmup-epochs 1 '
    '--log-interval 1000 --repaint-gallery-interval 0'
)
COMMON = f'-b {BATCH} --epochs {EPOCHS} {_OPTIONS}'
DETECTOR = (
    f'--model tf_efficientdet_lite0 --img-size 256 -b 8 --lr 1e-3 --epochs {DETECTOR_EPOCHS} --scale-jitter 0.5 1.5 '
    f'{_OPTIONS}'
)
PLAIN, DEFAULT = 'plain', 'default-aug'  # arms that others are compared with
HALF = '--scale 0.5 1.0'
CROP_AND_FLIP = f'{HALF} --color-jitter 0'
STRONG = '--color-jitter 0.8 --color-jitter-prob 0.8 --grayscale-prob 0.2'
JITTER = f'{HALF} {STRONG}'
NINE = '--aa rand-m9-mstd0.5'
RANDAUGMENT = f'{HALF} {NINE}'
AUGMIX = '--color-jitter 0 --aa augmix-m3-w3 --aug-splits 3 --jsd-loss'
REPAINT = '--repaint --mask fh'
TO_THE_END = '--repaint-epochs {epochs}'
ONE_ANSWER = '--repaint-mix both --repaint-consistency 4'


@dataclass(frozen=True)
class Network:
    """A pretrained classifier.

    Attributes:
        lr: Its learning rate.
        options: Of its training and its tests.
    """

    lr: str
    options: str


NETWORK = 'tf_efficientnet_lite0'
NETWORKS = {
    NETWORK: Network('3e-4', '--img-size 128'),
    'vit_small_patch14_dinov2': Network('2e-5', '--img-size 98 --model-kwargs img_size=98'),
}


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        name: Its name, also of its runs' folders.
        shows: What it is for.
        first: Options of the first phase alone; with them the last quarter of the epochs is trained without.
        both: Options of both phases.
        detector: What a detector takes in place of `both`; None: the arm is for classifiers alone.
    """

    name: str
    shows: str
    first: str = ''
    both: str = CROP_AND_FLIP
    detector: str | None = None

    @property
    def repaints(self) -> bool:
        return '--repaint ' in f'{self.first} '

    @property
    def baseline(self) -> str:
        """The arm that it is compared with: of the same crop."""
        return PLAIN if HALF in self.both else DEFAULT

    @property
    def reads_masks(self) -> bool:
        return '--mask fh' in f'{self.first} {self.both}'


_ARMS = (
    Arm(PLAIN, 'crop and flip', detector=''),
    Arm(DEFAULT, "timm's default augmentation", both=''),
    Arm('default-jitter', 'strong colour jitter and grayscale with its crop', both=STRONG),
    Arm('default-randaugment', 'RandAugment with its crop', both=NINE),
    Arm('default-augmix', 'AugMix with its crop', both=AUGMIX),
    Arm('jitter', 'strong colour jitter and grayscale to the end', both=JITTER, detector='--color-jitter 0.8'),
    Arm('jitter-clean-end', 'the same with a last quarter without', first=JITTER),
    Arm('randaugment', 'RandAugment of magnitude 9', both=RANDAUGMENT),
    Arm('augmix', 'AugMix with its consistency term', both=f'{HALF} {AUGMIX}'),
    Arm('cutmix', 'CutMix', both=f'{CROP_AND_FLIP} --cutmix 1.0'),
    Arm('shift', 'a random colour shift a segment, no network', f'{REPAINT} --repaint-generator shift', detector=''),
    Arm('swap', 'each segment with the detail of another place', f'{REPAINT} --repaint-detail swap'),
    Arm('paper', "the paper's own form", f'{REPAINT} --repaint-detail none --repaint-latent global'),
    Arm('repaint', 'the defaults', REPAINT, detector=''),
    Arm(
        'shift-both',
        'shifted colours beside their originals, no network: -c robust without its term and RandAugment',
        f'{REPAINT} --repaint-generator shift --repaint-mix both',
        detector='',
    ),
    Arm(
        'jitter-shift-both',
        'the same on top of strong jitter',
        f'{REPAINT} --repaint-generator shift --repaint-mix both',
        JITTER,
        detector='--color-jitter 0.8',
    ),
    Arm('superpixels', 'the defaults with masks that need no cache', '--repaint --mask superpixels'),
    Arm(
        'consistency',
        'one answer to an image and its repaint by the generator',
        f'{REPAINT} {ONE_ANSWER}',
    ),
    Arm(
        'shift-consistency',
        'one answer to an image and its random colour shift, no network',
        f'{REPAINT} --repaint-generator shift {ONE_ANSWER}',
    ),
    Arm(
        'randconv-consistency',
        'one answer to an image and its random convolution, no network',
        f'{REPAINT} --repaint-generator randconv {ONE_ANSWER}',
    ),
    Arm('jitter-consistency', 'one answer, on top of strong jitter', f'{REPAINT} {ONE_ANSWER}', JITTER),
    Arm(
        'randaugment-shift',
        'RandAugment, and a random colour shift in place of every second image: no longer than RandAugment',
        f'{REPAINT} --repaint-generator shift',
        RANDAUGMENT,
    ),
    Arm('randaugment-consistency', 'one answer, on top of RandAugment', f'{REPAINT} {ONE_ANSWER}', RANDAUGMENT),
    Arm(
        'randaugment-shift-consistency',
        'the same with a random colour shift, no network: -c robust',
        f'{REPAINT} --repaint-generator shift {ONE_ANSWER}',
        RANDAUGMENT,
    ),
    Arm(
        'robust',
        "-c robust with timm's own crop, as users have it",
        f'{REPAINT} --repaint-generator shift {ONE_ANSWER}',
        NINE,
    ),
    Arm(
        'robust-all',
        '-c robust --repaint-prob 1: each image beside its repaint',
        f'{REPAINT} --repaint-generator shift {ONE_ANSWER} --repaint-prob 1',
        NINE,
    ),
    Arm(
        'shift-randconv-consistency',
        'one answer to an image and its colour shift, every second one under a random convolution',
        f'{REPAINT} --repaint-generator shift-randconv {ONE_ANSWER}',
    ),
    Arm(
        'randaugment-shift-randconv-consistency',
        'the same on top of RandAugment',
        f'{REPAINT} --repaint-generator shift-randconv {ONE_ANSWER}',
        RANDAUGMENT,
    ),
    Arm(
        'consistency-end',
        'repaints beside their originals to the last epoch, and one answer to both',
        both=f'{CROP_AND_FLIP} {REPAINT} {ONE_ANSWER} {TO_THE_END}',
    ),
    Arm('pretrained', 'the defaults from the generator that comes along', f'{REPAINT} --repaint-checkpoint pretrained'),
    Arm('jitter-repaint', 'the defaults on top of strong jitter', REPAINT, JITTER),
    Arm('randaugment-repaint', 'the defaults on top of RandAugment', REPAINT, RANDAUGMENT),
)
ARMS = {arm.name: arm for arm in _ARMS}


@dataclass(frozen=True)
class Setting:
    """Training photographs, and what the last checkpoint is tested on.

    Attributes:
        folder: Below DATA, with `train/`; beside it are `validation/` and a folder of each other domain.
        per_class: Training photographs of a class, the first ones; None: all.
        detects: Whether it is a detector that trains, on a folder in COCO's layout.
    """

    folder: str
    per_class: int | None = None
    detects: bool = False

    @property
    def training(self) -> str:
        """The folder of the training photographs."""
        return 'train2017' if self.detects else 'train'

    @property
    def arms(self) -> list[str]:
        """The arms that there are for it."""
        return [arm.name for arm in ARMS.values() if not self.detects or arm.detector is not None]


SETTINGS = {
    'domain-shift': Setting('pacs'),
    'clothing-40': Setting('clothing'),
    'clothing-10': Setting('clothing', 10),
    'animals': Setting('animals', detects=True),
}
