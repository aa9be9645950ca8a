"""Settings and secrets: what the configuration file may say, and how a secret reference becomes a secret."""
