"""The engine timed beside what it is compared with."""
