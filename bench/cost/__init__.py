"""Where the cost of the repaint phase comes from: `python -m bench.cost`, beside `timm-repaint benchmark`."""
