"""Blur maps: where a dual-pixel photo is out of focus, and to which side."""
