"""The paper's figures: they add up, and they are those of its text."""

import re
import sys

import pytest

from timm_repaint.errors import UsageError
from timm_repaint.report.tables_runs import load_pandas, paper_figures

ROUNDING = 0.0151  # three figures with two digits each
MODELS = {
    'MobileNetV2': 'MobileNetv2',
    **{f'EfficientNet-B{size}': f'EffNet-B{size}' for size in range(4)},
    **{f'EfficientDet-D{size}': f'EffDet-D{size}' for size in range(4)},
}
METHODS = {
    'Baseline': 'Baseline',
    'Shape-ResNet': 'Shape-ResNet [17] (rerun)',
    'SPADE + task loss': '[17] + task-specific loss',
    'Repaint': 'Ours (Repaint)',
    'CutMix + Repaint': 'CutMix+Repaint',
    'CutMix + DropBlock + Repaint': 'CutMix+DropBlock+Repaint',
}
# As printed under Tables 4 and 5, by mask: gain, lowest, highest.
AVERAGES = {
    4: {'DeepLab-v2': (0.77, 0.54, 0.99), 'FH': (0.64, 0.41, 0.85)},
    5: {'DeepLab-v2': (1.22, 1.17, 1.44), 'FH': (0.96, 0.75, 1.18)},
}
GAIN = ['paper_gain', 'paper_min', 'paper_max']


def table(number):
    """A table's figures, with the two parts of their rows' names."""
    figures = paper_figures()
    rows = figures[figures['table'] == number]
    names = rows['row'].str.rpartition(', ')
    return rows.assign(model=names[0], arm=names[2])


def test_gains_are_repaint_minus_baseline_to_the_papers_rounding():
    figures = paper_figures()
    printed = figures.dropna(subset=['paper', 'paper_gain'])
    baselines = figures[figures['recipe'] == figures['baseline']].set_index(['table', 'recipe', 'metric'])['paper']
    assert len(printed) == 22
    for row in printed.itertuples():
        gain = row.paper - baselines[row.table, row.baseline, row.metric]
        assert gain == pytest.approx(row.paper_gain, abs=ROUNDING)


@pytest.mark.parametrize(('values', 'gains'), [(1, 4), (2, 5)], ids=['ImageNet', 'COCO'])
def test_gains_by_mask_are_those_of_the_models_and_lie_in_their_ranges(values, gains):
    by_model = table(values).query('arm == "Repaint"').set_index('model')['paper_gain']
    rows = table(gains)
    assert (rows['paper_min'] < rows['paper_gain']).all() and (rows['paper_gain'] < rows['paper_max']).all()
    for arm in AVERAGES[gains]:
        assert set(rows[rows['arm'] == arm]['model']) == set(by_model.index)
    deeplab = rows[rows['arm'] == 'DeepLab-v2'].set_index('model')['paper_gain']
    assert deeplab.to_dict() == by_model.to_dict()


def test_averages_over_models_are_off_as_the_data_says():
    sums = {number: table(number).groupby('arm')[GAIN].sum() for number in AVERAGES}
    for mask, averages in AVERAGES[4].items():
        for total, average in zip(sums[4].loc[mask], averages, strict=True):
            assert total / 5 == pytest.approx(average, abs=0.0101)
            assert abs(total / 6 - average) > 0.05
    off = [
        (mask, part)
        for mask, averages in AVERAGES[5].items()
        for part, total, average in zip(GAIN, sums[5].loc[mask], averages, strict=True)
        if abs(total / 4 - average) > 0.0101
    ]
    assert off == [('DeepLab-v2', 'paper_min')]


def test_figures_that_several_tables_print_are_the_same():
    figures = paper_figures().dropna(subset='paper')
    assert (figures.groupby(['recipe', 'metric'])['paper'].nunique() == 1).all()


def test_without_pandas_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pandas', None)
    with pytest.raises(UsageError, match=r"^report tables needs pandas: pip install '\.\[report\]'$"):
        load_pandas()


def numbers(text):
    return [float(number) for number in re.findall(r'[0-9]+(?:[.][0-9]+)?', text)]


@pytest.fixture(scope='module')
def printed(shared_paper):
    """The paper's tables by number: their lines, each as its first cell and the others."""
    tables, lines = {}, []
    for line in shared_paper.read_text().splitlines():
        number = re.match(r'Table ([0-9]): ', line)
        if number:
            tables[int(number[1])], lines = lines, []
        elif '\t' in line:
            name, _, rest = line.partition('\t')
            lines.append((name, rest.split('\t')))
    return tables


@pytest.mark.parametrize('number', [1, 2])
def test_accuracies_are_those_of_the_text(printed, number):
    lines = dict(printed[number])
    for model, rows in table(number).groupby('model'):
        wanted = [*rows['paper'], rows['paper_gain'].iloc[-1]]
        assert numbers(' '.join(lines[MODELS.get(model, model)][2:])) == wanted


def test_methods_are_those_of_the_text(printed):
    lines = {re.sub(r' \[[0-9, ]+\]$', '', name): cells for name, cells in printed[3]}
    rows = table(3)
    assert len(rows) == 12
    for row in rows.itertuples():
        assert float(lines[METHODS.get(row.row, row.row)][-1]) == row.paper


@pytest.mark.parametrize('number', [4, 5])
def test_ranges_are_those_of_the_text(printed, number):
    lines = dict(printed[number])
    for model, rows in table(number).groupby('model'):
        wanted = [list(row) for row in rows[GAIN].itertuples(index=False)]
        assert [numbers(cell) for cell in lines[MODELS.get(model, model)]] == wanted
    assert [tuple(numbers(cell)) for cell in lines['Average']] == list(AVERAGES[number].values())


@pytest.mark.parametrize('number', [6, 7])
def test_shares_of_the_data_are_those_of_the_text(printed, number):
    lines, rows = dict(printed[number]), table(number)
    for arm, name in {'baseline': 'Baseline', 'Repaint': 'Ours (Repaint)'}.items():
        assert numbers(' '.join(lines[name])) == list(rows[rows['arm'] == arm]['paper'])
    assert numbers(' '.join(lines['Gains'])) == list(rows['paper_gain'].dropna())
