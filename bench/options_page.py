"""The documentation's page of options: `python -m bench.options_page > docs/options.md`."""

from itertools import groupby

import yaml

from timm_repaint.commands.show_options import repaint_options, show, value_of
from timm_repaint.markdown import markdown_table
from timm_repaint.options import build_parser
from timm_repaint.recipes import FOLDER

HEAD = """# Repaint's options

`python -m bench.options_page` writes this page. `python train.py --help` explains timm's options too.
An empty default: unset. `Repaint(...)` takes most of them by the same names: `prob=0.5` for `--repaint-prob 0.5`.
"""
RECIPES = {
    'robust': 'a pretrained network that learns from photographs',
    'shape': 'masks that follow objects, and a classifier that must not go by texture',
    'gentle': 'training that ends before it overfits',
}
ALL_RECIPES = """`-c NAME` sets these. `paper` is the training of the paper, `demo` a short one on built-in images, and
`tables/…` are [the paper's rows](tables.md). `timm-repaint options -c NAME` prints what any of them sets.
"""


def recipes() -> str:
    """A table of the recipes that set options of repaint alone."""
    rows = []
    for name, use in RECIPES.items():
        options = yaml.safe_load((FOLDER / f'{name}.yaml').read_text(encoding='utf-8'))
        flags = (
            f'--{key.replace("_", "-")}' + (f' {show(value)}' if value is not True else '')
            for key, value in options.items()
        )
        rows.append((f'`-c {name}`', f'`{" ".join(flags)}`', use))
    return f'## Recipes\n\n{ALL_RECIPES}\n{markdown_table(("recipe", "options", "for"), rows)}\n'


def page() -> str:
    """A table a group."""
    parser, parts = build_parser(), [HEAD, recipes()]
    for group, members in groupby(repaint_options(), key=lambda pair: pair[1].group):
        rows = [(f'`{flag}`', show(value_of(parser, flag)), one.help, one.paper) for flag, one in members]
        parts.append(f'## {group}\n\n{markdown_table(("option", "default", "does", "paper"), rows)}\n')
    return '\n'.join(parts)


if __name__ == '__main__':
    print(page(), end='')
