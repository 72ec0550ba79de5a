"""What the bench compares: a table of arms, each one a few options on top of the recipe that all arms share."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from timm_repaint.errors import UsageError

REPAINT = '--repaint --mask fh'
BOTH = f'{REPAINT} --repaint-mix both'
DEFAULT_AUG = '--scale 0.08 1.0 --color-jitter 0.4'
CHECKPOINT = '{checkpoint}'  # in an arm's options: the last checkpoint of the run that it needs


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        name: its name, also of its folder.
        shows: what it is for, a short sentence.
        first: options of the first phase. The second phase of a repaint arm drops the repaint options by itself.
        both: options of both phases.
        baseline: arm that is taken off it in the paired difference.
        needs: arm whose run of the same images and seed comes first, for its CHECKPOINT.
        samples_of: arm whose number of samples seen by the classifier sets this arm's number of epochs.
    """

    name: str
    shows: str
    first: str = ''
    both: str = ''
    baseline: str = 'plain'
    needs: str = ''
    samples_of: str = ''

    @property
    def options(self) -> str:
        """Options of the first phase."""
        return f'{self.first} {self.both}'.strip()


_ARMS = (
    Arm('plain', 'crop and flip, no repaints', baseline=''),
    Arm('repaint', 'the method', REPAINT),
    Arm('repaint-both', 'repaints beside their originals instead of in their place', BOTH),
    Arm('repaint-no-task', "the generator without the task's loss", f'{REPAINT} --repaint-task-weight 0'),
    Arm(
        'repaint-frozen',
        "the repaint arm's generator, trained beforehand and kept as it is",
        f'{REPAINT} --repaint-freeze --repaint-checkpoint {CHECKPOINT}',
        needs='repaint',
    ),
    Arm('repaint-mean-latent', "the encoder's mean instead of a sample", f'{REPAINT} --repaint-temperature 0'),
    Arm('cutmix', 'CutMix in both phases', both='--cutmix 1.0'),
    Arm('cutmix-repaint', 'CutMix on top of repaints', REPAINT, '--cutmix 1.0', baseline='cutmix'),
    Arm('default-aug', "timm's default augmentation in both phases", both=DEFAULT_AUG),
    Arm('default-aug-repaint', 'repaints on top of it', REPAINT, DEFAULT_AUG, baseline='default-aug'),
    Arm(
        'default-aug-repaint-gentle',
        'repaints beside their originals and close to them, on top of it',
        f'{BOTH} --repaint-segment-kl-weight 0.3',
        DEFAULT_AUG,
        baseline='default-aug',
    ),
    Arm(
        'plain-samples',
        'control: plain, with as many samples seen by the classifier as in the arm repaint-both',
        samples_of='repaint-both',
    ),
    Arm(
        'default-aug-samples',
        'control: default-aug, with as many samples as in the arm default-aug-repaint-gentle',
        both=DEFAULT_AUG,
        samples_of='default-aug-repaint-gentle',
    ),
    Arm(
        'plain-jitter',
        'control: strong colour jitter in the first phase only',
        '--color-jitter 0.8 --color-jitter-prob 0.8 --grayscale-prob 0.2',
    ),
    Arm('segment-mean', 'control: each segment its mean colour, no network', f'{REPAINT} --repaint-generator mean'),
    Arm(
        'segment-jitter',
        'control: the same plus a random colour shift a segment, no network',
        f'{REPAINT} --repaint-generator jitter',
    ),
    Arm(
        'segment-shift',
        'control: the image itself with a random colour shift a segment, no network',
        f'{REPAINT} --repaint-generator shift',
    ),
)
ARMS = {arm.name: arm for arm in _ARMS}
HEADLINE = ('plain', 'repaint')
# Without a learned generator: what repaint arms with the baseline plain are compared with besides it.
CONTROLS = ('segment-mean', 'segment-jitter', 'segment-shift', 'plain-jitter')
# Repaint arm whose classifier sees more samples -> the arm without repaints that sees as many.
SAMPLES = {arm.samples_of: arm.name for arm in _ARMS if arm.samples_of}


def select_arms(names: Sequence[str], custom: Sequence[str]) -> list[Arm]:
    """The arms to run, in the table's order, each behind the arm that it needs.

    Args:
        names: names of the table, 'headline' or 'all'.
        custom: further arms, each as 'NAME=OPTIONS of train.py'.

    Raises:
        UsageError: for a name that is not in the table, or a custom arm without name or with a name of the table.
    """
    groups = {'all': tuple(ARMS), 'headline': HEADLINE}
    wanted = {name for word in names for name in groups.get(word, (word,))}
    unknown = sorted(wanted - ARMS.keys())
    if unknown:
        raise UsageError(f'there is no arm {", ".join(unknown)}; choose from all, headline, {", ".join(ARMS)}')
    wanted |= {ARMS[name].needs for name in wanted}
    own = [parse_arm(text) for text in custom]
    names_of_own = [arm.name for arm in own]
    twice = sorted({name for name in names_of_own if name in ARMS or names_of_own.count(name) > 1})
    if twice:
        raise UsageError(f'--arm {twice[0]}: there already is an arm of this name; choose another')
    return [arm for arm in ARMS.values() if arm.name in wanted] + own


def parse_arm(text: str) -> Arm:
    """An arm from 'NAME=OPTIONS'; its options hold in both phases, its baseline is plain.

    Raises:
        UsageError: if the text is not of that form, or the name is no plain file name.
    """
    name, equals, options = text.partition('=')
    try:
        shlex.split(options)
    except ValueError as error:
        raise UsageError(f'--arm {text}: {error}') from error
    if not equals or not re.fullmatch(r'\w[\w.+-]*', name):
        raise UsageError(f"--arm is {text!r}, but must be a name and its options, as in wide='--repaint --mask fh'")
    return Arm(name, f'own: {options or "no options"}', both=options)
