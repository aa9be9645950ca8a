"""The server: answers lookups over HTTP/1.1 on a Unix socket.

It reads one SQLite file, holds no credentials, needs no network and imports no SDK.
"""
