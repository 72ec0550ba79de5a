"""The options of Repaint: co-training with a generator that repaints the training images.

Defaults are those of the trial in the project's notes on small photographs; where the paper (BMVC 2021, section 4)
used another value, the help says so. `recipes/paper.yaml` sets the paper's.
"""

import argparse

from timm_repaint.config import CHOICES
from timm_repaint.config import DEFAULTS as REPAINT
from timm_repaint.masks import MASK_SOURCES
from timm_repaint.masks.felzenszwalb import DEFAULT_SIGMA


def add_mask_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that choose where the masks come from."""
    add = parser.add_argument_group('Repaint: masks').add_argument
    add(
        '--mask',
        type=str,
        default='fh',
        choices=sorted(MASK_SOURCES),
        help='source of the masks; fh: Felzenszwalb-Huttenlocher segments; deeplabv2, deeplabv3: classes by a network; '
        'folder: PNG label maps; outlines: those of --dataset shapes. Paper: fh, or DeepLab-v2',
    )
    add('--fh-scale', type=float, metavar='X', help='fh: higher gives larger segments; unset: from the image size')
    add(
        '--fh-sigma',
        type=float,
        default=DEFAULT_SIGMA,
        metavar='PX',
        help='fh: blur ahead of the segmentation',
    )
    add('--fh-min-size', type=int, metavar='PX', help='fh: pixels of the smallest segment; unset: from the image size')
    add(
        '--fh-backend',
        type=str,
        default='auto',
        choices=['auto', 'opencv', 'skimage'],
        help="fh: OpenCV (pip install '.[fast]') is 2 to 3 times faster; auto: OpenCV where it is installed",
    )
    add('--mask-checkpoint', type=str, default='', metavar='FILE', help='deeplabv2, deeplabv3: file of the weights')


def add_stored_mask_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of masks that are read from files."""
    add = parser.add_argument_group('Repaint: stored masks').add_argument
    add(
        '--mask-dir',
        type=str,
        default='',
        metavar='DIR',
        help='masks made by python -m timm_repaint.masks, in a tree like that of the images; folder: your own',
    )
    add(
        '--mask-classes',
        type=int,
        metavar='N',
        help='folder: labels are classes 0 to N - 1, and 255 for unknown; unset: segments, whose ids mean nothing',
    )


def add_repaint_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say when, and how much of each batch, is repainted."""
    add = parser.add_argument_group('Repaint').add_argument
    add('--repaint', action='store_true', help='co-train with a generator that repaints the training images')
    add(
        '--repaint-epochs',
        type=int,
        metavar='N',
        help='epochs with repaints; the rest of --epochs is fine-tuning on originals in the same learning-rate '
        'schedule. Unset: three quarters. Paper: 150 of 200',
    )
    add(
        '--repaint-schedule',
        type=str,
        default='2:1',
        metavar='A:B',
        help='the last B of A + B batches train encoder and generator. Paper: 2:1',
    )
    add(
        '--repaint-separate-batches',
        action='store_true',
        help='batches that train encoder and generator do not train task and discriminator as well. Paper: used',
    )
    add(
        '--repaint-prob',
        type=float,
        default=REPAINT['prob'],
        metavar='P',
        help='share of a batch that is repainted. Paper: 1',
    )
    add(
        '--repaint-mix',
        type=str,
        default=REPAINT['mix'],
        choices=CHOICES['mix'],
        help="repaints stand in for their originals, or come on top ('both'). Paper: replace",
    )
    add(
        '--repaint-freeze',
        action='store_true',
        help='do not train the generator; needs --repaint-checkpoint. Paper: not used',
    )
    add(
        '--repaint-checkpoint',
        type=str,
        default='',
        metavar='FILE',
        help='start encoder and generator from the checkpoint of a run, with its latent, width, generator and detail. '
        'Paper: from scratch',
    )


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that shape the encoder and the generator."""
    add = parser.add_argument_group('Repaint: networks').add_argument
    add(
        '--repaint-generator',
        type=str,
        default=REPAINT['generator'],
        choices=CHOICES['generator'],
        help='light: our own; spade: the full-size one; without a network, at no cost: mean: each segment in its mean '
        'colour, jitter: that with a random shift, shift: the image with it. Paper: a light one; SPADE in Table 3',
    )
    add(
        '--repaint-width',
        type=int,
        default=REPAINT['width'],
        metavar='N',
        help='channels at full size. Paper: not said; SPADE: 64',
    )
    add(
        '--repaint-latent',
        type=str,
        default=REPAINT['latent'],
        choices=CHOICES['latent'],
        help='a random code for each segment, or one for the image. Paper: follows SPADE, which has one for the image',
    )
    add(
        '--repaint-latent-dim',
        type=int,
        metavar='N',
        help="length of the code; unset: 8 for a segment's, 64 for the image's. Paper: not said; SPADE: 256",
    )
    add(
        '--repaint-detail',
        type=str,
        default=REPAINT['detail'],
        choices=CHOICES['detail'],
        help="keep: the image's own texture and shading, in new colours and strength; swap: each segment gets those of "
        'a random place in the batch, for classifiers that go by texture; none: segments are painted from their '
        'codes alone. Paper: none',
    )
    add(
        '--repaint-temperature',
        type=float,
        default=REPAINT['temperature'],
        metavar='X',
        help="factor of the codes' standard deviation; 0: always the encoder's mean. Paper: 1",
    )


def add_gan_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the losses and optimizers of encoder, generator and discriminator."""
    add = parser.add_argument_group('Repaint: losses and learning rates').add_argument
    add(
        '--repaint-task-weight',
        type=float,
        default=REPAINT['task_weight'],
        metavar='X',
        help="weight of the task's loss for the generator. Paper: 1; 0 is its row 'w/o task-loss'",
    )
    add(
        '--repaint-gan-loss',
        type=str,
        default=REPAINT['gan_loss'],
        choices=CHOICES['gan_loss'],
        help="the GAN's loss. Paper: prints 'original', and builds on SPADE's code, which uses hinge",
    )
    add(
        '--repaint-feat-weight',
        type=float,
        default=REPAINT['feat_weight'],
        metavar='X',
        help="weight of feature matching. Paper: follows pix2pixHD's, 10",
    )
    add(
        '--repaint-kl-weight',
        type=float,
        default=REPAINT['kl_weight'],
        metavar='X',
        help="weight of the KL divergence of the image's code. Paper: follows SPADE's, 0.05",
    )
    add(
        '--repaint-segment-kl-weight',
        type=float,
        default=REPAINT['segment_kl_weight'],
        metavar='X',
        help="the same for the segments' codes; low: faithful, high: diverse. Paper: no such codes",
    )
    add(
        '--repaint-g-lr',
        type=float,
        default=REPAINT['g_lr'],
        metavar='LR',
        help='encoder and generator, Adam. Paper: 1e-4',
    )
    add('--repaint-d-lr', type=float, default=REPAINT['d_lr'], metavar='LR', help='discriminator, Adam. Paper: 4e-4')
    add(
        '--repaint-max-nonfinite',
        type=int,
        default=REPAINT['max_nonfinite'],
        metavar='N',
        help='stop the run after N generator or discriminator updates in a row were skipped because their loss was '
        'not finite. Paper: not said',
    )
    add(
        '--repaint-gallery-interval',
        type=int,
        default=10,
        metavar='N',
        help='epochs between two galleries of repaints; 0: only at the end. Paper: not said',
    )
