"""What pyproject.toml declares is what the package imports."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
# Used where they are installed, with their extra; '': timm's own options, for those who have the package.
OPTIONAL = {
    'cv2': 'fast',
    'effdet': 'detection',
    'faster_coco_eval': 'detection',
    'wandb': '',
    'webdataset': '',
}


def imported() -> set[str]:
    """The packages of others that the package imports."""
    found = set()
    for path in (REPO / 'timm_repaint').rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {name.name.split('.')[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or '').split('.')[0])
    return found - set(sys.stdlib_module_names) - {'timm_repaint'}


def normal(requirement: str) -> str:
    return re.sub(r'[-_.]+', '-', re.split(r'[<>=!;\[ ]', requirement)[0]).lower()


def test_the_packages_that_are_imported_are_those_that_are_declared():
    tomllib = pytest.importorskip('tomllib')  # Python 3.11
    project = tomllib.loads((REPO / 'pyproject.toml').read_text())['project']
    distributions = packages_distributions()
    needed = {normal(distributions[name][0]) for name in imported() - set(OPTIONAL)}
    assert needed == {normal(row) for row in project['dependencies']}
    assert set(filter(None, OPTIONAL.values())) <= set(project['optional-dependencies'])
