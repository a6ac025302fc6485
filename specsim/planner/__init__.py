"""The search for the best plan: policies by enumeration with bounds, placement by MILP, the last word by simulation."""
