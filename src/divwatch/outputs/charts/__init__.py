"""Charts as SVG, drawn once: the page holds them, and `export.py` makes PNG and PDF figures of the same drawings."""
