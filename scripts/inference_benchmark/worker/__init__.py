"""The child process of a measurement. Each task is a module with ``run(session, subject, checkpoint, ...)``."""
