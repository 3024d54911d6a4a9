-- Usage records say what was set aside and charged; a ledger, shares of limits, and what queues at gateways.
SET lock_timeout = '4s';

ALTER TABLE usage_records
    ADD COLUMN project_id      text NOT NULL DEFAULT '',
    ADD COLUMN deployment_id   text NOT NULL DEFAULT '',
    ADD COLUMN endpoint        text NOT NULL DEFAULT '',
    ADD COLUMN reserved_tokens bigint NOT NULL DEFAULT 0 CHECK (reserved_tokens >= 0),
    ADD COLUMN reserved_money  numeric(24, 9) NOT NULL DEFAULT 0 CHECK (reserved_money >= 0),
    ADD COLUMN charged_tokens  bigint NOT NULL DEFAULT 0 CHECK (charged_tokens >= 0),
    ADD COLUMN charged_money   numeric(24, 9) NOT NULL DEFAULT 0 CHECK (charged_money >= 0),
    ADD COLUMN estimated       boolean NOT NULL DEFAULT false,
    ADD COLUMN queue_ms        integer NOT NULL DEFAULT 0 CHECK (queue_ms >= 0),
    ADD COLUMN inter_token_us  integer CHECK (inter_token_us >= 0),
    ADD COLUMN continuations   integer NOT NULL DEFAULT 0 CHECK (continuations >= 0);
CREATE INDEX usage_records_by_project ON usage_records (project_id, started_at) WHERE project_id <> '';

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
