-- Projects; what keys may do; other names, prices and adapters of models; how deployments are routed; gateways of
-- several processes.
SET lock_timeout = '4s';

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

ALTER TABLE api_keys
    ADD COLUMN project_id          text,
    ADD COLUMN scopes              text[] NOT NULL DEFAULT '{}' CHECK (cardinality(scopes) <= 32),
    ADD COLUMN allowed_models      text[] NOT NULL DEFAULT '{}' CHECK (cardinality(allowed_models) <= 200),
    ADD COLUMN weight              integer NOT NULL DEFAULT 1 CHECK (weight BETWEEN 1 AND 1000),
    ADD COLUMN priority            text NOT NULL DEFAULT 'normal' CHECK (priority IN ('low', 'normal', 'high')),
    ADD COLUMN requests_per_minute bigint CHECK (requests_per_minute >= 0),
    ADD COLUMN tokens_per_minute   bigint CHECK (tokens_per_minute >= 0),
    ADD COLUMN concurrent_requests bigint CHECK (concurrent_requests >= 0),
    ADD COLUMN tokens_per_day      bigint CHECK (tokens_per_day >= 0),
    ADD COLUMN tokens_per_month    bigint CHECK (tokens_per_month >= 0),
    ADD COLUMN money_per_day       bigint CHECK (money_per_day >= 0),
    ADD COLUMN money_per_month     bigint CHECK (money_per_month >= 0),
    -- A key's project is one of its own organization.
    ADD FOREIGN KEY (project_id, organization_id) REFERENCES projects (project_id, organization_id);
CREATE INDEX api_keys_by_project ON api_keys (project_id);

-- Nano-units of the currency for a million tokens.
ALTER TABLE models
    ADD COLUMN price_prompt     bigint NOT NULL DEFAULT 0 CHECK (price_prompt >= 0),
    ADD COLUMN price_cached     bigint NOT NULL DEFAULT 0 CHECK (price_cached >= 0),
    ADD COLUMN price_completion bigint NOT NULL DEFAULT 0 CHECK (price_completion >= 0);

-- Every name that clients may ask for, once: models' own, their aliases, their adapters (LoRA).
CREATE TABLE model_names (
    name     text PRIMARY KEY CHECK (name ~ '^[A-Za-z0-9._:/-]{1,128}$'),
    model_id text NOT NULL REFERENCES models ON DELETE CASCADE,
    kind     text NOT NULL CHECK (kind IN ('name', 'alias', 'adapter')),
    source   text CHECK (length(source) BETWEEN 1 AND 1024),
    CHECK ((kind = 'adapter') = (source IS NOT NULL))
);
CREATE INDEX model_names_by_model ON model_names (model_id);
INSERT INTO model_names (name, model_id, kind) SELECT name, model_id, 'name' FROM models;

CREATE FUNCTION claim_model_name() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO model_names (name, model_id, kind) VALUES (NEW.name, NEW.model_id, 'name');
    RETURN NULL;
END
$$;
CREATE TRIGGER models_claim_their_name AFTER INSERT ON models
    FOR EACH ROW EXECUTE FUNCTION claim_model_name();

ALTER TABLE deployments
    ADD COLUMN policy       text NOT NULL DEFAULT 'balanced'
                            CHECK (policy IN ('balanced', 'prefix', 'session', 'round_robin', 'cheapest')),
    ADD COLUMN pass_through text[] NOT NULL DEFAULT '{}' CHECK (cardinality(pass_through) <= 32);

-- A row is a hub: one process of a gateway. Its id is the gateway's for process 0, "<gateway>~<process>" for others.
ALTER TABLE gateways
    ADD COLUMN process       integer NOT NULL DEFAULT 0 CHECK (process BETWEEN 0 AND 63),
    ADD COLUMN peer_endpoint text NOT NULL DEFAULT '';
