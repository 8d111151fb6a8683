-- Removes the log with everything in it.
DROP TABLE oplog_metadata;
DROP TABLE oplog_entry;
DROP TABLE oplog_key_wrap;
DROP TABLE oplog_key;
DROP TABLE oplog_ticket;
DROP TABLE oplog_log;
DROP FUNCTION oplog_refuse();
DROP FUNCTION oplog_create_ticket(TEXT, BIGINT, BYTEA, INTEGER);
DELETE FROM oplog_migration WHERE version = '20261124000000';
