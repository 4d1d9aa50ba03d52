"""Hardware and provenance of this machine, and its condition during a measurement."""
