"""Commands for those who work on the project: its environment, its results, its pictures."""
