//! The statements about whole rows of any model, in tables of any name. Diesel caches them by their
//! text, of which there are few for each table.

use diesel::QueryResult;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::Untyped;
use oplog_core::TypeDef;

use super::{AnyRow, TableName};
use crate::backend::LogBackend;

/// The parts of a table's statements that are the same for every row, in the database's own quotes.
/// Diesel looks a statement up by its text, so the text is put together for each row; from few
/// pieces, it costs little.
#[derive(Debug)]
pub(crate) struct Texts {
    /// `"table"`.
    table: String,
    /// `("a", "b")`: the columns that are inserted.
    insert: String,
    /// `"a", "b"`: all columns of the model.
    all: String,
    /// The columns that are inserted.
    inserted: Vec<usize>,
    /// The columns of the key, with ` WHERE "a" = ` or ` AND "b" = ` before each value.
    key: Vec<(usize, String)>,
}

impl Texts {
    /// The texts of a table of which these columns can be written.
    pub fn new<DB: LogBackend>(
        table: &TableName,
        def: &'static TypeDef,
        inserted: Vec<usize>,
    ) -> QueryResult<Self> {
        let quoted: Vec<String> = def
            .columns
            .iter()
            .map(|column| DB::quote(column.name))
            .collect::<QueryResult<_>>()?;
        let insert: Vec<&str> = inserted
            .iter()
            .map(|column| quoted[*column].as_str())
            .collect();
        let key = (0..quoted.len())
            .filter(|column| def.columns[*column].key)
            .enumerate();
        Ok(Texts {
            table: table.quote::<DB>()?,
            insert: format!(" ({})", insert.join(", ")),
            all: quoted.join(", "),
            key: key
                .map(|(at, column)| {
                    let word = if at == 0 { "WHERE" } else { "AND" };
                    (column, format!(" {word} {} = ", quoted[column]))
                })
                .collect(),
            inserted,
        })
    }

    /// The columns that can be written.
    pub fn inserted(&self) -> &[usize] {
        &self.inserted
    }
}

/// One statement on a table.
pub(crate) struct OnTable<'a, DB: LogBackend> {
    pub texts: &'a Texts,
    pub def: &'static TypeDef,
    pub verb: Verb<'a, DB>,
}

pub(crate) enum Verb<'a, DB: LogBackend> {
    /// Inserts rows, also into generated identity columns, and returns them.
    Insert { rows: &'a [Box<dyn AnyRow<DB>>] },
    /// Inserts a row and returns it.
    InsertOne { row: &'a dyn AnyRow<DB> },
    /// Reads the row with the key of this one.
    Select { key: &'a dyn AnyRow<DB> },
    /// Sets these columns in the row with the key of this one, and returns it.
    Update {
        columns: &'a [usize],
        row: &'a dyn AnyRow<DB>,
    },
    /// Deletes the row with the key of this one, and returns it.
    Delete { key: &'a dyn AnyRow<DB> },
    /// Reads any row.
    Any,
    /// Counts the rows.
    Count,
}

impl<DB: LogBackend> OnTable<'_, DB> {
    fn with_key<'b>(
        &'b self,
        row: &'b dyn AnyRow<DB>,
        out: &mut AstPass<'_, 'b, DB>,
    ) -> QueryResult<()> {
        for (column, text) in &self.texts.key {
            out.push_sql(text);
            row.bind(*column, out.reborrow())?;
        }
        Ok(())
    }

    fn insert(&self, identity: &str, out: &mut AstPass<'_, '_, DB>) {
        out.push_sql("INSERT INTO ");
        out.push_sql(&self.texts.table);
        out.push_sql(&self.texts.insert);
        out.push_sql(identity);
        out.push_sql(" VALUES ");
    }

    fn values<'b>(
        &'b self,
        row: &'b dyn AnyRow<DB>,
        out: &mut AstPass<'_, 'b, DB>,
    ) -> QueryResult<()> {
        for (at, column) in self.texts.inserted.iter().enumerate() {
            out.push_sql(if at == 0 { "(" } else { ", " });
            row.bind(*column, out.reborrow())?;
        }
        out.push_sql(")");
        Ok(())
    }

    fn returning(&self, out: &mut AstPass<'_, '_, DB>) {
        out.push_sql(" RETURNING ");
        out.push_sql(&self.texts.all);
    }
}

impl<DB: LogBackend> QueryFragment<DB> for OnTable<'_, DB> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        let texts = self.texts;
        match &self.verb {
            Verb::Insert { rows } => {
                self.insert(DB::INSERT_IDENTITY, &mut out);
                for (at, row) in rows.iter().enumerate() {
                    if at > 0 {
                        out.push_sql(", ");
                    }
                    self.values(&**row, &mut out)?;
                }
                self.returning(&mut out);
                Ok(())
            }
            Verb::InsertOne { row } => {
                self.insert("", &mut out);
                self.values(*row, &mut out)?;
                self.returning(&mut out);
                Ok(())
            }
            Verb::Select { key } => {
                out.push_sql("SELECT ");
                out.push_sql(&texts.all);
                out.push_sql(" FROM ");
                out.push_sql(&texts.table);
                self.with_key(*key, &mut out)
            }
            Verb::Update { columns, row } => {
                out.push_sql("UPDATE ");
                out.push_sql(&texts.table);
                for (at, column) in columns.iter().enumerate() {
                    out.push_sql(if at == 0 { " SET " } else { ", " });
                    out.push_identifier(self.def.columns[*column].name)?;
                    out.push_sql(" = ");
                    row.bind(*column, out.reborrow())?;
                }
                self.with_key(*row, &mut out)?;
                self.returning(&mut out);
                Ok(())
            }
            Verb::Delete { key } => {
                out.push_sql("DELETE FROM ");
                out.push_sql(&texts.table);
                self.with_key(*key, &mut out)?;
                self.returning(&mut out);
                Ok(())
            }
            Verb::Count => {
                out.push_sql("SELECT count(*) FROM ");
                out.push_sql(&texts.table);
                Ok(())
            }
            Verb::Any => {
                out.push_sql("SELECT 1 FROM ");
                out.push_sql(&texts.table);
                out.push_sql(" LIMIT 1");
                Ok(())
            }
        }
    }
}

impl<DB: LogBackend> QueryId for OnTable<'_, DB> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<DB: LogBackend> Query for OnTable<'_, DB> {
    type SqlType = Untyped;
}
