"""What is fuzzed, a file per reader: `read(content)`, `SEEDS` to begin with, `WORDS` of its format to mutate with."""
