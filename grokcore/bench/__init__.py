"""The engine timed against the plain loop of the source and against its own matrix products."""
