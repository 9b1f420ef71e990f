"""R runs trained as one program."""
