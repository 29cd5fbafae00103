"""What is kept: accounts, bots, functions, bindings and call records, in SQLite or PostgreSQL.

`database` opens and creates it, `keys` seals secrets, `accounts`, `bots`, `bindings` and
`records` read and write it (blocking, for commands and the thread pool), `fields` says what
is good input, `directory` holds all bots in memory with what they say (`sentences`), `ledger`
what they have spent. `recordings` writes the audio of calls beside the database. `store` joins
them for the service and owns the only thread pool of the program.
"""
