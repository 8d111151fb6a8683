//! The variants, once for all databases: a module of each, which has the connection's type.
//!
//! A new one is an item in one of these lists. What it claims to write is checked before it is
//! measured, and its ratios divide by `PLAIN_CACHED` unless it says otherwise.

use diesel::prelude::*;
use diesel::result::Error as DieselError;
use oplog_diesel::prelude::Oplogged;

use super::{Conn, contended, original};
use crate::model::{AsWritten, Member, QueuedMember, members};
use crate::statement::{Bind, Fixed, SetAge, SetAges};
use crate::variant::{
    At, OPTIMISTIC, Operation, PLAIN_AS_WRITTEN, PLAIN_AUTOCOMMIT, PLAIN_CACHED, PLAIN_ONE_BY_ONE,
    Variant,
};

/// What is measured on one connection.
pub fn alone(operation: Operation, rows: usize) -> Vec<Variant<Conn>> {
    match (operation, rows) {
        (Operation::Insert, 1) => insert_one(),
        (Operation::Insert, _) => insert_many(),
        (Operation::Update, 1) => update_one(),
        (Operation::Update, _) => update_many(),
        (Operation::Delete, 1) => delete_one(),
        (Operation::Delete, _) => delete_many(),
    }
}

fn insert_one() -> Vec<Variant<Conn>> {
    vec![
        Variant::unlogged(PLAIN_CACHED, |at| {
            let At { conn, rows, .. } = at;
            Ok(conn.transaction(|conn| insert(conn, rows))?)
        }),
        Variant::unlogged(PLAIN_AS_WRITTEN, |at| {
            let values = at.rows[0].as_written();
            Ok(at.conn.transaction(|conn| {
                diesel::insert_into(members::table)
                    .values(values)
                    .execute(conn)
                    .map(drop)
            })?)
        }),
        Variant::unlogged(PLAIN_AUTOCOMMIT, |at| Ok(insert(at.conn, at.rows)?)),
        Variant::logged("logged_insert", |at| {
            at.late().transaction(at.conn, |tx| {
                tx.logged_insert::<Member, _>(&at.rows[0])?;
                Ok(())
            })
        }),
        Variant::logged("logged_insert, values as written", |at| {
            at.late().transaction(at.conn, |tx| {
                tx.logged_insert::<Member, _>(at.rows[0].as_written())?;
                Ok(())
            })
        }),
        Variant::logged("logged_insert, on", |at| {
            at.named().transaction(at.conn, |tx| {
                tx.logged_insert::<Member, _>(&at.rows[0])?;
                Ok(())
            })
        }),
        Variant::logged("logged_insert, new aggregate", |at| {
            at.late().transaction(at.conn, |tx| {
                tx.logged_insert::<Member, _>(&at.rows[0])?;
                Ok(())
            })
        })
        .in_new_teams(),
        Variant::logged("logged_insert_row", |at| {
            at.late().logged_insert_row(at.conn, &at.rows[0])?;
            Ok(())
        })
        .against(&[PLAIN_CACHED, PLAIN_AUTOCOMMIT]),
        Variant::original(|at| original::create(at, insert)),
        Variant::trigger(super::TRIGGER, |at| {
            let At { conn, rows, .. } = at;
            Ok(conn.transaction(|conn| insert(conn, rows))?)
        }),
    ]
}

fn insert_many() -> Vec<Variant<Conn>> {
    vec![
        Variant::unlogged(PLAIN_CACHED, |at| {
            let At { conn, rows, .. } = at;
            Ok(conn.transaction(|conn| insert(conn, rows))?)
        }),
        Variant::unlogged(PLAIN_AS_WRITTEN, |at| {
            let values: Vec<AsWritten<'_>> = at.rows.iter().map(Member::as_written).collect();
            Ok(at.conn.transaction(|conn| {
                diesel::insert_into(members::table)
                    .values(&values)
                    .execute(conn)
                    .map(drop)
            })?)
        }),
        Variant::unlogged(PLAIN_ONE_BY_ONE, |at| {
            let At { conn, rows, .. } = at;
            Ok(conn.transaction(|conn| rows.chunks(1).try_for_each(|row| insert(conn, row)))?)
        }),
        Variant::logged("logged_insert_many", |at| {
            at.late().transaction(at.conn, |tx| {
                tx.logged_insert_many::<Member, _>(at.rows)?;
                Ok(())
            })
        })
        .against(&[PLAIN_CACHED, PLAIN_AS_WRITTEN]),
        Variant::logged("logged_insert_many, on", |at| {
            at.named().transaction(at.conn, |tx| {
                tx.logged_insert_many::<Member, _>(at.rows)?;
                Ok(())
            })
        })
        .against(&[PLAIN_CACHED, PLAIN_AS_WRITTEN]),
        Variant::logged("logged_insert, one by one", |at| {
            at.late().transaction(at.conn, |tx| {
                for row in at.rows {
                    tx.logged_insert::<Member, _>(row)?;
                }
                Ok(())
            })
        })
        .against(&[PLAIN_ONE_BY_ONE]),
        Variant::original(|at| original::create(at, insert)),
        Variant::trigger(super::TRIGGER, |at| {
            let At { conn, rows, .. } = at;
            Ok(conn.transaction(|conn| insert(conn, rows))?)
        }),
    ]
}

fn update_one() -> Vec<Variant<Conn>> {
    vec![
        Variant::unlogged(PLAIN_CACHED, |at| {
            let At {
                conn, rows, age, ..
            } = at;
            Ok(conn.transaction(|conn| update(conn, &rows[0], age))?)
        }),
        Variant::unlogged(PLAIN_AS_WRITTEN, |at| {
            let At {
                conn, rows, age, ..
            } = at;
            Ok(conn.transaction(|conn| {
                let changed = diesel::update(members::table.find(rows[0].id))
                    .set(members::age.eq(age))
                    .execute(conn)?;
                all(changed, 1)
            })?)
        }),
        Variant::unlogged(PLAIN_AUTOCOMMIT, |at| {
            Ok(update(at.conn, &at.rows[0], at.age)?)
        }),
        Variant::logged("logged_update", |at| {
            at.late().transaction(at.conn, |tx| {
                tx.logged_update(&at.rows[0], members::age.eq(at.age))?;
                Ok(())
            })
        }),
        Variant::logged("logged_update, on", |at| {
            at.named().transaction(at.conn, |tx| {
                tx.logged_update(&at.rows[0], members::age.eq(at.age))?;
                Ok(())
            })
        }),
        Variant::logged("logged_update_row", |at| {
            let new = at.rows[0].aged(at.age);
            at.late().logged_update_row(at.conn, &at.rows[0], &new)?;
            Ok(())
        })
        .against(&[PLAIN_CACHED, PLAIN_AUTOCOMMIT]),
        Variant::original(|at| original::update(at, |conn, rows, age| update(conn, &rows[0], age))),
        Variant::trigger(super::TRIGGER, |at| {
            let At {
                conn, rows, age, ..
            } = at;
            Ok(conn.transaction(|conn| update(conn, &rows[0], age))?)
        }),
    ]
}

fn update_many() -> Vec<Variant<Conn>> {
    vec![
        Variant::unlogged(PLAIN_CACHED, |at| {
            let At {
                conn, rows, age, ..
            } = at;
            Ok(conn.transaction(|conn| update_range(conn, rows, age))?)
        }),
        Variant::unlogged(PLAIN_AS_WRITTEN, |at| {
            let (first, last) = at.ids();
            let At {
                conn, rows, age, ..
            } = at;
            Ok(conn.transaction(|conn| {
                let changed =
                    diesel::update(members::table.filter(members::id.between(first, last)))
                        .set(members::age.eq(age))
                        .execute(conn)?;
                all(changed, rows.len())
            })?)
        }),
        Variant::unlogged(PLAIN_ONE_BY_ONE, |at| {
            let At {
                conn, rows, age, ..
            } = at;
            Ok(conn.transaction(|conn| rows.iter().try_for_each(|row| update(conn, row, age)))?)
        }),
        Variant::logged("logged_update_where", |at| {
            let (first, last) = at.ids();
            at.late().transaction(at.conn, |tx| {
                let found = members::table.filter(members::id.between(first, last));
                tx.logged_update_where::<Member, _, _>(found, members::age.eq(at.age))?;
                Ok(())
            })
        }),
        Variant::logged("logged_update_where, on", |at| {
            let (first, last) = at.ids();
            at.named().transaction(at.conn, |tx| {
                let found = members::table.filter(members::id.between(first, last));
                tx.logged_update_where::<Member, _, _>(found, members::age.eq(at.age))?;
                Ok(())
            })
        }),
        Variant::logged("logged_update, one by one", |at| {
            at.late().transaction(at.conn, |tx| {
                for row in at.rows {
                    tx.logged_update(row, members::age.eq(at.age))?;
                }
                Ok(())
            })
        })
        .against(&[PLAIN_ONE_BY_ONE]),
        Variant::original(|at| original::update(at, update_range)),
        Variant::trigger(super::TRIGGER, |at| {
            let At {
                conn, rows, age, ..
            } = at;
            Ok(conn.transaction(|conn| update_range(conn, rows, age))?)
        }),
    ]
}

// Diesel caches its own deletes, so there is no "as written" beside "cached".
fn delete_one() -> Vec<Variant<Conn>> {
    vec![
        Variant::unlogged(PLAIN_CACHED, |at| {
            let At { conn, rows, .. } = at;
            Ok(conn.transaction(|conn| delete(conn, &rows[0]))?)
        }),
        Variant::unlogged(PLAIN_AUTOCOMMIT, |at| Ok(delete(at.conn, &at.rows[0])?)),
        Variant::logged("logged_delete", |at| {
            at.late().transaction(at.conn, |tx| {
                tx.logged_delete(&at.rows[0])?;
                Ok(())
            })
        }),
        Variant::logged("logged_delete, on", |at| {
            at.named().transaction(at.conn, |tx| {
                tx.logged_delete(&at.rows[0])?;
                Ok(())
            })
        }),
        Variant::logged("logged_delete_by_key", |at| {
            at.late().transaction(at.conn, |tx| {
                tx.logged_delete_by_key::<Member, _>(at.rows[0].id)?;
                Ok(())
            })
        }),
        Variant::logged("logged_delete_row", |at| {
            at.late().logged_delete_row(at.conn, &at.rows[0])?;
            Ok(())
        })
        .against(&[PLAIN_CACHED, PLAIN_AUTOCOMMIT]),
        Variant::original(|at| original::delete(at, |conn, rows| delete(conn, &rows[0]))),
        Variant::trigger(super::TRIGGER, |at| {
            let At { conn, rows, .. } = at;
            Ok(conn.transaction(|conn| delete(conn, &rows[0]))?)
        }),
    ]
}

fn delete_many() -> Vec<Variant<Conn>> {
    vec![
        Variant::unlogged(PLAIN_CACHED, |at| {
            let At { conn, rows, .. } = at;
            Ok(conn.transaction(|conn| delete_range(conn, rows))?)
        }),
        Variant::unlogged(PLAIN_ONE_BY_ONE, |at| {
            let At { conn, rows, .. } = at;
            Ok(conn.transaction(|conn| rows.iter().try_for_each(|row| delete(conn, row)))?)
        }),
        Variant::logged("logged_delete_where", |at| {
            let (first, last) = at.ids();
            at.late().transaction(at.conn, |tx| {
                let found = members::table.filter(members::id.between(first, last));
                tx.logged_delete_where::<Member, _>(found)?;
                Ok(())
            })
        }),
        Variant::logged("logged_delete_where, on", |at| {
            let (first, last) = at.ids();
            at.named().transaction(at.conn, |tx| {
                let found = members::table.filter(members::id.between(first, last));
                tx.logged_delete_where::<Member, _>(found)?;
                Ok(())
            })
        }),
        Variant::logged("logged_delete, one by one", |at| {
            at.late().transaction(at.conn, |tx| {
                for row in at.rows {
                    tx.logged_delete(row)?;
                }
                Ok(())
            })
        })
        .against(&[PLAIN_ONE_BY_ONE]),
        Variant::original(|at| original::delete(at, delete_range)),
        Variant::trigger(super::TRIGGER, |at| {
            let At { conn, rows, .. } = at;
            Ok(conn.transaction(|conn| delete_range(conn, rows))?)
        }),
    ]
}

/// What is measured with many threads at once: one insert, and work beside it in the transaction.
pub fn together() -> Vec<Variant<Conn>> {
    vec![
        Variant::unlogged(PLAIN_CACHED, |at| {
            let At {
                conn, rows, inside, ..
            } = at;
            contended(conn, &mut |conn| {
                insert(conn, rows)?;
                inside.work()
            })
        }),
        Variant::logged("late", |at| {
            at.late().transaction(at.conn, |tx| {
                tx.logged_insert::<Member, _>(&at.rows[0])?;
                at.inside.work()
            })
        })
        .against(&[PLAIN_CACHED, OPTIMISTIC]),
        Variant::logged(OPTIMISTIC, |at| {
            at.named().transaction(at.conn, |tx| {
                tx.logged_insert::<Member, _>(&at.rows[0])?;
                at.inside.work()
            })
        }),
        Variant::logged("lock_first", |at| {
            let queued = at.rows[0].queued();
            let builder = at.late().on(queued.aggregate());
            builder.transaction(at.conn, |tx| {
                tx.logged_insert::<QueuedMember, _>(&queued)?;
                at.inside.work()
            })
        }),
        Variant::original(|at| original::create_again_and_again(at, insert)),
    ]
}

/// Inserts rows with a statement that Diesel caches: of one row, or of as many as an array has.
pub fn insert(conn: &mut Conn, rows: &[Member]) -> QueryResult<()> {
    fn array<const N: usize>(conn: &mut Conn, rows: &[Member]) -> QueryResult<()> {
        let rows: &[Member; N] = rows
            .try_into()
            .map_err(|_| DieselError::QueryBuilderError("another number of rows".into()))?;
        let inserted = diesel::insert_into(members::table)
            .values(rows)
            .execute(conn)?;
        all(inserted, N)
    }
    match rows {
        [row] => {
            let inserted = diesel::insert_into(members::table)
                .values(row)
                .execute(conn)?;
            all(inserted, 1)
        }
        rows if rows.len() == 10 => array::<10>(conn, rows),
        rows => array::<100>(conn, rows),
    }
}

fn update(conn: &mut Conn, row: &Member, age: i32) -> QueryResult<()> {
    let binds = [Bind::Int(age), Bind::Big(row.id)];
    all(Fixed::<SetAge>::new(&binds).execute(conn)?, 1)
}

fn update_range(conn: &mut Conn, rows: &[Member], age: i32) -> QueryResult<()> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
        return Ok(());
    };
    let binds = [Bind::Int(age), Bind::Big(first.id), Bind::Big(last.id)];
    all(Fixed::<SetAges>::new(&binds).execute(conn)?, rows.len())
}

fn delete(conn: &mut Conn, row: &Member) -> QueryResult<()> {
    let deleted = diesel::delete(members::table.find(row.id)).execute(conn)?;
    all(deleted, 1)
}

fn delete_range(conn: &mut Conn, rows: &[Member]) -> QueryResult<()> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
        return Ok(());
    };
    let found = members::table.filter(members::id.between(first.id, last.id));
    all(diesel::delete(found).execute(conn)?, rows.len())
}

/// Nothing is measured that did not find its rows.
fn all(changed: usize, expected: usize) -> QueryResult<()> {
    if changed == expected {
        Ok(())
    } else {
        Err(DieselError::NotFound)
    }
}
