use std::fmt;

use diesel::QueryResult;
use diesel::backend::Backend;
use diesel::query_builder::{QueryBuilder, QueryFragment};
use diesel::query_source::QuerySource;
use diesel::result::Error as DieselError;

use crate::Oplogged;
use crate::backend::LogBackend;
use crate::dml::FromOf;

/// The name of a table, with its schema if it was declared with one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableName {
    schema: Option<String>,
    name: String,
}

/// A column of a table, as the database describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The name.
    pub name: String,
    /// Whether its value is computed from other columns, so that it can't be written.
    pub generated: bool,
}

impl TableName {
    /// A table without a schema.
    pub fn new(name: impl Into<String>) -> Self {
        TableName {
            schema: None,
            name: name.into(),
        }
    }

    /// A table of a schema.
    pub fn in_schema(schema: impl Into<String>, name: impl Into<String>) -> Self {
        TableName {
            schema: Some(schema.into()),
            name: name.into(),
        }
    }

    /// Reads a name that a query builder has quoted, in back-ticks or double quotes.
    pub(crate) fn parse(quoted: &str) -> Option<Self> {
        let mut parts = Vec::new();
        let mut chars = quoted.chars().peekable();
        loop {
            let quote = chars.next().filter(|quote| ['"', '`'].contains(quote))?;
            let mut part = String::new();
            loop {
                let c = chars.next()?;
                if c != quote {
                    part.push(c);
                } else if chars.next_if_eq(&quote).is_some() {
                    // A doubled quote stands for itself.
                    part.push(quote);
                } else {
                    break;
                }
            }
            parts.push(part);
            match chars.next() {
                Some('.') => {}
                Some(_) => return None,
                None => break,
            }
        }
        let name = parts.pop()?;
        let schema = parts.pop();
        parts.is_empty().then_some(TableName { schema, name })
    }

    /// The same name with a suffix, in the same schema.
    pub fn suffixed(&self, suffix: &str) -> Self {
        TableName {
            schema: self.schema.clone(),
            name: format!("{}{suffix}", self.name),
        }
    }

    /// The name without the schema.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The schema, if there is one.
    pub fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    /// The name in SQL, in the standard's quotes, which SQLite and PostgreSQL share.
    pub fn quoted(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{}.{}", quote(schema), quote(&self.name)),
            None => quote(&self.name),
        }
    }

    /// The name without the schema in SQL.
    pub fn quoted_name(&self) -> String {
        quote(&self.name)
    }

    /// The name in SQL, in the quotes of a database.
    pub(crate) fn quote<DB: LogBackend>(&self) -> QueryResult<String> {
        let name = DB::quote(&self.name)?;
        Ok(match &self.schema {
            Some(schema) => format!("{}.{name}", DB::quote(schema)?),
            None => name,
        })
    }
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema}.")?;
        }
        f.write_str(&self.name)
    }
}

/// The name of a model's table, as `diesel::table!` declared it.
///
/// # Errors
///
/// If the model's table is no plain table.
pub fn table_of<M, DB>() -> QueryResult<TableName>
where
    M: Oplogged,
    DB: Backend<QueryBuilder: Default> + Default,
    FromOf<M>: QueryFragment<DB>,
{
    let mut builder = DB::QueryBuilder::default();
    M::Table::default()
        .from_clause()
        .to_sql(&mut builder, &DB::default())?;
    let sql = builder.finish();
    TableName::parse(&sql).ok_or_else(|| {
        DieselError::QueryBuilderError(format!("{sql} is not the name of a table").into())
    })
}

#[cfg(test)]
mod tests {
    use super::TableName;

    #[test]
    fn quoted_names_are_read_and_written() {
        for (quoted, schema, name) in [
            ("`users`", None, "users"),
            ("\"users\"", None, "users"),
            ("\"audit\".\"Users\"", Some("audit"), "Users"),
            ("\"a\"\"b\"", None, "a\"b"),
            ("`a``b`.`c.d`", Some("a`b"), "c.d"),
        ] {
            let table = TableName::parse(quoted).expect(quoted);
            assert_eq!((table.schema(), table.name()), (schema, name));
            assert_eq!(TableName::parse(&table.quoted()), Some(table));
        }
        for bad in [
            "",
            "users",
            "\"open",
            "\"a\".",
            "\"a\"b",
            "\"a\".\"b\".\"c\"",
        ] {
            assert_eq!(TableName::parse(bad), None, "{bad}");
        }
        assert_eq!(
            TableName::new("users").suffixed("_replay").quoted(),
            "\"users_replay\""
        );
    }
}
