"""Distillation of a sentence encoder into a text tower."""
