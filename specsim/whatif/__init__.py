"""What-ifs: the same question for other machines, models and numbers, planned anew."""
