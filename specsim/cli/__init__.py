"""The `specsim` command: a thin wrapper over `specsim.api`, one module per command."""
