"""Which of two damaged digits is larger? See `pair-compare --help`."""
