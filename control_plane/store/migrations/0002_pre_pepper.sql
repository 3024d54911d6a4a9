-- Which pepper the hashes of keys and tokens were made with, so that another one is noticed at the start.
SET lock_timeout = '4s';

CREATE TABLE pepper (
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    fingerprint bytea NOT NULL CHECK (octet_length(fingerprint) = 32)
);
