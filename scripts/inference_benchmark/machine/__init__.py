"""What this machine is, and what it did while a cell was measured."""
