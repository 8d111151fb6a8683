-- Removes the log with everything in it.
DROP TABLE oplog_metadata;
DROP TABLE oplog_entry;
DROP TABLE oplog_key_wrap;
DROP TABLE oplog_key;
DROP TABLE oplog_ticket;
DROP TABLE oplog_log;
DROP DOMAIN oplog_position, oplog_epoch, oplog_id, oplog_hash, oplog_envelope;
DROP FUNCTION oplog_refuse();
DROP FUNCTION oplog_create_ticket(TEXT, BIGINT, BYTEA, INTEGER);
DELETE FROM oplog_migration WHERE version = '20261124000000';
