"""Mask sources, each of which turns an image into a label map, and masks in files. choice.py lists the sources."""
