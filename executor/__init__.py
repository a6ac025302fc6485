"""Runs a specsim plan for real, with torch: the second interpreter of the schedule that specsim simulates.

It imports specsim's plan, schedule, profiles and timeline; nothing in specsim imports it when a module loads.
Installed with `pip install "specsim-offload[run]"`.
"""

import os

# A team of threads waits for its members at every operation. Asleep, waking them takes longer than most operations of a
# decode step, and milliseconds after a pause on a virtual machine; spinning as long as it takes, whoever has no core of
# its own, because another program computes too, holds all the others up. So many spins are some milliseconds, which
# spans most waits for weights. The runtime spins only while there are no more threads than cores, so a run without a
# GPU, real or emulated, computes in one thread and its team.
# This holds for the OpenMP runtime that torch brings along, unless torch was imported before.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "300000")
# oneDNN compiles a kernel for every shape of a product that it meets, 0.6 MiB each, and by default keeps 1024 of them.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
