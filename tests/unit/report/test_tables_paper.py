"""The paper's figures: they add up, and they are those of its text."""

import re

import pytest

from timm_repaint.report import tables_paper as paper

ROUNDING = 0.0151  # three figures with two digits each
MODELS = {
    'MobileNetV2': 'MobileNetv2',
    **{f'EfficientNet-B{size}': f'EffNet-B{size}' for size in range(4)},
    **{f'EfficientDet-D{size}': f'EffDet-D{size}' for size in range(4)},
}
METHODS = {
    'Shape-ResNet': 'Shape-ResNet [17] (rerun)',
    'SPADE + task loss': '[17] + task-specific loss',
    'Repaint': 'Ours (Repaint)',
    'CutMix + Repaint': 'CutMix+Repaint',
    'CutMix + DropBlock + Repaint': 'CutMix+DropBlock+Repaint',
}


def test_gains_are_repaint_minus_baseline_to_the_papers_rounding():
    rows = [(row[0], row[2], row[3]) for table in (paper.TABLE_1, paper.TABLE_2) for row in table.values()]
    rows += [*paper.TABLE_6.values(), *paper.TABLE_7.values()]
    assert len(rows) == 22
    for baseline, repaint, gain in rows:
        assert repaint - baseline == pytest.approx(gain, abs=ROUNDING)


@pytest.mark.parametrize(
    ('values', 'gains'), [(paper.TABLE_1, paper.TABLE_4), (paper.TABLE_2, paper.TABLE_5)], ids=['ImageNet', 'COCO']
)
def test_gains_by_mask_are_those_of_the_models_and_lie_in_their_ranges(values, gains):
    assert gains.keys() == values.keys()
    for model, both in gains.items():
        assert both[0][0] == values[model][3]
        for gain, low, high in both:
            assert low < gain < high


def test_averages_over_models_are_off_as_the_data_says():
    for mask, averages in enumerate(paper.TABLE_4_AVERAGES):
        for part, average in enumerate(averages):
            total = sum(row[mask][part] for row in paper.TABLE_4.values())
            assert total / 5 == pytest.approx(average, abs=0.0101)
            assert abs(total / 6 - average) > 0.05
    off = [
        (mask, part)
        for mask, averages in enumerate(paper.TABLE_5_AVERAGES)
        for part, average in enumerate(averages)
        if abs(sum(row[mask][part] for row in paper.TABLE_5.values()) / 4 - average) > 0.0101
    ]
    assert off == [(0, 1)]


def test_figures_that_several_tables_print_are_the_same():
    values = {}
    for entry in paper.all_entries():
        if entry.value is not None:
            assert values.setdefault((entry.recipe, entry.metric), entry.value) == entry.value


def figures(text):
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


@pytest.mark.parametrize(('number', 'table'), [(1, paper.TABLE_1), (2, paper.TABLE_2)])
def test_accuracies_are_those_of_the_text(printed, number, table):
    lines = dict(printed[number])
    for model, row in table.items():
        cells = lines[MODELS.get(model, model)]
        assert figures(' '.join(cells[2:])) == list(row)


def test_methods_are_those_of_the_text(printed):
    lines = {re.sub(r' \[[0-9, ]+\]$', '', name): cells for name, cells in printed[3]}
    for method, (_, value) in paper.TABLE_3.items():
        assert float(lines[METHODS.get(method, method)][-1]) == value


@pytest.mark.parametrize(
    ('number', 'table', 'averages'),
    [(4, paper.TABLE_4, paper.TABLE_4_AVERAGES), (5, paper.TABLE_5, paper.TABLE_5_AVERAGES)],
)
def test_ranges_are_those_of_the_text(printed, number, table, averages):
    lines = dict(printed[number])
    for model, row in {**table, 'Average': averages}.items():
        assert [tuple(figures(cell)) for cell in lines[MODELS.get(model, model)]] == list(row)


@pytest.mark.parametrize(('number', 'table'), [(6, paper.TABLE_6), (7, paper.TABLE_7)])
def test_shares_of_the_data_are_those_of_the_text(printed, number, table):
    lines = dict(printed[number])
    for place, name in enumerate(('Baseline', 'Ours (Repaint)', 'Gains')):
        assert figures(' '.join(lines[name])) == [row[place] for row in table.values()]
