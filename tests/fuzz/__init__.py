"""Fuzzing of the readers of files that are not trusted; see `make fuzz`."""
