-- An application whose database does much by itself: versions, totals and times by triggers,
-- rows that go with their parents, and keys that are set to something else.
CREATE TABLE clerks (
    id BIGSERIAL PRIMARY KEY,
    boss_id BIGINT REFERENCES clerks (id) ON DELETE SET NULL
);
CREATE TABLE customers (
    id BIGSERIAL PRIMARY KEY,
    name TEXT NOT NULL,
    loud TEXT NOT NULL GENERATED ALWAYS AS (upper(name)) STORED,
    version BIGINT NOT NULL DEFAULT 1,
    updated_at BIGINT NOT NULL DEFAULT 0
);
CREATE TABLE orders (
    id BIGSERIAL PRIMARY KEY,
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
    id BIGSERIAL PRIMARY KEY,
    order_id BIGINT,
    number INTEGER,
    remark TEXT NOT NULL,
    FOREIGN KEY (order_id, number) REFERENCES lines (order_id, number) ON DELETE CASCADE
);
CREATE TABLE folders (
    id BIGSERIAL PRIMARY KEY,
    parent_id BIGINT REFERENCES folders (id) ON DELETE CASCADE
);
CREATE TABLE files (
    id BIGSERIAL PRIMARY KEY,
    -- Where lost files go.
    folder_id BIGINT NOT NULL DEFAULT 1 REFERENCES folders (id) ON DELETE SET DEFAULT
);

CREATE TABLE shelves (
    id BIGSERIAL PRIMARY KEY,
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
    id BIGSERIAL PRIMARY KEY,
    shelf_code TEXT NOT NULL,
    number INTEGER NOT NULL,
    shelf_id BIGINT REFERENCES shelves (id),
    was_at TEXT REFERENCES shelves (code) ON DELETE SET NULL ON UPDATE SET NULL,
    FOREIGN KEY (shelf_code, number) REFERENCES crates (shelf_code, number) ON DELETE CASCADE ON UPDATE CASCADE
);

CREATE TABLE memos (
    id BIGSERIAL PRIMARY KEY,
    owner_id BIGINT NOT NULL,
    body TEXT NOT NULL
);

CREATE FUNCTION next_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.version := OLD.version + 1;
    IF TG_TABLE_NAME = 'customers' THEN
        NEW.updated_at := OLD.updated_at + 10;
    END IF;
    RETURN NEW;
END $$;
CREATE FUNCTION add_up() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'DELETE' THEN
        UPDATE orders SET total = total + NEW.amount WHERE id = NEW.order_id;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        UPDATE orders SET total = total - OLD.amount WHERE id = OLD.order_id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER customers_version BEFORE UPDATE ON customers FOR EACH ROW EXECUTE FUNCTION next_version();
CREATE TRIGGER orders_version BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION next_version();
CREATE TRIGGER lines_added AFTER INSERT ON lines FOR EACH ROW EXECUTE FUNCTION add_up();
CREATE TRIGGER lines_changed AFTER UPDATE ON lines FOR EACH ROW EXECUTE FUNCTION add_up();
CREATE TRIGGER lines_removed AFTER DELETE ON lines FOR EACH ROW EXECUTE FUNCTION add_up();
CREATE TRIGGER crates_version BEFORE UPDATE ON crates FOR EACH ROW EXECUTE FUNCTION next_version();
CREATE FUNCTION rule_memos() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF OLD.body = 'keep' THEN
            INSERT INTO memos (id, owner_id, body) VALUES (OLD.id, OLD.owner_id, 'kept');
        END IF;
    ELSIF TG_OP = 'UPDATE' AND NEW.body = OLD.body THEN
        RETURN NULL;
    ELSIF NEW.body = 'move' THEN
        UPDATE memos SET owner_id = owner_id + 1 WHERE id = NEW.id;
    ELSIF NEW.body = 'drop' THEN
        DELETE FROM memos WHERE id = NEW.id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER memos_ruled AFTER INSERT OR UPDATE OR DELETE ON memos FOR EACH ROW EXECUTE FUNCTION rule_memos();
