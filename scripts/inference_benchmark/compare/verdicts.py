"""What is said of a cell that two result sets have. They are in the JSON of a comparison."""

FASTER, SLOWER, SAME, UNKNOWN = "faster", "slower", "same", "unknown"
#: Where a result set has a single process: its calls agree better than processes do.
PERHAPS_FASTER, PERHAPS_SLOWER = "perhaps faster", "perhaps slower"
FITS_NOW, FITS_NO_LONGER, NEITHER_FITS, NO_FIGURE = "fits now", "fits no longer", "neither fits", "no figure"
#: A side is faster than its machine can be, so that its figure, or what is known of the machine, is wrong.
ABOVE_LIMIT = "above limit"
