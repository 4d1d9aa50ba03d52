"""What scripts/gpu_check.py runs: the checks, in their order, and the runner."""
