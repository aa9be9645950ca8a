"""Connectors: the code that reads one kind of system each, and writes nothing there.

Terms: a *source* is one configured system: an integration (of resources) or a directory (of principals).
A *scope* is the unit of completeness inside a source; it is read whole or it failed.

This package knows nothing of the daemon. `values` holds what connectors yield, `contract` what a connector
is, `errors` how one fails, `options` how one is configured, `registry` which kinds there are.
"""
