"""The documentation's page of options: `python -m bench.options_page > docs/options.md`."""

from itertools import groupby

from timm_repaint.commands.show_options import repaint_options, show, value_of
from timm_repaint.markdown import markdown_table
from timm_repaint.options import build_parser

HEAD = """# Repaint's options

`python -m bench.options_page` writes this page. `python train.py --help` explains timm's options too.
An empty default: unset. `Repaint(...)` takes most of them by the same names: `prob=0.5` for `--repaint-prob 0.5`.
"""


def page() -> str:
    """A table a group."""
    parser, parts = build_parser(), [HEAD]
    for group, members in groupby(repaint_options(), key=lambda pair: pair[1].group):
        rows = [(f'`{flag}`', show(value_of(parser, flag)), one.help, one.paper) for flag, one in members]
        parts.append(f'## {group}\n\n{markdown_table(("option", "default", "does", "paper"), rows)}\n')
    return '\n'.join(parts)


if __name__ == '__main__':
    print(page(), end='')
