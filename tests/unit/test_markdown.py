from timm_repaint.markdown import markdown_table


def test_columns_are_equally_wide_and_numbers_stand_to_the_right():
    rows = [('resnet50', '+1.30 (+0.60)', '8', 'missing'), ('vit', '-', '16', '-')]
    assert markdown_table(('arm', 'gain', 'n', 'ours'), rows).splitlines() == [
        '| arm      |          gain |   n | ours    |',
        '| -------- | ------------: | --: | ------- |',
        '| resnet50 | +1.30 (+0.60) |   8 | missing |',
        '| vit      |             - |  16 | -       |',
    ]


def test_a_table_without_rows_has_a_head():
    assert markdown_table(('a', 'data'), []) == '| a   | data |\n| --- | ---- |'
