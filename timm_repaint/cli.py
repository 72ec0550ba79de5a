"""`timm-repaint COMMAND …`, or `python -m timm_repaint.cli COMMAND …`: a table of the programs, each loaded at use."""

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import NamedTuple, NoReturn

from timm_repaint.errors import run_command
from timm_repaint.version import __version__

PROGRAM = 'timm-repaint'
MISTAKE = 2  # argparse's exit status


class Command(NamedTuple):
    """A program: where its function is, and its line of the help."""

    module: str
    function: str
    help: str


COMMANDS = {
    'train': Command('classification', 'train', 'train a classifier; with --repaint, on repaints of its images'),
    'fine-tune': Command('classification', 'fine_tune', 'the fine-tune phase of a run with --repaint'),
    'detect train': Command('detection.train', 'main', 'train a detector, with the same options'),
    'detect fine-tune': Command('detection.fine_tune', 'main', 'the fine-tune phase of its run'),
    'detect validate': Command('detection.validate', 'main', 'the figures of a detector'),
    'masks': Command('masks.__main__', 'main', 'make the masks of a folder of images, or check them'),
    'paint': Command('paint', 'main', 'repaint images: with a trained run, or without'),
    'report': Command('report.__main__', 'main', "reports on finished runs, and the paper's tables"),
    'push': Command('report.push', 'main', 'a finished classifier to the Hugging Face Hub'),
    'benchmark': Command('benchmark.__main__', 'main', 'time, memory and size of the repaint phase'),
    'stylize': Command('baselines.stylize', 'main', 'stylized images for Shape-ResNet'),
    'options': Command('commands.show_options', 'main', "repaint's options, and what a recipe makes of any option"),
    'slurm': Command('commands.write_jobs', 'main', 'write job scripts for a SLURM cluster'),
    'env': Command('commands.show_environment', 'main', 'versions and hardware, for bug reports'),
}


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command that the command line names (None: that of the process); ends with its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] in (['-h'], ['--help'], ['help']):
        print(usage())
        sys.exit(0)
    if words[:1] == ['--version']:
        print(f'{PROGRAM} {__version__}')
        sys.exit(0)
    name, rest = find_command(words)
    command = COMMANDS[name]
    before, sys.argv = sys.argv, [f'{PROGRAM} {name}', *rest]  # the programs read it, and name themselves by its first
    try:
        run_command(lambda: getattr(import_module(f'timm_repaint.{command.module}'), command.function)())
    finally:
        sys.argv = before


def find_command(words: Sequence[str]) -> tuple[str, list[str]]:
    """The command's name, of one or two words, and its own words; unknown ones end the program with the choices."""
    for length in (2, 1):
        name = ' '.join(words[:length]).replace('_', '-')
        if name in COMMANDS:
            return name, list(words[length:])
    group = [name for name in COMMANDS if words and name.startswith(f'{words[0]} ')]
    if group and words[1:2] in (['-h'], ['--help']):
        print(usage(group))
        sys.exit(0)
    wrong = ' '.join(words[: 2 if group else 1])
    complaint = f'no command is called {wrong!r}' if wrong else 'no command is given'
    similar = [f'did you mean {name}?' for name in get_close_matches(wrong, COMMANDS, n=1) if not group]
    advice = ' '.join([*similar, f'choose from {", ".join(group or COMMANDS)}'])
    print(f'{PROGRAM}: error: {complaint}; {advice}', file=sys.stderr)
    sys.exit(MISTAKE)


def usage(names: Sequence[str] = tuple(COMMANDS)) -> str:
    """The help: a line a command."""
    width = max(map(len, names))
    lines = (f'  {name:<{width}}  {COMMANDS[name].help}' for name in names)
    return '\n'.join([f'usage: {PROGRAM} COMMAND ...; {PROGRAM} COMMAND --help has its options', '', *lines])


if __name__ == '__main__':
    main()
