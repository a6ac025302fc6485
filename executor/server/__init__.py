"""An HTTP server that OpenAI's clients can talk to, over one service. Installed with `pip install ".[run,serve]"`."""
