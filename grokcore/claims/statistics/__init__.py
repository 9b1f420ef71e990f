"""The statistics that judge claims, a module a subject; `grokcore.claims.rules` lists them by name."""
