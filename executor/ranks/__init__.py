"""One run on several processes, a pipeline stage each, which `torchrun` starts: rank 0 serves requests, drafts, embeds,
decides and commits; the others compute their layers and nothing else.

Every rank lowers the same graph and runs the tasks of its own device; rank 0 says what is lowered next. A pass travels
from stage to stage with its rows and the places that its sequences have in the caches, and comes home for its logits.
"""
