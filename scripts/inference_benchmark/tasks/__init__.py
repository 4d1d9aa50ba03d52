"""What a worker process can be told to do. Each module has ``run(order, gpu, tell)``."""
