"""How a round is put together: each strategy is one short file with one function, `lower_round`."""
