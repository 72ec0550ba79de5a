"""The package's recipes: each gives the options that are written down here, whatever bases it stands on."""

import json
from functools import cache
from pathlib import Path

import pytest
import yaml

from timm_repaint.detection.options import build_parser as build_detection_parser
from timm_repaint.options import build_parser
from timm_repaint.options.option_files import with_file
from timm_repaint.recipes import BASES, FOLDER, find_recipe, recipe_names

# By recipe: its options that differ from the defaults of the script that it is for.
WANTED = json.loads((Path(__file__).parent / 'recipes.json').read_text())


@cache
def parser_of(detection):
    return build_detection_parser() if detection else build_parser()


def test_each_recipe_is_written_down_and_no_base_is_a_recipe():
    files = {path.relative_to(FOLDER).with_suffix('').as_posix() for path in FOLDER.rglob('*.yaml')}
    assert WANTED.keys() == set(recipe_names()) == {name for name in files if not name.startswith('base/')}


@pytest.mark.parametrize('name', WANTED)
def test_a_recipe_gives_the_options_that_are_written_down(name):
    parser = parser_of('detection' in name)
    defaults, options = (vars(each.parse_args([])) for each in (parser, with_file(parser, name)))
    assert {key: value for key, value in options.items() if value != defaults[key]} == WANTED[name]


def test_each_base_is_used():
    recipes = [Path(find_recipe(name)) for name in recipe_names()]
    used = set()
    for path in [*recipes, *BASES.iterdir()]:
        names = yaml.safe_load(path.read_text()).get('base', [])
        used |= {(path.parent / name).resolve() for name in ([names] if isinstance(names, str) else names)}
    assert set(BASES.resolve().iterdir()) <= used
