"""What a run is, and its id; the tables of its task."""
