"""Data: files in, batches out. ``io`` reads pixels, ``formats`` annotations, ``transforms`` draws and applies."""
