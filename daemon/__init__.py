"""The daemon: polls, guards, merges, resolves, publishes and serves. docs/lifecycle.md tells the way of the data."""
