"""The evidence bench: the same small training runs with and without repaints, and with controls, over several seeds.

`python -m bench.evidence DATA --output DIR`. START HERE: `bench.py` has the steps in their order,
`arms.py` what is compared.
"""
