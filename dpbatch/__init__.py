"""dpbatch: batch restoration of Canon Dual Pixel RAW photos."""

__version__ = "0.1.0"
