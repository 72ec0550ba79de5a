"""A folder that a command fills belongs to it: a manifest says what the files in it are made from."""

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from timm_repaint.errors import UsageError, as_mistake
from timm_repaint.files import write_text

MANIFEST_NAME = 'manifest.json'
DIGEST = re.compile('[0-9a-f]{64}')
VERSION = 'timm_repaint'  # in a manifest; files of another version are none of another kind


def read_values(folder: str | Path) -> dict[str, Any]:
    """What the manifest of a folder says.

    Raises:
        OSError: if there is none.
        UsageError: if it is not one.
    """
    path = Path(folder) / MANIFEST_NAME
    with as_mistake(f'{path} is not a manifest', ValueError, RecursionError):
        values = json.loads(path.read_text(encoding='utf-8'))
    if not isinstance(values, dict):
        raise UsageError(f'{path} is not a manifest: it holds a {type(values).__name__}')
    return values


def claim(folder: str | Path, values: dict[str, Any]) -> None:
    """Writes the manifest of a new folder, or checks that an old one's is the same.

    Of processes that start together one writes it; the others compare.

    Args:
        folder: It is made.
        values: What this run makes, plain values.

    Raises:
        UsageError: if the folder holds files of another kind, other files or cannot be written.
    """
    path = Path(folder) / MANIFEST_NAME
    if not path.exists():
        if _holds_files(path.parent) and not path.exists():  # again: another process may have begun in between
            raise UsageError(f'{folder} holds files, but no {MANIFEST_NAME}; give an empty or a new folder')
        write_text(path, json.dumps(values, indent=2) + '\n', place=_link)
    with as_mistake(str(path)):
        found = differences(read_values(folder), values)
    if found:
        raise UsageError(f'{path} is of others: {"; ".join(found)}; use the same options, or another folder')


def differences(mine: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """What another manifest has otherwise, one 'name is A, not B' each, A the first one's value."""
    ours, others = _flat(mine), _flat(theirs)
    names = sorted((ours.keys() | others.keys()) - {VERSION})
    differ = [name for name in names if ours.get(name) != others.get(name)]
    if 'source' in differ:  # another source has other settings, which say nothing more
        differ = [name for name in differ if name in ours and name in others]
    return [f'{name} is {_show(ours.get(name))}, not {_show(others.get(name))}' for name in differ]


def _show(value: Any) -> str:
    text = 'none' if value is None else str(value)
    return f'{text[:8]}...' if DIGEST.fullmatch(text) else text


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """Values within a value beside the others."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat.update(value if isinstance(value, dict) else {name: value})
    return flat


def _holds_files(folder: Path) -> bool:
    with as_mistake(str(folder)), suppress(FileNotFoundError):
        return any(not name.startswith('.') for name in os.listdir(folder))
    return False


def _link(part: Path, path: Path) -> None:
    """Puts a file in its place unless another process was faster; file systems without hard links replace it."""
    try:
        os.link(part, path)
    except FileExistsError:
        pass
    except OSError:
        os.replace(part, path)
