"""Painting of files: which images, one after the other in processes, and what comes along with them."""
