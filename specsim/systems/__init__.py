"""Published systems: how each moves weights and shares out work, one short file per system."""
