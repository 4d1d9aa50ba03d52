"""What the samples say: pure formulas, each in one place."""
