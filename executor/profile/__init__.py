"""Measures this machine well enough to plan for it: probes take samples, pure functions make facts of them."""
