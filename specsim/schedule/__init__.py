"""From a plan to a task graph: the one schedule that the simulator and the executor both interpret."""
