"""Entry point of the autoPET challenge containers."""
