"""Data sets looked over: what is wrong with them, and what of it can be put right."""
