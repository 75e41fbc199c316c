"""Engines: where and when the three steps of each photo run. They hold no photo logic."""
