"""The recipes that come with the package, by name: `demo`, `tables/resnet50-repaint`.

What several of them have in common stands in `base/`, which is no recipe: theirs name it in a line `base`.
"""

from importlib.resources import files
from pathlib import Path

from timm_repaint.errors import UsageError

FOLDER = Path(str(files(__name__)))
BASES = FOLDER / 'base'
ENDING = '.yaml'


def recipe_names() -> list[str]:
    """All recipes, those of the top folder first."""
    files = (path for path in FOLDER.rglob(f'*{ENDING}') if not path.is_relative_to(BASES))
    names = (path.relative_to(FOLDER).with_suffix('') for path in files)
    return [name.as_posix() for name in sorted(names, key=lambda name: (len(name.parts), name))]


def find_recipe(name: str) -> str:
    """The file that `-c NAME` means: a file of that name, or else the recipe of that name.

    Paths that end in .yaml, start with / or . are left as they are, whether there is such a file or not.

    Raises:
        UsageError: if there is neither.
    """
    path = Path(name)
    is_path = path.suffix in (ENDING, '.yml') or path.is_absolute() or name.startswith('.') or '..' in path.parts
    if not name or is_path or path.is_file():
        return name
    if path.as_posix() in recipe_names():
        return str(FOLDER / f'{path}{ENDING}')
    raise UsageError(f'there is no file {name}, and no recipe; the recipes are {_beside(name)}')


def _beside(name: str) -> str:
    """Names for advice: the recipes of the same folder, or those of the top folder, and the other folders."""
    names = recipe_names()
    folder = name.rpartition('/')[0]
    same = [other for other in names if other.rpartition('/')[0] == folder]
    if folder and same:
        return ', '.join(same)
    folders = dict.fromkeys(other.rpartition('/')[0] for other in names if '/' in other)
    top = [other for other in names if '/' not in other]
    return f'{", ".join(top)}, and those in {", ".join(f"{folder}/" for folder in folders)}'
