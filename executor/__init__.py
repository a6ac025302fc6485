"""Runs a specsim plan for real, with torch: the second interpreter of the schedule that specsim simulates.

It imports specsim's plan, schedule, profiles and timeline; nothing in specsim imports it when a module loads.
Installed with `pip install "specsim-offload[run]"`.
"""
