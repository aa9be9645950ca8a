"""The SQL. Nothing outside this package speaks it.

`schema` the tables, and how the database is opened; `sources` what is configured and how it fares; `merge` a snapshot
into the tables; `claims` which tag speaks for which resource; `directory` principals as the rule sees them;
`publish` the owner rows and the change feed; `findings` drift; `reader` what the server asks.
"""
