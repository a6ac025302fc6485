"""The decoder in plain PyTorch: rows of tokens in, rows of logits out, over weights that lie wherever they lie.

`blocks` has the steps of a token's way; `resident.ResidentModel.forward` walks it in one sitting, the engine walks it
task by task. `numerics` says how the numbers are computed, `cache` where keys and values are kept.
"""
