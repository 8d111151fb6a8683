CREATE TABLE accounts (
    id INTEGER PRIMARY KEY,
    owner TEXT NOT NULL CHECK (owner <> 'nobody'),
    balance BIGINT NOT NULL DEFAULT 10,
    email TEXT
);
CREATE UNIQUE INDEX "accounts by email" ON accounts (email);
CREATE TABLE postings (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account_id BIGINT NOT NULL REFERENCES accounts (id),
    amount BIGINT NOT NULL,
    note TEXT
);
CREATE TABLE settings (
    section TEXT NOT NULL,
    name TEXT NOT NULL,
    value BLOB,
    PRIMARY KEY (section, name)
);
CREATE TABLE everything (
    id INTEGER PRIMARY KEY,
    a_bool BOOLEAN NOT NULL, a_small SMALLINT NOT NULL, an_int INTEGER NOT NULL, a_big BIGINT NOT NULL,
    a_float FLOAT NOT NULL, a_double DOUBLE NOT NULL, a_text TEXT NOT NULL, some_bytes BLOB NOT NULL,
    a_date DATE NOT NULL, a_time TIME NOT NULL, a_timestamp TIMESTAMP NOT NULL,
    maybe_bool BOOLEAN, maybe_small SMALLINT, maybe_int INTEGER, maybe_big BIGINT,
    maybe_float FLOAT, maybe_double DOUBLE, maybe_text TEXT, maybe_bytes BLOB,
    maybe_date DATE, maybe_time TIME, maybe_timestamp TIMESTAMP
);
CREATE TABLE counters (
    id INTEGER PRIMARY KEY,
    n BIGINT NOT NULL DEFAULT 0
);
