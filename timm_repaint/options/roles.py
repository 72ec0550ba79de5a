"""What each option is for: what other phases, tasks and reports keep, compare or refuse.

The roles of an option stand where it is declared; one without a role decides what a network learns.
"""

from argparse import ArgumentParser, Namespace
from enum import Enum

from timm_repaint.option import options_of
from timm_repaint.options.option_table import by_name
from timm_repaint.options.repaint_options import CONFIGS


class Role(Enum):
    """Each role by its word in the declarations."""

    MACHINE = 'machine'  # where and how fast a run computes
    DATA = 'data'  # what it reads
    OUTPUT = 'output'  # what it writes and prints, under which name, and when it gives up
    SCALE = 'scale'  # how long it is, and on how large images and batches
    OPTIMIZER = 'optimizer'  # saved in the optimizer's state, which overrules the option where a run goes on
    START = 'start'  # how the first phase starts and ends; the fine-tune phase has its own
    # Of classifiers alone, by what a detector lacks.
    WHOLE_IMAGE = 'whole_image'
    MIXING = 'mixing'
    CLASSIFIER = 'classifier'
    CLASSIFIER_LOSS = 'classifier_loss'
    READER = 'reader'
    FURTHER = 'further'  # these change how one of the five above works

    @property
    def names(self) -> frozenset[str]:
        """The options that have it."""
        return frozenset(name for name, roles in ROLES.items() if self.value in roles)


DECLARED = {f'{prefix}{name}': one for config, prefix in CONFIGS for name, one in options_of(config).items()}
ROLES = {name: entry.get('roles', '').split() for name, entry in by_name().items()}
ROLES |= {name: one.roles.split() for name, one in DECLARED.items()}
# Do nothing without --repaint.
REPAINT_OPTIONS = frozenset(name for name, one in DECLARED.items() if one.group) - {'repaint'}


def unlike_defaults(parser: ArgumentParser, args: Namespace, names: frozenset[str]) -> list[str]:
    """The options of these names that have another value than the parser's default, as flags."""
    values = vars(args)
    unlike = [name for name in values if name in names and values[name] != parser.get_default(name)]
    return ['--' + name.replace('_', '-') for name in unlike]
