"""The parent process of a measurement: it holds a device, starts workers and writes the record."""
