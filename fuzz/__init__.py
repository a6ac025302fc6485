"""Coverage-guided fuzzing of every reader of files: `python -m fuzz TARGET --runs N`. Needs the extra `fuzz`."""
