"""Files of options that stand on others by a line `base`."""

import os

import pytest
import yaml

from timm_repaint.options import build_config_parser, build_parser, parse_args
from timm_repaint.options.option_files import load_config


@pytest.fixture
def parse(tmp_path):
    """Parses a command line on top of row.yaml, beside other files, each given by its text."""

    def parse_files(files, *argv):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return parse_args(build_parser(), build_config_parser(), ['-c', str(tmp_path / 'row.yaml'), *argv])

    return parse_files


def stops_with(capsys, parse, files):
    """Message of the exit that the files cause."""
    with pytest.raises(SystemExit) as stop:
        parse(files)
    assert stop.value.code == 2
    return capsys.readouterr().err.splitlines()[-1].partition('error: ')[2]


def test_a_file_overrides_its_base_and_the_command_line_both(parse):
    files = {
        'row.yaml': 'base: base.yaml\nlr: 0.5\nmomentum: 0.8\n',
        'base.yaml': 'lr: 0.1\nepochs: 7\nmomentum: 0.1\n',
    }
    args, text = parse(files, '--momentum', '0.7')
    assert (args.lr, args.epochs, args.momentum) == (0.5, 7, 0.7)
    assert 'base' not in vars(args) and 'base' not in yaml.safe_load(text)


def test_a_base_counts_from_the_folder_of_the_file_that_names_it_and_may_have_one_itself(parse, tmp_path, monkeypatch):
    files = {
        'row.yaml': 'base: one/a.yaml\nlr: 0.3\n',
        'one/a.yaml': 'base: ../two/b.yaml\nlr: 0.2\nepochs: 2\n',
        'two/b.yaml': 'lr: 0.1\nepochs: 1\nseed: 1\n',
    }
    args, _ = parse(files)
    assert (args.lr, args.epochs, args.seed) == (0.3, 2, 1)
    monkeypatch.chdir(tmp_path / 'two')
    args, _ = parse_args(build_parser(), build_config_parser(), ['-c', '../row.yaml'])
    assert (args.lr, args.epochs, args.seed) == (0.3, 2, 1)


def test_of_several_bases_the_later_one_counts_and_two_may_stand_on_one(parse):
    files = {
        'row.yaml': 'base: [a.yaml, b.yaml]\nseed: 3\n',
        'a.yaml': 'base: c.yaml\nlr: 0.1\nepochs: 1\nseed: 1\n',
        'b.yaml': 'base: c.yaml\nlr: 0.2\nseed: 2\n',
        'c.yaml': 'momentum: 0.5\n',
    }
    args, _ = parse(files)
    assert (args.lr, args.epochs, args.seed, args.momentum) == (0.2, 1, 3, 0.5)


def test_another_name_of_an_option_overrides_it_too_and_null_brings_its_default_back(parse, tmp_path):
    files = {'row.yaml': 'base: base.yaml\ndr: 0.5\nopt-eps: null\n', 'base.yaml': 'decay_rate: 0.9\nopt_eps: 1.0e-3\n'}
    args, _ = parse(files)
    assert (args.decay_rate, args.opt_eps) == (0.5, None)
    assert load_config(build_parser(), str(tmp_path / 'row.yaml')) == {'decay_rate': 0.5, 'opt_eps': None}


@pytest.mark.parametrize(
    ('files', 'message'),
    [
        (
            {'row.yaml': 'base: lost.yaml\n'},
            'cannot read lost.yaml (base of row.yaml): No such file or directory; the path of a base counts from the '
            'folder of the file that names it',
        ),
        (
            {'row.yaml': 'base: base.yaml\n', 'base.yaml': '- lr\n'},
            'base.yaml (base of row.yaml) must hold lines of "option: value", but is [\'lr\']',
        ),
        (
            {'row.yaml': 'base: row.yaml\n'},
            'row.yaml is a base of itself (row.yaml > row.yaml); take the line "base" out of one of them',
        ),
        (
            {
                'row.yaml': 'base: a.yaml\n',
                'a.yaml': 'base: [c.yaml, b.yaml]\n',
                'b.yaml': 'base: a.yaml\n',
                'c.yaml': '{}',
            },
            'a.yaml is a base of itself (row.yaml > a.yaml > b.yaml > a.yaml); take the line "base" out of one of them',
        ),
        ({'row.yaml': 'base:\n'}, 'base wants the path of a YAML file, or a list of such, not empty (in row.yaml)'),
        ({'row.yaml': 'base: [3]\n'}, 'base wants the path of a YAML file, or a list of such, not [3] (in row.yaml)'),
        (
            {'row.yaml': 'base: base.yaml\nrepaint: true\n', 'base.yaml': 'repaint_colour: red\n'},
            'base.yaml names repaint_colour, but no option is called so',
        ),
        (
            {'row.yaml': 'base: base.yaml\nrepaint_colour: red\n', 'base.yaml': 'jsd: 1\nrepaint: true\n'},
            'base.yaml names jsd, but no option is called so',
        ),
        (
            {'row.yaml': 'base: base.yaml\n', 'base.yaml': 'repaint_split_bn: true\n'},
            'base.yaml has repaint_split_bn: True, an option that went away; use version 0.1, or leave it out',
        ),
    ],
)
def test_a_base_that_does_not_fit_stops_with_the_file_and_what_was_wanted(capsys, parse, tmp_path, files, message):
    error = stops_with(capsys, parse, files)
    assert error.replace(f'{tmp_path}{os.sep}', '') == f'argument -c/--config: {message}'


def test_a_wrong_value_is_told_with_the_file_that_has_it(capsys, parse, tmp_path):
    error = stops_with(capsys, parse, {'row.yaml': 'base: base.yaml\nlr: 0.1\n', 'base.yaml': 'epochs: many\n'})
    assert error == f"argument --epochs: wants an integer, not 'many' (in {tmp_path}/base.yaml)"
    error = stops_with(capsys, parse, {'row.yaml': 'base: base.yaml\nepochs: few\n', 'base.yaml': 'epochs: 3\n'})
    assert error.endswith(f'(in {tmp_path}/row.yaml)')
