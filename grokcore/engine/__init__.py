"""R runs trained as one program. Read `train` first, then `program`, `batches`, `optimizers` and `stepping`."""
