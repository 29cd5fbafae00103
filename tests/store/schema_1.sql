create table meta (
    id integer not null primary key check (id = 1),
    schema_version integer not null,
    revision bigint not null,
    key_check text not null
);

insert into meta (id, schema_version, revision, key_check) values (1, 1, 0, '');

create table accounts (
    id text not null primary key,
    email text not null unique,
    password_hash text not null,
    admin boolean not null,
    created double precision not null
);

create table sessions (
    token_hash text not null primary key,
    account_id text not null references accounts (id) on delete cascade,
    created double precision not null,
    expires double precision not null
);

create index sessions_account on sessions (account_id);

create table bots (
    id text not null primary key,
    account_id text not null references accounts (id) on delete cascade,
    name text not null,
    kind text not null check (kind in ('registrar', 'registrant')),
    username text not null,
    password_sealed text not null,
    domain text not null,
    model text not null,
    voice text not null,
    token_sealed text not null,
    ai_url text not null,
    instruction text not null,
    welcome text not null,
    transfer_uri text not null,
    enabled boolean not null,

    auth_id text not null,
    outbound_proxy text not null,
    port integer not null,
    transport text not null,
    expires integer not null,
    allowed text not null,
    created double precision not null
);

create index bots_account on bots (account_id);

create unique index bots_username on bots (username) where kind = 'registrar';

create table functions (
    id text not null primary key,
    account_id text not null references accounts (id) on delete cascade,
    name text not null,
    url text not null,
    token_sealed text not null,
    description text not null,
    template text not null,
    created double precision not null,
    unique (account_id, name)
);

create table bot_functions (
    bot_id text not null references bots (id) on delete cascade,
    function_id text not null references functions (id) on delete cascade,
    primary key (bot_id, function_id)
);

create index bot_functions_function on bot_functions (function_id);

create table bindings (
    bot_id text not null references bots (id) on delete cascade,
    position integer not null,
    contact text not null,
    instance text not null,
    reg_id text not null,
    call_id text not null,
    cseq bigint not null,
    transport text not null,
    local_host text not null,
    local_port integer not null,
    remote_host text not null,
    remote_port integer not null,
    expires_at double precision not null,
    q text not null,
    user_agent text not null,
    registered_at double precision not null,
    primary key (bot_id, position)
);

create table registrations (
    bot_id text not null references bots (id) on delete cascade,
    number integer not null,
    at double precision not null,
    state text not null,
    words text not null,
    until double precision not null,
    next_try double precision not null,
    target text not null,
    primary key (bot_id, number)
);

create table calls (
    id text not null primary key,
    account_id text not null references accounts (id) on delete cascade,
    bot_id text not null,
    sip_call_id text not null,
    caller text not null,
    caller_name text not null,
    dialled text not null,
    peer text not null,
    started double precision not null,
    answered double precision,
    ended double precision not null,
    codec text not null,
    end_reason text not null,
    packets_sent bigint not null,
    packets_received bigint not null,
    packets_lost bigint not null,
    jitter_ms double precision not null,
    usage text not null
);

create index calls_account on calls (account_id, started);

create index calls_bot on calls (bot_id, started);

create table transcript_lines (
    call_id text not null references calls (id) on delete cascade,
    position integer not null,
    speaker text not null,
    text text not null,
    at double precision not null,
    interrupted boolean not null,
    primary key (call_id, position)
);

create table call_events (
    call_id text not null references calls (id) on delete cascade,
    position integer not null,
    at double precision not null,
    what text not null,
    fields text not null,
    primary key (call_id, position)
);
