"""Which runs are trained, where, and again."""
