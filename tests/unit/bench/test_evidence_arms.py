"""The bench's arms become command lines that train.py takes."""

from pathlib import Path

import pytest

from bench.evidence.arms import ARMS, CONTROLS, select_arms
from bench.evidence.data import RECIPES, Subset
from bench.evidence.plan import Place, epochs_of_samples, parse_words, plan_run, plan_runs
from tests.helpers import REPO
from timm_repaint.errors import UsageError
from timm_repaint.options import build_config_parser, build_parser, check_options, parse_args
from timm_repaint.options.roles import REPAINT_OPTIONS

FOLDER = Subset('photos', 100, 10, RECIPES / '32px.yaml')
DRAWN = Subset('shapes', 100, 10, RECIPES / 'shapes.yaml', drawn=True)


def options_of(command):
    """The options of a train.py command."""
    assert command[1] == str(REPO / 'train.py')
    return parse_args(build_parser(), build_config_parser(), command[2:])[0]


def plan(name, output=Path('out'), subset=FOLDER, extra=()):
    return plan_run(subset, ARMS[name], 3, Place(output, ('--epochs', '60', *extra)))


@pytest.mark.parametrize('subset', [FOLDER, DRAWN], ids=['folder', 'shapes'])
@pytest.mark.parametrize('name', ARMS)
def test_train_takes_the_options_of_every_arm(name, subset, tmp_path):
    run = plan(name, tmp_path, subset)
    if run.needs is not None:
        run.needs.mkdir(parents=True)
        (run.needs / 'last.pth.tar').touch()
    options = options_of(run.commands[0])
    check_options(build_parser(), options)
    assert options.repaint == ('repaint' in name or 'segment' in name)
    assert (options.seed, options.num_classes, options.val_interval) == (3, 10, 1000)
    assert Path(options.output) / options.experiment == run.folder


@pytest.mark.parametrize('name', [name for name, arm in ARMS.items() if '--repaint' in arm.options])
def test_what_a_repaint_arm_drops_after_its_first_phase_are_repaint_options(name):
    """fine_tune.py drops these alone; any other option of the first phase would stay."""
    with_first = vars(parse_words(ARMS[name].first.split(), name))
    without = vars(parse_words([], name))
    changed = {option for option in with_first if with_first[option] != without[option]}
    assert changed and all(option == 'repaint' or option in REPAINT_OPTIONS for option in changed)


def test_both_kinds_of_arms_have_the_same_phases():
    plain, repaint = plan('plain'), plan('repaint')
    assert plain.epochs == repaint.epochs == (45, 60)
    first, second = map(options_of, plain.commands)
    assert (first.stop_epoch, first.resume) == (45, '')
    assert (second.stop_epoch, second.resume) == (None, str(plain.folder / 'last.pth.tar'))
    assert Path(second.output) / second.experiment == plain.folder / 'fine_tune'
    assert options_of(repaint.commands[0]).stop_epoch is None
    assert repaint.commands[1][1:] == (str(REPO / 'fine_tune.py'), str(repaint.folder))


def test_colour_jitter_of_the_control_ends_with_the_first_phase():
    first, second = map(options_of, plan('plain-jitter').commands)
    assert (first.color_jitter, first.color_jitter_prob, first.grayscale_prob) == (0.8, 0.8, 0.2)
    assert (second.color_jitter, second.color_jitter_prob, second.grayscale_prob) == (0.0, None, None)


def test_cutmix_and_default_augmentation_stay_in_both_phases():
    for name in ('cutmix', 'default-aug'):
        first, second = map(options_of, plan(name).commands)
        assert (first.cutmix, first.scale, first.color_jitter) == (second.cutmix, second.scale, second.color_jitter)
    assert (second.scale, second.color_jitter) == ([0.08, 1.0], 0.4)


def test_a_frozen_generator_is_that_of_the_same_images_and_seed():
    run = plan('repaint-frozen')
    assert run.needs == Path('out/runs/photos-100/repaint/seed-3')
    assert options_of(run.commands[0]).repaint_checkpoint == str(run.needs / 'last.pth.tar')


def test_stored_masks_are_for_files_and_default_parameters_only():
    assert options_of(plan('repaint').commands[0]).mask_dir == 'out/masks/photos-100'
    assert not plan('plain').stored_masks
    assert not plan('repaint', subset=DRAWN).stored_masks
    assert not plan('repaint', extra=('--fh-scale', '30')).stored_masks


def test_the_gentle_arm_has_the_options_of_the_gentle_recipe():
    recipe = parse_words(['-c', str(RECIPES.parent / 'gentle.yaml')], 'gentle')
    changed = {name for name, value in vars(recipe).items() if value != build_parser().get_default(name)} - {'config'}
    assert changed == {'repaint', 'repaint_mix', 'repaint_segment_kl_weight'} and recipe.mask == 'fh'
    arm = plan('default-aug-repaint-gentle').options
    assert all(getattr(arm, name) == getattr(recipe, name) for name in changed)


def test_extra_options_come_last_and_a_phase_of_all_epochs_is_the_only_one():
    run = plan('cutmix-repaint', extra=('--epochs', '8', '--repaint-epochs', '8', '--cutmix', '0.5'))
    options = options_of(run.commands[0])
    assert (options.epochs, options.cutmix) == (8, 0.5)
    assert run.epochs == (8,) and len(run.commands) == 1


@pytest.mark.parametrize(
    ('options', 'epochs'),
    [
        ('--epochs 60', 60),
        ('--epochs 60 --repaint-mix both', 82),  # 45 * 1.5 + 15 = 82.5
        ('--epochs 60 --repaint-separate-batches', 45),  # 45 * 2/3 + 15
        ('--epochs 60 --repaint-separate-batches --repaint-mix both --repaint-prob 1', 75),  # 45 * 2/3 * 2 + 15
        ('--epochs 60 --repaint-separate-batches --repaint-schedule 1:2', 30),  # 45 / 3 + 15
        ('--epochs 60 --repaint-separate-batches --repaint-epochs 30', 50),  # 30 * 2/3 + 30
    ],
)
def test_plain_training_sees_as_many_samples_in_so_many_epochs(options, epochs):
    assert epochs_of_samples(parse_words(options.split(), 'repaint')) == epochs


def test_the_samples_control_follows_the_options_of_the_runs():
    assert plan('plain').epochs == (45, 60)
    assert plan('plain-samples').epochs == plan('default-aug-samples').epochs == (61, 82)
    assert plan('default-aug-samples').options.color_jitter == 0.4
    separate = ('--repaint-separate-batches',)
    assert plan('plain-samples', extra=separate).epochs == (45, 60)
    assert plan('plain-samples', extra=('--epochs', '20')).epochs == (21, 28)  # 15 * 1.5 + 5 = 27.5


def test_runs_come_seed_by_seed_and_each_behind_the_one_that_it_needs():
    arms = select_arms(['repaint-frozen', 'plain'], [])
    runs = plan_runs([FOLDER, DRAWN], arms, [5, 6], Place(Path('out')))
    assert [arm.name for arm in arms] == ['plain', 'repaint', 'repaint-frozen']
    assert [run.seed for run in runs] == [5] * 6 + [6] * 6
    assert runs[2].needs == runs[1].folder


def test_baselines_and_controls_are_arms():
    assert {arm.baseline for arm in ARMS.values()} - {''} <= ARMS.keys()
    assert set(CONTROLS) <= ARMS.keys()
    assert ARMS['cutmix-repaint'].baseline == 'cutmix'
    assert ARMS['default-aug-repaint'].baseline == 'default-aug'


def test_headline_and_all_are_groups():
    assert [arm.name for arm in select_arms(['headline'], [])] == ['plain', 'repaint']
    assert [arm.name for arm in select_arms(['all'], [])] == list(ARMS)


def test_an_arm_of_ones_own_stands_beside_the_table():
    *_, own = select_arms(['headline'], ['wide=--repaint --repaint-width 32'])
    assert (own.name, own.baseline) == ('wide', 'plain')
    run = plan_run(FOLDER, own, 0, Place(Path('out')))
    assert options_of(run.commands[0]).repaint_width == 32


@pytest.mark.parametrize(
    ('arms', 'own', 'message'),
    [
        (['plain', 'plane'], [], 'there is no arm plane; choose from all, headline, plain, repaint'),
        (['plain'], ['repaint=--repaint'], '--arm repaint: there already is an arm of this name'),
        (['plain'], ['a=', 'a='], '--arm a: there already is'),
        (['plain'], ['--repaint'], "--arm is '--repaint', but must be a name and its options"),
        (['plain'], ['a/b=--repaint'], 'must be a name and its options'),
        (['plain'], ["a=--mask 'fh"], 'No closing quotation'),
    ],
)
def test_arms_that_do_not_exist_or_do_not_fit_are_refused(arms, own, message):
    with pytest.raises(UsageError, match=message):
        select_arms(arms, own)


def test_an_option_that_train_does_not_know_is_named_with_its_arm(capsys):
    (*_, own) = select_arms([], ['odd=--repaint-wings 2'])
    with pytest.raises(UsageError, match=r'arm odd: .* refuses its options: unrecognized arguments: --repaint-wings'):
        plan_run(FOLDER, own, 0, Place(Path('out')))
    assert capsys.readouterr().err == ''
