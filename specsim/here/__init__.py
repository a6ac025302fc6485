"""What there is on this machine, as system, drivers and installed packages tell it: nothing is measured."""
