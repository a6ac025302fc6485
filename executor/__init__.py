"""Runs a specsim plan for real, with torch: the second interpreter of the schedule that specsim simulates.

It imports specsim's plan, schedule, profiles and timeline; nothing in specsim imports it when a module loads.
Installed with `pip install "specsim-offload[run]"`.
"""

import os

# Two streams may compute on one CPU, and other programs do. By default the threads of a team spin while they wait for
# each other, so that whoever has no core of its own holds all the others up, by milliseconds at every operation.
# This holds for the OpenMP runtime that torch brings along, unless torch was imported before.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
