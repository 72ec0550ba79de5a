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
    try:
        with open(folder / SUMMARY, newline='') as file:
            row = {name: float(value) for name, value in list(csv.DictReader(file))[-1].items()}
        done = row['epoch'] + 1
    except (OSError, IndexError, csv.Error, UnicodeDecodeError):
        raise UnfinishedError(f'{folder / SUMMARY} has no row') from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UnfinishedError(f'the last row of {folder / SUMMARY} is not whole') from None
    if done != epochs:
        raise UnfinishedError(f'{folder} ends after {done:.0f} of {epochs} epochs')
    return row


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
