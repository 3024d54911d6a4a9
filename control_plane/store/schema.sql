-- The whole schema, for reading. It is what the migrations make; a test compares the two.
-- Ids are text (UUIDv7 in text form, or what a certificate says); times are UTC; every time is given by the caller.

CREATE TABLE organizations (
    organization_id text PRIMARY KEY,
    name            text NOT NULL UNIQUE CHECK (name ~ '^[A-Za-z0-9._-]{1,64}$'),
    created_at      timestamptz NOT NULL
);

-- What keys are grouped by. Limits: null is unlimited; money is in nano-units of the currency.
CREATE TABLE projects (
    project_id          text PRIMARY KEY,
    organization_id     text NOT NULL REFERENCES organizations,
    name                text NOT NULL CHECK (name ~ '^[A-Za-z0-9._-]{1,64}$'),
    created_at          timestamptz NOT NULL,
    requests_per_minute bigint CHECK (requests_per_minute >= 0),
    tokens_per_minute   bigint CHECK (tokens_per_minute >= 0),
    concurrent_requests bigint CHECK (concurrent_requests >= 0),
    tokens_per_day      bigint CHECK (tokens_per_day >= 0),
    tokens_per_month    bigint CHECK (tokens_per_month >= 0),
    money_per_day       bigint CHECK (money_per_day >= 0),
    money_per_month     bigint CHECK (money_per_month >= 0),
    UNIQUE (organization_id, name),
    UNIQUE (project_id, organization_id)
);

-- Keys of the OpenAI endpoint. Of the secret only its HMAC is kept.
CREATE TABLE api_keys (
    key_id              text PRIMARY KEY,
    organization_id     text NOT NULL REFERENCES organizations,
    name                text NOT NULL CHECK (name ~ '^[A-Za-z0-9._-]{1,64}$'),
    secret_mac          bytea NOT NULL CHECK (octet_length(secret_mac) = 32),
    created_at          timestamptz NOT NULL,
    expires_at          timestamptz CHECK (expires_at > created_at),
    project_id          text,
    scopes              text[] NOT NULL DEFAULT '{}' CHECK (cardinality(scopes) <= 32),
    allowed_models      text[] NOT NULL DEFAULT '{}' CHECK (cardinality(allowed_models) <= 200),
    weight              integer NOT NULL DEFAULT 1 CHECK (weight BETWEEN 1 AND 1000),
    priority            text NOT NULL DEFAULT 'normal' CHECK (priority IN ('low', 'normal', 'high')),
    requests_per_minute bigint CHECK (requests_per_minute >= 0),
    tokens_per_minute   bigint CHECK (tokens_per_minute >= 0),
    concurrent_requests bigint CHECK (concurrent_requests >= 0),
    tokens_per_day      bigint CHECK (tokens_per_day >= 0),
    tokens_per_month    bigint CHECK (tokens_per_month >= 0),
    money_per_day       bigint CHECK (money_per_day >= 0),
    money_per_month     bigint CHECK (money_per_month >= 0),
    -- A key's project is one of its own organization.
    FOREIGN KEY (project_id, organization_id) REFERENCES projects (project_id, organization_id)
);
CREATE INDEX api_keys_by_organization ON api_keys (organization_id);
CREATE INDEX api_keys_by_project ON api_keys (project_id);

-- Tokens by which machines join. Of the secret only its HMAC is kept.
CREATE TABLE join_tokens (
    token_id        text PRIMARY KEY,
    organization_id text NOT NULL REFERENCES organizations ON DELETE CASCADE,
    secret_mac      bytea NOT NULL CHECK (octet_length(secret_mac) = 32),
    created_at      timestamptz NOT NULL,
    expires_at      timestamptz NOT NULL CHECK (expires_at > created_at),
    uses_left       integer NOT NULL CHECK (uses_left >= 0),
    revoked_at      timestamptz,
    last_spki       text
);
CREATE INDEX join_tokens_by_organization ON join_tokens (organization_id);

-- Machines that joined. What they report is kept as they last said it.
CREATE TABLE nodes (
    node_id          text PRIMARY KEY,
    organization_id  text NOT NULL REFERENCES organizations,
    hostname         text NOT NULL,
    state            text NOT NULL CHECK (state IN ('joining', 'online', 'offline', 'revoked')),
    created_at       timestamptz NOT NULL,
    last_seen_at     timestamptz,
    session_epoch    bigint NOT NULL DEFAULT 0 CHECK (session_epoch >= 0),
    desired_revision bigint NOT NULL DEFAULT 1 CHECK (desired_revision >= 1),
    applied_revision bigint NOT NULL DEFAULT 0 CHECK (applied_revision >= 0),
    agent_version    text NOT NULL DEFAULT '',
    agent_build_date text NOT NULL DEFAULT '',
    agent_checksum   text NOT NULL DEFAULT '',
    hardware         jsonb,
    report           jsonb NOT NULL DEFAULT '{}',
    -- Who joined with what: lets the same key ask again when its reply was lost. The token may be gone by then.
    join_token_id    text,
    join_spki        text NOT NULL,
    UNIQUE (join_token_id, join_spki)
);
CREATE INDEX nodes_by_organization ON nodes (organization_id);

-- Certificates issued to nodes, until they have expired.
CREATE TABLE certificates (
    serial     text PRIMARY KEY CHECK (serial ~ '^[0-9a-f]{1,40}$'),
    node_id    text NOT NULL REFERENCES nodes ON DELETE CASCADE,
    spki       text NOT NULL,
    issued_at  timestamptz NOT NULL,
    not_after  timestamptz NOT NULL CHECK (not_after > issued_at),
    revoked_at timestamptz
);
CREATE INDEX certificates_by_node ON certificates (node_id, not_after);

CREATE TABLE models (
    model_id         text PRIMARY KEY,
    name             text NOT NULL UNIQUE CHECK (name ~ '^[A-Za-z0-9._:/-]{1,128}$'),
    source           text NOT NULL CHECK (length(source) BETWEEN 1 AND 1024),
    context_length   integer NOT NULL CHECK (context_length BETWEEN 128 AND 1048576),
    memory_bytes     bigint NOT NULL CHECK (memory_bytes > 0),
    vram_bytes       bigint NOT NULL CHECK (vram_bytes >= 0),
    gpu_count        integer NOT NULL CHECK (gpu_count BETWEEN 0 AND 64),
    created_at       timestamptz NOT NULL,
    -- Nano-units of the currency for a million tokens.
    price_prompt     bigint NOT NULL DEFAULT 0 CHECK (price_prompt >= 0),
    price_cached     bigint NOT NULL DEFAULT 0 CHECK (price_cached >= 0),
    price_completion bigint NOT NULL DEFAULT 0 CHECK (price_completion >= 0),
    CHECK ((gpu_count = 0) = (vram_bytes = 0))
);

-- Every name that clients may ask for, once: models' own, their aliases, their adapters (LoRA).
CREATE TABLE model_names (
    name     text PRIMARY KEY CHECK (name ~ '^[A-Za-z0-9._:/-]{1,128}$'),
    model_id text NOT NULL REFERENCES models ON DELETE CASCADE,
    kind     text NOT NULL CHECK (kind IN ('name', 'alias', 'adapter')),
    source   text CHECK (length(source) BETWEEN 1 AND 1024),
    CHECK ((kind = 'adapter') = (source IS NOT NULL))
);
CREATE INDEX model_names_by_model ON model_names (model_id);

CREATE FUNCTION claim_model_name() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO model_names (name, model_id, kind) VALUES (NEW.name, NEW.model_id, 'name');
    RETURN NULL;
END
$$;
CREATE TRIGGER models_claim_their_name AFTER INSERT ON models
    FOR EACH ROW EXECUTE FUNCTION claim_model_name();

CREATE TABLE deployments (
    deployment_id  text PRIMARY KEY,
    name           text NOT NULL UNIQUE CHECK (name ~ '^[A-Za-z0-9._-]{1,64}$'),
    model_id       text NOT NULL REFERENCES models,
    engine         text NOT NULL CHECK (engine <> ''),
    replicas       integer NOT NULL CHECK (replicas BETWEEN 1 AND 64),
    slots          integer NOT NULL CHECK (slots BETWEEN 1 AND 256),
    created_at     timestamptz NOT NULL,
    pending_reason text NOT NULL DEFAULT '',
    policy         text NOT NULL DEFAULT 'balanced'
                   CHECK (policy IN ('balanced', 'prefix', 'session', 'round_robin', 'cheapest')),
    pass_through   text[] NOT NULL DEFAULT '{}' CHECK (cardinality(pass_through) <= 32)
);
CREATE INDEX deployments_by_model ON deployments (model_id);

-- Which node runs which replica, and what the node last said of it.
CREATE TABLE assignments (
    worker_id        text PRIMARY KEY,
    deployment_id    text NOT NULL REFERENCES deployments ON DELETE CASCADE,
    node_id          text NOT NULL REFERENCES nodes ON DELETE CASCADE,
    gpu_uuids        text[] NOT NULL DEFAULT '{}',
    spec_hash        text NOT NULL CHECK (spec_hash ~ '^[0-9a-f]{64}$'),
    assigned_at      timestamptz NOT NULL,
    phase            text NOT NULL DEFAULT 'pending'
                     CHECK (phase IN ('pending', 'starting', 'warming', 'ready', 'draining', 'failed')),
    progress_percent integer NOT NULL DEFAULT 0 CHECK (progress_percent BETWEEN 0 AND 100),
    detail           text NOT NULL DEFAULT ''
);
CREATE INDEX assignments_by_deployment ON assignments (deployment_id);
CREATE INDEX assignments_by_node ON assignments (node_id);

-- Hubs: gateways that accept tunnels, one row for each of their processes. Its id is the gateway's for process 0,
-- "<gateway>~<process>" for others.
CREATE TABLE gateways (
    gateway_id      text PRIMARY KEY,
    tunnel_endpoint text NOT NULL CHECK (tunnel_endpoint <> ''),
    server_name     text NOT NULL CHECK (server_name <> ''),
    version         text NOT NULL DEFAULT '',
    first_seen_at   timestamptz NOT NULL,
    last_seen_at    timestamptz NOT NULL,
    process         integer NOT NULL DEFAULT 0 CHECK (process BETWEEN 0 AND 63),
    peer_endpoint   text NOT NULL DEFAULT ''
);

-- One row per request, however often a gateway hands it in. Rows outlive the keys, nodes and models they name.
CREATE TABLE usage_records (
    request_id        uuid PRIMARY KEY,
    gateway_id        text NOT NULL,
    key_id            text NOT NULL,
    organization_id   text NOT NULL,
    model             text NOT NULL,
    worker_id         text NOT NULL,
    node_id           text NOT NULL,
    outcome           text NOT NULL CHECK (outcome IN ('completed', 'failed', 'cancelled', 'interrupted')),
    started_at        timestamptz NOT NULL,
    recorded_at       timestamptz NOT NULL,
    first_token_ms    integer CHECK (first_token_ms >= 0),
    duration_ms       integer NOT NULL CHECK (duration_ms >= 0),
    prompt_tokens     integer CHECK (prompt_tokens >= 0),
    completion_tokens integer CHECK (completion_tokens >= 0),
    cached_tokens     integer CHECK (cached_tokens >= 0),
    streamed          boolean NOT NULL,
    status            integer NOT NULL CHECK (status = 0 OR status BETWEEN 100 AND 599),
    project_id        text NOT NULL DEFAULT '',
    deployment_id     text NOT NULL DEFAULT '',
    endpoint          text NOT NULL DEFAULT '',
    -- What was set aside and what was charged; money in EUR.
    reserved_tokens   bigint NOT NULL DEFAULT 0 CHECK (reserved_tokens >= 0),
    reserved_money    numeric(24, 9) NOT NULL DEFAULT 0 CHECK (reserved_money >= 0),
    charged_tokens    bigint NOT NULL DEFAULT 0 CHECK (charged_tokens >= 0),
    charged_money     numeric(24, 9) NOT NULL DEFAULT 0 CHECK (charged_money >= 0),
    estimated         boolean NOT NULL DEFAULT false,
    queue_ms          integer NOT NULL DEFAULT 0 CHECK (queue_ms >= 0),
    inter_token_us    integer CHECK (inter_token_us >= 0),
    continuations     integer NOT NULL DEFAULT 0 CHECK (continuations >= 0)
);
CREATE INDEX usage_records_by_organization ON usage_records (organization_id, started_at);
CREATE INDEX usage_records_by_key ON usage_records (key_id, started_at);
CREATE INDEX usage_records_by_model ON usage_records (model, started_at);
CREATE INDEX usage_records_by_project ON usage_records (project_id, started_at) WHERE project_id <> '';

-- Who did what. Rows are only ever added.
CREATE TABLE audit_log (
    entry_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL,
    actor    text NOT NULL CHECK (actor <> ''),
    action   text NOT NULL CHECK (action <> ''),
    object   text NOT NULL,
    detail   jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_log_by_time ON audit_log (at);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% only grows', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER audit_log_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- One row: the revision of what gateways are told. Whoever changes that, raises it in the same transaction.
CREATE TABLE revisions (
    only_row          boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    snapshot_revision bigint NOT NULL DEFAULT 1
);
INSERT INTO revisions DEFAULT VALUES;

-- Which migrations were applied; written by migrate.py.
CREATE TABLE schema_migrations (
    name       text PRIMARY KEY,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- One row: which pepper the hashes of keys and tokens were made with, so that another one is noticed at the start.
CREATE TABLE pepper (
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    fingerprint bytea NOT NULL CHECK (octet_length(fingerprint) = 32)
);

-- What requests cost, booked twice over: every entry takes an amount from one account and gives it to another. Made
-- from usage records, in their transaction. Rows are only ever added, and outlive the keys they name.
CREATE TABLE ledger_entries (
    entry_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    request_id uuid NOT NULL,
    posting    text NOT NULL CHECK (posting IN ('reserve', 'settle', 'refund', 'overrun')),
    unit       text NOT NULL CHECK (unit IN ('token', 'EUR')),
    debit      text NOT NULL CHECK (debit <> ''),
    credit     text NOT NULL CHECK (credit <> '' AND credit <> debit),
    amount     numeric(24, 9) NOT NULL CHECK (amount > 0),
    at         timestamptz NOT NULL,
    UNIQUE (request_id, posting, unit)
);
CREATE INDEX ledger_entries_by_credit ON ledger_entries (credit, at);
CREATE TRIGGER ledger_entries_only_grow BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- One limit in one window, while gateways hold shares of it. Whoever changes shares locks its row first.
-- Requests at once have no window: theirs begins at zero, and ends when nobody has asked for a while.
CREATE TABLE quota_windows (
    subject      text NOT NULL,
    kind         text NOT NULL,
    window_start bigint NOT NULL CHECK (window_start >= 0),
    ends_at      timestamptz NOT NULL,
    PRIMARY KEY (subject, kind, window_start)
);
CREATE INDEX quota_windows_by_end ON quota_windows (ends_at);

-- What one process of a gateway holds of it. A share with an end counts until then.
CREATE TABLE quota_shares (
    subject      text NOT NULL,
    kind         text NOT NULL,
    window_start bigint NOT NULL,
    hub_id       text NOT NULL,
    granted      bigint NOT NULL CHECK (granted >= 0),
    expires_at   timestamptz,
    PRIMARY KEY (subject, kind, window_start, hub_id),
    FOREIGN KEY (subject, kind, window_start) REFERENCES quota_windows ON DELETE CASCADE
);

-- What queues at gateways, as each process of one last said.
CREATE TABLE model_demand (
    hub_id         text NOT NULL,
    model          text NOT NULL,
    waiting        integer NOT NULL CHECK (waiting >= 0),
    active         integer NOT NULL CHECK (active >= 0),
    admitted       integer NOT NULL CHECK (admitted >= 0),
    refused        integer NOT NULL CHECK (refused >= 0),
    wait_mean_ms   integer NOT NULL CHECK (wait_mean_ms >= 0),
    wait_p95_ms    integer NOT NULL CHECK (wait_p95_ms >= 0),
    oldest_wait_ms integer NOT NULL CHECK (oldest_wait_ms >= 0),
    reported_at    timestamptz NOT NULL,
    PRIMARY KEY (hub_id, model)
);
