"""Markdown tables that can be read as they are."""

import re
from collections.abc import Sequence

NUMBER = re.compile(r'[+-]?\d')


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with columns of equal width; columns in which each digit belongs to a number are set to the right."""
    columns = []
    for name, *cells in zip(head, *rows, strict=True):
        width = max(3, *map(len, (name, *cells)))
        with_digits = [cell for cell in cells if re.search(r'\d', cell)]
        if with_digits and all(map(NUMBER.match, with_digits)):
            columns.append([cell.rjust(width) for cell in (name, '-' * (width - 1) + ':', *cells)])
        else:
            columns.append([cell.ljust(width) for cell in (name, '-' * width, *cells)])
    return '\n'.join(f'| {" | ".join(line)} |' for line in zip(*columns, strict=True))
