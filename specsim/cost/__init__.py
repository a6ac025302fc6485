"""What work costs: FLOPs and bytes of every operation, and the seconds they take on a machine."""
