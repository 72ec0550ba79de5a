import io

from timm_repaint.progress import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_items_pass_through_in_order():
    assert list(progress('abc', 'letters', stream=io.StringIO())) == ['a', 'b', 'c']


def test_a_log_file_gets_a_line_every_tenth_of_the_way_however_many_items():
    stream = io.StringIO()
    assert sum(progress(range(5000), 'masks', stream=stream)) == 12497500
    lines = stream.getvalue().splitlines()
    assert [line.split('] ')[1].split(',')[0] for line in lines] == [f'{500 * tenth}/5000' for tenth in range(11)]
    assert '\r' not in stream.getvalue()
    assert lines[5].startswith('masks [' + '#' * 15 + ' ' * 15 + '] 2500/5000, ') and lines[5].endswith(' s left')
    assert lines[-1] == 'masks [' + '#' * 30 + '] 5000/5000'


def test_a_log_file_gets_no_more_lines_than_items():
    stream = io.StringIO()
    list(progress(range(3), 'masks', stream=stream))
    assert [line.split('] ')[1].split(',')[0] for line in stream.getvalue().splitlines()] == [
        '0/3',
        '1/3',
        '2/3',
        '3/3',
    ]


def test_a_terminal_gets_one_line_that_is_drawn_over_at_most_201_times():
    stream = Terminal()
    list(progress(range(5000), 'masks', stream=stream))
    text = stream.getvalue()
    assert text.count('\n') == 1 and text.endswith('\n')
    assert text.count('\r') == 201
    assert {len(frame) for frame in text.rstrip('\n').split('\r')[1:]} == {79}  # each covers the one before


def test_no_items_are_done_at_once():
    for stream in (io.StringIO(), Terminal()):
        assert list(progress([], 'masks', stream=stream)) == []
        assert '0/0' in stream.getvalue() and stream.getvalue().count('\n') == 1


def test_a_total_stands_in_for_a_length_that_is_not_known():
    stream = io.StringIO()
    assert list(progress(iter('ab'), 'letters', total=2, stream=stream)) == ['a', 'b']
    assert stream.getvalue().splitlines()[-1].endswith('2/2')
