"""The SQL. Nothing outside this package speaks it.

`schema` the tables, and how they came to be; `writer` how the one writer opens the database; `sources` what is
configured and how it fares; `merge` a snapshot into the tables, `alive` which groups have an active member; `claims`
which tag speaks for which resource, `pending` which change of one waits; `directory` principals as the rule sees them;
`turning` what time alone changes; `publish` the owner rows and the change feed; `findings` drift; `following` and
`reader` what the server asks.
"""
