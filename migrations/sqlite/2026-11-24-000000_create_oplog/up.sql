-- FORMAT.md, section "Tables", describes every column.

CREATE TABLE IF NOT EXISTS oplog_migration (
    version TEXT NOT NULL PRIMARY KEY,
    run_on TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
) WITHOUT ROWID;

CREATE TABLE oplog_log (
    only_row INTEGER NOT NULL PRIMARY KEY DEFAULT 1 CHECK (only_row = 1),
    log_id BLOB NOT NULL CHECK (length(log_id) = 16),
    epoch INTEGER NOT NULL CHECK (epoch >= 1)
);

CREATE TABLE oplog_ticket (
    name TEXT NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL CHECK (version >= 1),
    head_hash BLOB NOT NULL CHECK (length(head_hash) = 32),
    epoch INTEGER NOT NULL CHECK (epoch >= 1)
) WITHOUT ROWID;

CREATE TABLE oplog_key (
    id BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    scope TEXT NOT NULL,
    purpose TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version >= 1),
    state TEXT NOT NULL CHECK (state IN ('pending', 'primary', 'retired', 'destroyed')),
    created_us BIGINT NOT NULL,
    UNIQUE (scope, purpose, version)
);

CREATE TABLE oplog_key_wrap (
    key_id BLOB NOT NULL REFERENCES oplog_key (id) ON DELETE RESTRICT,
    kek_id TEXT NOT NULL,
    wrapped BLOB NOT NULL,
    PRIMARY KEY (key_id, kek_id)
);

-- No foreign key to oplog_key: every write would lock the row of its key.
CREATE TABLE oplog_entry (
    id INTEGER NOT NULL PRIMARY KEY,
    create_time BIGINT NOT NULL,
    version SMALLINT NOT NULL,
    aggregate_name TEXT NOT NULL,
    sequence BIGINT NOT NULL CHECK (sequence >= 1),
    key_id BLOB NOT NULL CHECK (length(key_id) = 16),
    txn_id BLOB CHECK (txn_id IS NULL OR length(txn_id) = 16),
    metadata BLOB NOT NULL,
    -- The length is asked first: of an empty blob, substr makes NULL, and a CHECK lets that pass.
    data BLOB NOT NULL CHECK (length(data) >= 5 AND substr(data, 1, 5) = X'4F504C0101'),
    UNIQUE (aggregate_name, sequence)
);

CREATE TABLE oplog_metadata (
    entry_id INTEGER NOT NULL REFERENCES oplog_entry (id) ON DELETE RESTRICT,
    key TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    value TEXT,
    PRIMARY KEY (entry_id, key, ordinal)
) WITHOUT ROWID;

CREATE INDEX oplog_metadata_search ON oplog_metadata (key, value);

-- Entries never change. The BEFORE INSERT trigger is there because INSERT OR REPLACE deletes rows
-- without firing a delete trigger.
CREATE TRIGGER oplog_entry_no_update BEFORE UPDATE ON oplog_entry
BEGIN SELECT RAISE(ABORT, 'oplog_entry is immutable'); END;
CREATE TRIGGER oplog_entry_no_delete BEFORE DELETE ON oplog_entry
BEGIN SELECT RAISE(ABORT, 'oplog_entry is immutable'); END;
CREATE TRIGGER oplog_entry_no_replace BEFORE INSERT ON oplog_entry
WHEN EXISTS (SELECT 1 FROM oplog_entry WHERE id = NEW.id)
    OR EXISTS (SELECT 1 FROM oplog_entry WHERE aggregate_name = NEW.aggregate_name AND sequence = NEW.sequence)
BEGIN SELECT RAISE(ABORT, 'oplog_entry is immutable'); END;

CREATE TRIGGER oplog_metadata_no_update BEFORE UPDATE ON oplog_metadata
BEGIN SELECT RAISE(ABORT, 'oplog_metadata is immutable'); END;
CREATE TRIGGER oplog_metadata_no_delete BEFORE DELETE ON oplog_metadata
BEGIN SELECT RAISE(ABORT, 'oplog_metadata is immutable'); END;
CREATE TRIGGER oplog_metadata_no_replace BEFORE INSERT ON oplog_metadata
WHEN EXISTS (SELECT 1 FROM oplog_metadata WHERE entry_id = NEW.entry_id AND key = NEW.key AND ordinal = NEW.ordinal)
BEGIN SELECT RAISE(ABORT, 'oplog_metadata is immutable'); END;

CREATE TRIGGER oplog_ticket_no_delete BEFORE DELETE ON oplog_ticket
BEGIN SELECT RAISE(ABORT, 'a ticket of the oplog can not be deleted'); END;
CREATE TRIGGER oplog_log_no_delete BEFORE DELETE ON oplog_log
BEGIN SELECT RAISE(ABORT, 'oplog_log has exactly one row'); END;

INSERT INTO oplog_log (log_id, epoch) VALUES (randomblob(16), 1);
INSERT INTO oplog_migration (version) VALUES ('20261124000000');
