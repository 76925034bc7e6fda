"""Networks of images: their layers, one at a time and in a row."""
