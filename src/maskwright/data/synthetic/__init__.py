"""Scenes with perfect labels, drawn on demand."""
