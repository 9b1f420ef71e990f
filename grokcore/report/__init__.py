"""From notebooks to the published site and PDF."""
