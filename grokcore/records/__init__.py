"""What is kept, and that it is whole."""
