"""Playing a schedule through time: the discrete-event engine and what stands on it."""

from specsim.simulator.engine import Demand, fair_rates, run

__all__ = ["Demand", "fair_rates", "run"]
