"""Where the evidence bench went."""

from tests.helpers import run_script


def test_the_report_says_where_the_bench_is():
    done = run_script('-m timm_repaint.report', 'mini', 'photos', '--output', 'out', fails=True)
    line = done.stderr.strip().splitlines()[-1]
    assert line == 'error: the evidence bench is in the repository: python -m bench.evidence DATA --output DIR'
