"""Evidence on photographs with pretrained networks: `python -m bench.photos DATA --weights FILE --output DIR`."""
