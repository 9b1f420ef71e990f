"""The command `grokcore`."""
