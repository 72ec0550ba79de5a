"""`timm-repaint slurm DIR`: the job scripts of `recipes/slurm`, each whole in one file, for the installed package.

The scripts of the package are those of a checkout: they read `launch.sh` from it. Here its text stands in its place,
as SLURM runs a copy of a script and nothing beside it; without a checkout the scripts start the installed program.
"""

import re
import shlex
from argparse import ArgumentParser
from pathlib import Path

from timm_repaint.errors import UsageError, as_mistake
from timm_repaint.files import write_text
from timm_repaint.recipes import FOLDER

SCRIPTS = FOLDER / 'slurm'
SHARED = 'launch.sh'
IN_CHECKOUT = 'timm_repaint/recipes/slurm'
# Of a script: the line for shellcheck, and the one that reads the shared part.
SOURCE_LINES = re.compile(rf'# shellcheck source={SHARED}\nsource {IN_CHECKOUT}/{SHARED}\n')


def main() -> int:
    """Write the scripts, and say what to do with them; returns the process's exit status."""
    parser = ArgumentParser(
        prog='timm-repaint slurm',
        description='Write job scripts for a SLURM cluster with the installed package; they need no checkout.',
    )
    parser.add_argument('folder', type=Path, metavar='DIR', help='where the scripts go')
    parser.add_argument('--force', action='store_true', help='overwrite scripts there that are others')
    args = parser.parse_args()
    texts = job_scripts(args.folder)
    write_scripts(args.folder, texts, args.force)
    print(f'{len(texts)} scripts are in {args.folder}: {", ".join(texts)}. Each says at its top how it is submitted.')
    return 0


def job_scripts(folder: Path) -> dict[str, str]:
    """Text by name of the scripts for this folder."""
    shared = (SCRIPTS / SHARED).read_text()
    paths = [path for path in sorted(SCRIPTS.iterdir()) if path.suffix in ('.sbatch', '.sh') and path.name != SHARED]
    return {path.name: stand_alone(path.read_text(), shared, shlex.quote(str(folder))) for path in paths}


def stand_alone(script: str, shared: str, folder: str) -> str:
    """A script with the shared part in it, and its own comments naming the folder that it is in."""
    body = SOURCE_LINES.sub(lambda _: '\n' + shared.partition('\n')[2], script)
    lines = body.splitlines(keepends=True)
    return ''.join(line.replace(IN_CHECKOUT, folder) if line.startswith('# ') else line for line in lines)


def write_scripts(folder: Path, texts: dict[str, str], force: bool) -> None:
    """Write all of them, executable.

    Raises:
        UsageError: if one that is there is another one, and not `force`, or the folder is none: nothing is written
            then; or if one cannot be written.
    """
    with as_mistake(f'cannot read {folder}'):
        others = [name for name, text in texts.items() if is_other(folder / name, text)]
    if others and not force:
        raise UsageError(f'{folder} has other scripts: {", ".join(others)}; give another folder, or --force')
    if folder.exists() and not folder.is_dir():
        raise UsageError(f'{folder} is no folder; give another one')
    for name, text in texts.items():
        write_text(folder / name, text)
        (folder / name).chmod(0o755)


def is_other(path: Path, text: str) -> bool:
    """Whether something is there that is no file with this text."""
    return path.exists() and not (path.is_file() and path.read_bytes() == text.encode())
