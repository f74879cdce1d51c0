"""Annotation formats, one file each."""
