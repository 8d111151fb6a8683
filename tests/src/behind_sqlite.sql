-- An application whose database does much by itself: versions, totals and times by triggers,
-- rows that go with their parents, and keys that are set to something else.
CREATE TABLE clerks (
    id INTEGER PRIMARY KEY,
    boss_id BIGINT REFERENCES clerks (id) ON DELETE SET NULL
);
CREATE TABLE customers (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    loud TEXT NOT NULL GENERATED ALWAYS AS (upper(name)) VIRTUAL,
    version BIGINT NOT NULL DEFAULT 1,
    updated_at BIGINT NOT NULL DEFAULT 0
);
CREATE TABLE orders (
    id INTEGER PRIMARY KEY,
    customer_id BIGINT NOT NULL REFERENCES customers (id) ON DELETE CASCADE,
    clerk_id BIGINT REFERENCES clerks (id) ON DELETE SET NULL,
    total BIGINT NOT NULL DEFAULT 0,
    version BIGINT NOT NULL DEFAULT 1
);
CREATE TABLE lines (
    order_id BIGINT NOT NULL REFERENCES orders (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    amount BIGINT NOT NULL,
    -- The second side of a diamond.
    customer_id BIGINT REFERENCES customers (id) ON DELETE CASCADE,
    PRIMARY KEY (order_id, number)
);
CREATE TABLE remarks (
    id INTEGER PRIMARY KEY,
    order_id BIGINT,
    number INTEGER,
    remark TEXT NOT NULL,
    FOREIGN KEY (order_id, number) REFERENCES lines (order_id, number) ON DELETE CASCADE
);
CREATE TABLE folders (
    id INTEGER PRIMARY KEY,
    parent_id BIGINT REFERENCES folders (id) ON DELETE CASCADE
);
CREATE TABLE files (
    id INTEGER PRIMARY KEY,
    -- Where lost files go.
    folder_id BIGINT NOT NULL DEFAULT 1 REFERENCES folders (id) ON DELETE SET DEFAULT
);

CREATE TABLE shelves (
    id INTEGER PRIMARY KEY,
    code TEXT NOT NULL UNIQUE,
    room BIGINT NOT NULL
);
CREATE TABLE crates (
    shelf_code TEXT NOT NULL REFERENCES shelves (code) ON DELETE CASCADE ON UPDATE CASCADE,
    number INTEGER NOT NULL,
    version BIGINT NOT NULL DEFAULT 1,
    PRIMARY KEY (shelf_code, number)
);
CREATE TABLE things (
    id INTEGER PRIMARY KEY,
    shelf_code TEXT NOT NULL,
    number INTEGER NOT NULL,
    shelf_id BIGINT REFERENCES shelves (id),
    was_at TEXT REFERENCES shelves (code) ON DELETE SET NULL ON UPDATE SET NULL,
    FOREIGN KEY (shelf_code, number) REFERENCES crates (shelf_code, number) ON DELETE CASCADE ON UPDATE CASCADE
);

CREATE TABLE memos (
    id INTEGER PRIMARY KEY,
    owner_id BIGINT NOT NULL,
    body TEXT NOT NULL
);

CREATE TRIGGER customers_version AFTER UPDATE ON customers WHEN NEW.version = OLD.version BEGIN
    UPDATE customers SET version = OLD.version + 1, updated_at = OLD.updated_at + 10 WHERE id = NEW.id;
END;
CREATE TRIGGER orders_version AFTER UPDATE ON orders WHEN NEW.version = OLD.version BEGIN
    UPDATE orders SET version = OLD.version + 1 WHERE id = NEW.id;
END;
CREATE TRIGGER lines_added AFTER INSERT ON lines BEGIN
    UPDATE orders SET total = total + NEW.amount WHERE id = NEW.order_id;
END;
CREATE TRIGGER lines_changed AFTER UPDATE ON lines BEGIN
    UPDATE orders SET total = total + NEW.amount - OLD.amount WHERE id = NEW.order_id;
END;
CREATE TRIGGER lines_removed AFTER DELETE ON lines BEGIN
    UPDATE orders SET total = total - OLD.amount WHERE id = OLD.order_id;
END;
CREATE TRIGGER crates_version AFTER UPDATE ON crates WHEN NEW.version = OLD.version BEGIN
    UPDATE crates SET version = OLD.version + 1 WHERE shelf_code = NEW.shelf_code AND number = NEW.number;
END;
CREATE TRIGGER memos_moved AFTER INSERT ON memos WHEN NEW.body = 'move' BEGIN
    UPDATE memos SET owner_id = owner_id + 1 WHERE id = NEW.id;
END;
CREATE TRIGGER memos_changed AFTER UPDATE OF body ON memos WHEN NEW.body = 'move' BEGIN
    UPDATE memos SET owner_id = owner_id + 1 WHERE id = NEW.id;
END;
CREATE TRIGGER memos_dropped AFTER INSERT ON memos WHEN NEW.body = 'drop' BEGIN
    DELETE FROM memos WHERE id = NEW.id;
END;
CREATE TRIGGER memos_given_up AFTER UPDATE OF body ON memos WHEN NEW.body = 'drop' BEGIN
    DELETE FROM memos WHERE id = NEW.id;
END;
CREATE TRIGGER memos_kept AFTER DELETE ON memos WHEN OLD.body = 'keep' BEGIN
    INSERT INTO memos (id, owner_id, body) VALUES (OLD.id, OLD.owner_id, 'kept');
END;
