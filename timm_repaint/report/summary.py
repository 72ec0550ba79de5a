"""The rows of a run's `summary.csv`."""

import csv
from pathlib import Path

SUMMARY = 'summary.csv'


class UnfinishedError(Exception):
    """A phase that ended before its last epoch."""


def read_last_row(folder: Path, epochs: int) -> dict[str, float]:
    """The last row of a phase's summary.csv.

    Raises:
        UnfinishedError: if it is not that of the last epoch.
    """
    rows, remark = read_rows(folder)
    if not rows:
        raise UnfinishedError(remark or f'{folder / SUMMARY} has no row')
    if (done := rows[-1]['epoch'] + 1) != epochs:
        raise UnfinishedError(remark or f'{folder} ends after {done:.0f} of {epochs} epochs')
    return rows[-1]


def read_rows(folder: Path) -> tuple[list[dict[str, float]], str]:
    """The rows of a phase's summary.csv by epoch, none where there is no file yet; and what is wrong with it, or ''."""
    path, rows, bad = folder / SUMMARY, {}, 0
    try:
        with open(path, newline='') as file:
            for texts in csv.DictReader(file):
                try:
                    row = {name: float(value) for name, value in texts.items()}
                    rows[int(row['epoch'])] = row
                except (ValueError, TypeError, KeyError, OverflowError):
                    bad += 1
    except FileNotFoundError:
        return [], ''
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        return [], f'{path} cannot be read: {error}'
    remark = f'{path}: {bad} of {bad + len(rows)} rows are not whole and left out' if bad else ''
    return [rows[epoch] for epoch in sorted(rows)], remark
