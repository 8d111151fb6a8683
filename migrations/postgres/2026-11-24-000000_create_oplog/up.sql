-- FORMAT.md, section "Tables", describes every column. Names are in byte collation: tickets are
-- locked in byte order, and the order must be the same for every client.

CREATE TABLE IF NOT EXISTS oplog_migration (
    version TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    run_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
);

-- Domains and not the checks of tables: those are parsed anew by every statement that writes a row,
-- which would take a tenth of the time of appending an entry.
CREATE DOMAIN oplog_position AS BIGINT CHECK (VALUE >= 1);
CREATE DOMAIN oplog_epoch AS INTEGER CHECK (VALUE >= 1);
CREATE DOMAIN oplog_id AS BYTEA CHECK (octet_length(VALUE) = 16);
CREATE DOMAIN oplog_hash AS BYTEA CHECK (octet_length(VALUE) = 32);
CREATE DOMAIN oplog_envelope AS BYTEA CHECK (substring(VALUE FROM 1 FOR 5) = '\x4F504C0101'::bytea);

CREATE TABLE oplog_log (
    only_row SMALLINT NOT NULL PRIMARY KEY DEFAULT 1 CHECK (only_row = 1),
    log_id oplog_id NOT NULL,
    epoch oplog_epoch NOT NULL
);

-- The free space lets a hot ticket be updated within its page.
CREATE TABLE oplog_ticket (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    version oplog_position NOT NULL,
    head_hash oplog_hash NOT NULL,
    epoch oplog_epoch NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE oplog_key (
    id oplog_id NOT NULL PRIMARY KEY,
    scope TEXT COLLATE "C" NOT NULL,
    purpose TEXT COLLATE "C" NOT NULL,
    version INTEGER NOT NULL CHECK (version >= 1),
    state TEXT NOT NULL CHECK (state IN ('pending', 'primary', 'retired', 'destroyed')),
    created_us BIGINT NOT NULL,
    UNIQUE (scope, purpose, version)
);

CREATE TABLE oplog_key_wrap (
    key_id oplog_id NOT NULL REFERENCES oplog_key (id) ON DELETE RESTRICT,
    kek_id TEXT COLLATE "C" NOT NULL,
    wrapped BYTEA NOT NULL,
    PRIMARY KEY (key_id, kek_id)
);

-- No foreign key to oplog_key: every write would lock the row of its key.
CREATE TABLE oplog_entry (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    create_time BIGINT NOT NULL,
    version SMALLINT NOT NULL,
    aggregate_name TEXT COLLATE "C" NOT NULL,
    sequence oplog_position NOT NULL,
    key_id oplog_id NOT NULL,
    txn_id oplog_id,
    metadata BYTEA NOT NULL,
    data oplog_envelope NOT NULL,
    UNIQUE (aggregate_name, sequence)
);
-- Ciphertext does not compress.
ALTER TABLE oplog_entry ALTER COLUMN data SET STORAGE EXTERNAL;

CREATE TABLE oplog_metadata (
    entry_id BIGINT NOT NULL REFERENCES oplog_entry (id) ON DELETE RESTRICT,
    key TEXT COLLATE "C" NOT NULL,
    ordinal INTEGER NOT NULL,
    value TEXT COLLATE "C",
    PRIMARY KEY (entry_id, key, ordinal)
);

CREATE INDEX oplog_metadata_search ON oplog_metadata (key, value);

CREATE FUNCTION oplog_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of % is refused: the oplog is immutable', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation';
END
$$;

CREATE TRIGGER oplog_entry_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON oplog_entry
FOR EACH STATEMENT EXECUTE FUNCTION oplog_refuse();
CREATE TRIGGER oplog_metadata_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON oplog_metadata
FOR EACH STATEMENT EXECUTE FUNCTION oplog_refuse();
CREATE TRIGGER oplog_ticket_no_delete BEFORE DELETE OR TRUNCATE ON oplog_ticket
FOR EACH STATEMENT EXECUTE FUNCTION oplog_refuse();
CREATE TRIGGER oplog_log_no_delete BEFORE DELETE OR TRUNCATE ON oplog_log
FOR EACH STATEMENT EXECUTE FUNCTION oplog_refuse();

-- Creates a ticket unless there is one, and does not wait for somebody who is creating it. Here, since
-- a client can't tell a time-out from other errors whatever the language of the server's messages is.
CREATE FUNCTION oplog_create_ticket(name TEXT, version BIGINT, head_hash BYTEA, epoch INTEGER)
RETURNS BOOLEAN LANGUAGE plpgsql SET lock_timeout = '1ms' AS $$
BEGIN
    INSERT INTO oplog_ticket VALUES (name, version, head_hash, epoch) ON CONFLICT DO NOTHING;
    RETURN FOUND;
EXCEPTION WHEN lock_not_available THEN
    RETURN FALSE;
END
$$;

INSERT INTO oplog_log (log_id, epoch) VALUES (uuid_send(gen_random_uuid()), 1);
INSERT INTO oplog_migration (version) VALUES ('20261124000000');
