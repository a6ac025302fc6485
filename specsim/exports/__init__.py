"""Plans as configurations of engines that people already use, one file per engine, with what is lost on the way."""
