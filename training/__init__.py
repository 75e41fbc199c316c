"""The simulator of dual-pixel pairs and the trainer."""
