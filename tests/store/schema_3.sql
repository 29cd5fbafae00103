-- The database of extenbot: one schema for SQLite and PostgreSQL.
--
-- Names are the same here, in Python and in JSON. What people see has a text key of
-- random hexadecimal digits. Times of day are unix seconds (UTC); times inside a call
-- are seconds since it came in. Columns that end in _sealed hold secrets encrypted with
-- the key file in the data folder (Fernet); an empty one means that nothing is set.
-- Statements end in a semicolon and nothing else holds one.

-- One row: what this database is, and how often the bots have changed.
create table meta (
    id integer not null primary key check (id = 1),
    schema_version integer not null,    -- an older one is moved up, see store/upgrade.py
    revision bigint not null,           -- grows in every transaction that touches accounts, bots, functions or sentences
    key_check text not null             -- a known word, sealed: tells a wrong key file from the right one
);

insert into meta (id, schema_version, revision, key_check) values (1, 3, 0, '');

-- Who may log in.
create table accounts (
    id text not null primary key,
    email text not null unique,         -- lower case
    password_hash text not null,        -- argon2
    admin boolean not null,
    created double precision not null,
    cap_day double precision not null default 0 -- what its bots may cost a day together, USD; 0: no cap
);

-- Who is logged in.
create table sessions (
    token_hash text not null primary key,   -- SHA-256 of the cookie
    account_id text not null references accounts (id) on delete cascade,
    created double precision not null,
    expires double precision not null
);

create index sessions_account on sessions (account_id);

-- The bots.
create table bots (
    id text not null primary key,
    account_id text not null references accounts (id) on delete cascade,
    name text not null,
    kind text not null check (kind in ('registrar', 'registrant')),
    username text not null,
    password_sealed text not null,      -- of the SIP account
    domain text not null,               -- of the PBX, for a registrant
    model text not null,                -- 'sandbox' is the local voice
    voice text not null,
    token_sealed text not null,         -- for the voice service
    ai_url text not null,               -- empty: the one of the settings
    instruction text not null,
    welcome text not null,
    transfer_uri text not null,
    enabled boolean not null,
    -- of a registrant only:
    auth_id text not null,              -- of the SIP account, empty: the username
    outbound_proxy text not null,       -- host or host:port, empty: the domain itself
    port integer not null,              -- of the PBX, 0: as DNS says
    transport text not null,            -- 'udp', 'tcp', 'tls'; empty: as DNS says
    expires integer not null,           -- seconds that a registration is asked for
    allowed text not null,              -- more addresses that may call, networks separated by blanks
    created double precision not null,
    -- of a registrar only:
    trusted text not null default '',   -- who may call without a digest, networks separated by blanks
    -- of both:
    transfer_mode text not null default 'blind', -- or 'attended': whom callers are sent to is called first
    destinations text not null default '[]', -- named transfer targets, JSON: [{"name": …, "uris": …, "when": …}]
    manner text not null default '{}'   -- how it converses, JSON: what is not the default of extenbot/manner.py
);

create index bots_account on bots (account_id);

-- A PBX that registers here is known by its username. The other kind has a username that
-- some other PBX gave out, and two PBXs may well give out the same one.
create unique index bots_username on bots (username) where kind = 'registrar';

-- Webhooks that bots may call.
create table functions (
    id text not null primary key,
    account_id text not null references accounts (id) on delete cascade,
    name text not null,
    url text not null,
    token_sealed text not null,         -- bearer token of the webhook
    description text not null,          -- one Realtime function tool, JSON
    template text not null,             -- the body to post, JSON with placeholders
    created double precision not null,
    unique (account_id, name)
);

create table bot_functions (
    bot_id text not null references bots (id) on delete cascade,
    function_id text not null references functions (id) on delete cascade,
    primary key (bot_id, function_id)
);

create index bot_functions_function on bot_functions (function_id);

-- What bots say word by word, as audio.
create table sentences (
    bot_id text not null references bots (id) on delete cascade,
    text_hash text not null,            -- SHA-256 of the text
    text text not null,
    audio bytea not null,               -- G.711 µ-law, 8 kHz
    how text not null check (how in ('recorded', 'synthesised')),
    said text not null,                 -- what was really said, as far as that is known
    created double precision not null,  -- also tells whether the audio has changed
    primary key (bot_id, text_hash)
);

-- Where the PBX of a bot can be reached: its registered contacts (RFC 3261 10.3).
create table bindings (
    bot_id text not null references bots (id) on delete cascade,
    position integer not null,
    contact text not null,
    instance text not null,
    reg_id text not null,
    call_id text not null,
    cseq bigint not null,
    transport text not null,            -- the flow: UDP, and the two ends of it
    local_host text not null,
    local_port integer not null,
    remote_host text not null,
    remote_port integer not null,
    expires_at double precision not null,
    q text not null,
    user_agent text not null,
    registered_at double precision not null,
    path text not null default '',      -- the way to it (RFC 3327), one address a line
    primary key (bot_id, position)
);

-- How it stood with the registration of a bot at its PBX: the last states, the newest has the highest number.
create table registrations (
    bot_id text not null references bots (id) on delete cascade,
    number integer not null,
    at double precision not null,       -- since when
    state text not null,                -- registering, registered, refused, unreachable, leaving, off
    words text not null,                -- why, for people
    until double precision not null,    -- how long the PBX keeps our contact, 0: it has none
    next_try double precision not null, -- 0: not known
    target text not null,               -- where the registrar was reached
    primary key (bot_id, number)
);

-- Finished calls. They outlive their bot.
create table calls (
    id text not null primary key,
    account_id text not null references accounts (id) on delete cascade,
    bot_id text not null,
    sip_call_id text not null,
    caller text not null,
    caller_name text not null,
    dialled text not null,
    peer text not null,                 -- the address that called, host:port
    started double precision not null,
    answered double precision,          -- null: never
    ended double precision not null,
    codec text not null,                -- PCMU, PCMA or nothing
    end_reason text not null,
    packets_sent bigint not null,
    packets_received bigint not null,
    packets_lost bigint not null,
    jitter_ms double precision not null,
    usage text not null,                -- what the voice service counted, JSON
    outgoing boolean not null default false, -- the bot called; else it was called
    cost double precision not null default 0, -- of the voice service, USD
    trouble text not null default '',   -- what was wrong with the voice, in words for the bot's owner
    recorded boolean not null default false -- there is, or was, a recording
);

create index calls_account on calls (account_id, started);

create index calls_bot on calls (bot_id, started);

create table transcript_lines (
    call_id text not null references calls (id) on delete cascade,
    position integer not null,
    speaker text not null,              -- 'caller' or 'bot'
    text text not null,
    at double precision not null,
    interrupted boolean not null,
    primary key (call_id, position)
);

create table call_events (
    call_id text not null references calls (id) on delete cascade,
    position integer not null,
    at double precision not null,
    what text not null,                 -- a short dotted name such as speech.started
    fields text not null,               -- JSON
    primary key (call_id, position)
);
