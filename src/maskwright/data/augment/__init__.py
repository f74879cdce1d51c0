"""Changes of training pictures: drawn once, applied to pixels, outlines and maps alike."""
