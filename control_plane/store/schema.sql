-- The whole schema, for reading. It is what the migrations make; a test compares the two.
-- Ids are text (UUIDv7 in text form, or what a certificate says); times are UTC; every time is given by the caller.

CREATE TABLE organizations (
    organization_id text PRIMARY KEY,
    name            text NOT NULL UNIQUE CHECK (name ~ '^[A-Za-z0-9._-]{1,64}$'),
    created_at      timestamptz NOT NULL
);

-- Keys of the OpenAI endpoint. Of the secret only its HMAC is kept.
CREATE TABLE api_keys (
    key_id          text PRIMARY KEY,
    organization_id text NOT NULL REFERENCES organizations,
    name            text NOT NULL CHECK (name ~ '^[A-Za-z0-9._-]{1,64}$'),
    secret_mac      bytea NOT NULL CHECK (octet_length(secret_mac) = 32),
    created_at      timestamptz NOT NULL,
    expires_at      timestamptz CHECK (expires_at > created_at)
);
CREATE INDEX api_keys_by_organization ON api_keys (organization_id);

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
    model_id       text PRIMARY KEY,
    name           text NOT NULL UNIQUE CHECK (name ~ '^[A-Za-z0-9._:/-]{1,128}$'),
    source         text NOT NULL CHECK (length(source) BETWEEN 1 AND 1024),
    context_length integer NOT NULL CHECK (context_length BETWEEN 128 AND 1048576),
    memory_bytes   bigint NOT NULL CHECK (memory_bytes > 0),
    vram_bytes     bigint NOT NULL CHECK (vram_bytes >= 0),
    gpu_count      integer NOT NULL CHECK (gpu_count BETWEEN 0 AND 64),
    created_at     timestamptz NOT NULL,
    CHECK ((gpu_count = 0) = (vram_bytes = 0))
);

CREATE TABLE deployments (
    deployment_id  text PRIMARY KEY,
    name           text NOT NULL UNIQUE CHECK (name ~ '^[A-Za-z0-9._-]{1,64}$'),
    model_id       text NOT NULL REFERENCES models,
    engine         text NOT NULL CHECK (engine <> ''),
    replicas       integer NOT NULL CHECK (replicas BETWEEN 1 AND 64),
    slots          integer NOT NULL CHECK (slots BETWEEN 1 AND 256),
    created_at     timestamptz NOT NULL,
    pending_reason text NOT NULL DEFAULT ''
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

-- Hubs: gateways that accept tunnels.
CREATE TABLE gateways (
    gateway_id      text PRIMARY KEY,
    tunnel_endpoint text NOT NULL CHECK (tunnel_endpoint <> ''),
    server_name     text NOT NULL CHECK (server_name <> ''),
    version         text NOT NULL DEFAULT '',
    first_seen_at   timestamptz NOT NULL,
    last_seen_at    timestamptz NOT NULL
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
    status            integer NOT NULL CHECK (status = 0 OR status BETWEEN 100 AND 599)
);
CREATE INDEX usage_records_by_organization ON usage_records (organization_id, started_at);
CREATE INDEX usage_records_by_key ON usage_records (key_id, started_at);
CREATE INDEX usage_records_by_model ON usage_records (model, started_at);

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
