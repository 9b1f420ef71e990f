"""The networks: plain `nn.Module`s of a single run. Read `build` first, then `decoders`, `blocks` and `pku`."""
